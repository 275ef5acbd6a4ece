"""What routes are given: the parts of the process, and the caller with its permission."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer

from runner.api.callers import Cookies
from runner.api.context import origin
from runner.api.edge.ratelimit import RateLimiter
from runner.api.middleware import PRINCIPAL
from runner.api.turns import Turns
from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.auth.identity import ANSWER, OPERATORS_ANSWER
from runner.auth.login import Logins
from runner.auth.oidc import Issuer
from runner.auth.permissions import Permission, may, stopped
from runner.auth.rights import HELD, Held, Rights
from runner.base.settings import Settings
from runner.base.signing import TrustedKeys
from runner.egress.policy import Policy
from runner.executions.read import NO_EXECUTION
from runner.executions.submit import Submitting
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
    submitting: Submitting
    verifying: Turns
    logins: Logins
    rights: Rights
    cookies: Cookies
    issuer: Issuer | None = None
    operators: Database | None = None


# Only described to OpenAPI here; the middleware reads the header.
BEARER = HTTPBearer(
    auto_error=False,
    description="An API key (`rk_…`), an operator's key (`ro_…`), or a token of the identity "
    "provider.",
)


def parts(request: Request) -> Dependencies:
    """Return the parts of this process."""
    found: Dependencies = request.app.state.parts
    return found


Parts = Annotated[Dependencies, Depends(parts)]


@dataclass(frozen=True, slots=True)
class Allow:
    """A route's permission: who lacks it is refused, and the refusal is audited.

    A value, so that FastAPI asks once for a request whose dependencies need the same.
    """

    permission: Permission

    async def __call__(
        self, request: Request, given: Parts, _: Annotated[object, Security(BEARER)]
    ) -> Caller:
        """Return the caller. Raises NotAuthenticated or NotPermitted."""
        held = request.scope.get(HELD)
        if not isinstance(held, Held):
            raise NotAuthenticated(ANSWER)
        # As it stands now: what came before may have taken long, as a body that trickles in.
        caller = Caller(held.principal, origin(request))
        await require(request, given, caller, self.permission)
        return caller


async def require(
    request: Request, given: Dependencies, caller: Caller, permission: Permission
) -> None:
    """Refuse, and audit that, a principal that lacks a permission. Raises NotPermitted.

    For what a request's body may ask for beyond its route; a route's own is `Allow`. A principal
    that loses the permission while the request is under way loses the request, too.
    """
    principal = caller.principal
    why: NotPermitted | None = None
    if not may(principal, permission):
        why = NotPermitted(_lacking(principal, permission))
    elif stopped(principal, permission):
        why = TenantSuspended(
            "this tenant is suspended: it can read, but not run or change anything"
        )
    if why is None:
        if isinstance(held := request.scope.get(HELD), Held):
            held.needs.add(permission)
        return
    facts = {
        "permission": permission.value,
        "role": principal.role.value,
        "method": request.method,
        "route": request.scope["route"].path,
    }
    kind = permission.partition(":")[0]
    async with given.database.tenant(caller.tenant_id) as tx:
        caller.record(tx, Action.ACCESS_DENIED, kind, metadata=facts, outcome=Outcome.DENIED)
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


def id_in_path(name: str, description: str, unknown: str) -> Callable[[str], UUID]:
    """Return the dependency that reads an id.

    It raises NotFound with the words of `unknown`: what is no UUID is as unknown as any.
    """
    path = Path(
        alias=name,
        description=description,
        max_length=64,
        examples=["0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"],
    )

    def read(text: Annotated[str, path]) -> UUID:
        try:
            return UUID(text)
        except ValueError:
            raise NotFound(unknown) from None

    return read


ExecutionId = Annotated[
    UUID, Depends(id_in_path("execution_id", "The execution's id.", NO_EXECUTION))
]
CanRead = Annotated[Caller, Depends(Allow(Permission.EXECUTION_READ))]
