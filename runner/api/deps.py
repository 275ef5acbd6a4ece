"""What routes are given: the parts of the process, and the principal with its permission."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer

from runner.api.admission import Admission
from runner.api.callers import Cookies
from runner.api.context import origin
from runner.api.edge.ratelimit import RateLimiter
from runner.api.middleware import PRINCIPAL
from runner.api.turns import Turns
from runner.audit import events as audit
from runner.auth.identity import ANSWER, OPERATORS_ANSWER
from runner.auth.login import Logins
from runner.auth.oidc import Issuer
from runner.auth.permissions import Permission, may, stopped
from runner.auth.rights import HELD, Held, Rights
from runner.base.settings import Settings
from runner.base.signing import TrustedKeys
from runner.egress.policy import Policy
from runner.queue.changes import Changes
from runner.queue.doorbell import Doorbell
from runner.secrets.vault import Vault
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.words.errors import NotAuthenticated, NotFound, NotPermitted, TenantSuspended
from runner.words.principal import Operator, Principal
from runner.words.resources import Limits


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The parts an API process works with; opened and closed by whoever composes it.

    Without `operators` the process has no operator's routes: a login that may end tenants is then
    not within its reach.
    """

    settings: Settings
    sizes: Mapping[str, Limits]
    egress_ceiling: Policy
    database: Database
    objects: ObjectStore
    doorbell: Doorbell
    changes: Changes
    vault: Vault
    trusted: TrustedKeys
    limiter: RateLimiter
    admission: Admission
    verifying: Turns
    logins: Logins
    rights: Rights
    cookies: Cookies
    issuer: Issuer | None = None
    operators: Database | None = None


# Only described to OpenAPI here; the middleware reads the header.
BEARER = HTTPBearer(
    auto_error=False,
    description="An API key, `rk_…`, an operator's, `ro_…`, or an identity provider's token.",
)


def parts(request: Request) -> Dependencies:
    """Return the parts of this process."""
    found: Dependencies = request.app.state.parts
    return found


Parts = Annotated[Dependencies, Depends(parts)]


class Allow:
    """A route's permission: who lacks it is refused, and the refusal is audited."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(
        self, request: Request, given: Parts, _: Annotated[object, Security(BEARER)]
    ) -> Principal:
        """Return the principal. Raises NotAuthenticated or NotPermitted."""
        held = request.scope.get(HELD)
        if not isinstance(held, Held):
            raise NotAuthenticated(ANSWER)
        # As it stands now: what came before may have taken long, as a body that trickles in.
        principal = held.principal
        await require(request, given, principal, self.permission)
        return principal


async def require(
    request: Request, given: Dependencies, principal: Principal, permission: Permission
) -> None:
    """Refuse, and audit that, a principal that lacks a permission. Raises NotPermitted.

    For what a request's body may ask for beyond its route; a route's own is `Allow`. A principal
    that loses the permission while the request is under way loses the request, too.
    """
    why: NotPermitted | None = None
    if not may(principal, permission):
        why = NotPermitted(_lacking(principal, permission))
    elif stopped(principal, permission):
        why = TenantSuspended("this tenant is suspended: it may read, and nothing else")
    if why is None:
        if isinstance(held := request.scope.get(HELD), Held):
            held.needs.add(permission)
        return
    async with given.database.tenant(principal.tenant_id) as tx:
        await audit.append(
            tx,
            principal.tenant_id,
            audit.AuditEvent(
                actor=principal.actor,
                action=audit.Action.ACCESS_DENIED,
                outcome=audit.Outcome.DENIED,
                resource_type=permission.partition(":")[0],
                origin=origin(request),
                metadata={
                    "permission": permission.value,
                    "role": principal.role.value,
                    "method": request.method,
                    "route": request.scope["route"].path,
                },
            ),
        )
    raise why


def _lacking(principal: Principal, permission: Permission) -> str:
    if principal.permissions is None:
        return f"the role {principal.role.value} lacks the permission {permission.value}"
    return f"this key lacks the permission {permission.value}"


async def is_operator(request: Request, _: Annotated[object, Security(BEARER)]) -> Operator:
    """Return the operator that calls. Raises NotAuthenticated: a tenant's key is none here."""
    found = request.scope.get(PRINCIPAL)
    if not isinstance(found, Operator):
        raise NotAuthenticated(OPERATORS_ANSWER)
    return found


IsOperator = Annotated[Operator, Depends(is_operator)]


def id_in_path(text: str, unknown: str) -> UUID:
    """Return the id. Raises NotFound with these words: what is no UUID is as unknown as any."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(unknown) from None


def execution_id(
    execution_id: Annotated[
        str,
        Path(
            description="The execution's id.",
            max_length=64,
            examples=["0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"],
        ),
    ],
) -> UUID:
    """Return the id in the path. Raises NotFound."""
    return id_in_path(execution_id, NO_EXECUTION)


NO_EXECUTION = "no such execution"
ExecutionId = Annotated[UUID, Depends(execution_id)]
CanReadAccount = Annotated[Principal, Depends(Allow(Permission.ACCOUNT_READ))]
CanWriteAccount = Annotated[Principal, Depends(Allow(Permission.ACCOUNT_WRITE))]
CanCreate = Annotated[Principal, Depends(Allow(Permission.EXECUTION_CREATE))]
CanRead = Annotated[Principal, Depends(Allow(Permission.EXECUTION_READ))]
CanCancel = Annotated[Principal, Depends(Allow(Permission.EXECUTION_CANCEL))]
CanReadArtifacts = Annotated[Principal, Depends(Allow(Permission.ARTIFACT_READ))]
CanReadPolicies = Annotated[Principal, Depends(Allow(Permission.EGRESS_POLICY_READ))]
CanWritePolicies = Annotated[Principal, Depends(Allow(Permission.EGRESS_POLICY_WRITE))]
CanReadSecrets = Annotated[Principal, Depends(Allow(Permission.SECRET_READ))]
CanWriteSecrets = Annotated[Principal, Depends(Allow(Permission.SECRET_WRITE))]
CanReadKeys = Annotated[Principal, Depends(Allow(Permission.API_KEY_READ))]
CanWriteKeys = Annotated[Principal, Depends(Allow(Permission.API_KEY_WRITE))]
CanReadMembers = Annotated[Principal, Depends(Allow(Permission.MEMBER_READ))]
CanWriteMembers = Annotated[Principal, Depends(Allow(Permission.MEMBER_WRITE))]
CanReadProjects = Annotated[Principal, Depends(Allow(Permission.PROJECT_READ))]
CanWriteProjects = Annotated[Principal, Depends(Allow(Permission.PROJECT_WRITE))]
CanDeleteProjects = Annotated[Principal, Depends(Allow(Permission.PROJECT_DELETE))]
CanReadFiles = Annotated[Principal, Depends(Allow(Permission.FILE_READ))]
CanWriteFiles = Annotated[Principal, Depends(Allow(Permission.FILE_WRITE))]
CanDeleteFiles = Annotated[Principal, Depends(Allow(Permission.FILE_DELETE))]
CanExportAudit = Annotated[Principal, Depends(Allow(Permission.AUDIT_EXPORT))]
CanReadWebhook = Annotated[Principal, Depends(Allow(Permission.AUDIT_WEBHOOK_READ))]
CanWriteWebhook = Annotated[Principal, Depends(Allow(Permission.AUDIT_WEBHOOK_WRITE))]
CanReadAudit = Annotated[Principal, Depends(Allow(Permission.AUDIT_READ))]
CanReadUsage = Annotated[Principal, Depends(Allow(Permission.USAGE_READ))]
