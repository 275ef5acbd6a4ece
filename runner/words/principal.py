"""Who acts: principals of a tenant, and operators of the deployment."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """What a principal may do in its tenant, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class Tier(StrEnum):
    """What a tenant has agreed with the operator: it decides rates and quotas."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class PrincipalKind(StrEnum):
    """What a principal is."""

    KEY = "key"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts in a tenant: an API key or a user, with one role there.

    `name` is a key's prefix or a user's id: what audit events call it. `permissions`, if it is not
    None, are those of its role that it has; `suspended` is its tenant. `session_id` is that of a
    user who logged in here, `ends_at` the Unix time at which a token of an identity provider ends.
    """

    tenant_id: UUID
    id: UUID
    kind: PrincipalKind
    name: str
    role: Role
    tier: Tier = Tier.FREE
    permissions: frozenset[str] | None = None
    suspended: bool = False
    session_id: UUID | None = None
    ends_at: float | None = None

    @property
    def actor(self) -> str:
        """The name this principal has in audit events."""
        return f"{self.kind.value}:{self.name}"


@dataclass(frozen=True, slots=True)
class Operator:
    """Who runs the deployment: makes and ends tenants, and is a principal of none of them."""

    id: UUID
    prefix: str

    @property
    def actor(self) -> str:
        """The name this operator has in audit events."""
        return f"operator:{self.prefix}"
