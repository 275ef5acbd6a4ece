"""Principals of a tenant, and operators of the deployment."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """The rights of a principal in its tenant, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class Tier(StrEnum):
    """The agreement of a tenant with the operator: its tier decides rates and quotas."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class PrincipalKind(StrEnum):
    """The kinds of principals."""

    KEY = "key"
    USER = "user"
    PORT = "port"
    """Whoever reaches an opened port of a sandbox: the holders of its token, or everybody."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An actor in a tenant: an API key, a user, or a visitor of an opened port; with one role.

    `name` is a key's prefix, a user's id or a port, as audit events show it. `permissions`, if not
    None, limits those of its role. `suspended` says that its tenant is suspended. `login_id` is
    what a member acts by: a session, or a subject of the identity provider that stands for them.
    `ends_at` is the Unix time at which a token of an identity provider or an opened port ends.
    """

    tenant_id: UUID
    id: UUID
    kind: PrincipalKind
    name: str
    role: Role
    tier: Tier = Tier.FREE
    permissions: frozenset[str] | None = None
    suspended: bool = False
    login_id: UUID | None = None
    ends_at: float | None = None

    @property
    def actor(self) -> str:
        """The name this principal has in audit events."""
        return f"{self.kind.value}:{self.name}"


@dataclass(frozen=True, slots=True)
class Operator:
    """A person who runs the deployment: makes and deletes tenants, and belongs to none of them."""

    id: UUID
    prefix: str

    @property
    def actor(self) -> str:
        """The name this operator has in audit events."""
        return f"operator:{self.prefix}"
