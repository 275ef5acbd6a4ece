"""Dependencies of routes: the parts of the process, and the caller if it has the permission."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry

from runner.api import context
from runner.api.callers import Cookies
from runner.api.edge.ratelimit import RateLimiter
from runner.api.edge.routing import TEMPLATE
from runner.api.middleware import PRINCIPAL
from runner.api.turns import Turns
from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.auth.identity import ANSWER, OPERATORS_ANSWER
from runner.auth.login import Logins
from runner.auth.oidc import Issuer
from runner.auth.operating import OperatorRights
from runner.auth.permissions import Permission, may, stopped
from runner.auth.rights import HELD, Held, Rights
from runner.auth.sandbox_tokens import SandboxTokens
from runner.auth.sign_in import SignIns
from runner.base.settings import Settings
from runner.base.signing import TrustedKeys
from runner.base.tracing import SpanTracer
from runner.egress.policy import Policy
from runner.executions.read import NO_EXECUTION
from runner.executions.submit import Submitting
from runner.queue.changes import Changes
from runner.queue.doorbell import Doorbell
from runner.sandboxes.addresses import FileAddresses
from runner.sandboxes.copies import Copies
from runner.sandboxes.living import LivingSandboxes
from runner.sandboxes.place import NO_SANDBOX
from runner.sandboxes.ports import NOT_OPEN, PortGates, SandboxPorts
from runner.sandboxes.use import Using
from runner.sandboxes.watchers import Watchers
from runner.secrets.vault import Vault
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.templates.builds import Templates
from runner.words.errors import NotAuthenticated, NotFound, NotPermitted, TenantSuspended
from runner.words.principal import Operator, Principal
from runner.words.resources import Limits

MAX_NUMBER = 2**32 - 1
MAX_PORT = 65535
NO_PROCESS = "no such process"
NO_CONTEXT = "no such context"


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The parts that an API process works with. Whoever composes the process opens and closes them.

    Without `operators`, the process has no operator's routes and no login that may delete tenants.
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
    sandboxes: LivingSandboxes
    using: Using
    addresses: FileAddresses
    ports: SandboxPorts
    gates: PortGates
    copies: Copies
    templates: Templates
    verifying: Turns
    logins: Logins
    rights: Rights
    cookies: Cookies
    tokens: SandboxTokens
    watchers: Watchers
    tracer: SpanTracer
    registry: CollectorRegistry
    """What the process counts; the application adds its own."""
    issuer: Issuer | None = None
    sign_ins: SignIns | None = None
    operators: Database | None = None
    operator_rights: OperatorRights | None = None


# This only describes it in OpenAPI; the middleware reads the header.
BEARER = HTTPBearer(
    auto_error=False,
    description="An API key (`rk_…`), an operator's key (`ro_…`), or a token of the identity "
    "provider.",
)


# FastAPI has a thread run each dependency that is not asynchronous, which costs a request more than
# most of them do.
async def parts(request: Request) -> Dependencies:
    """Return the parts of this process."""
    found: Dependencies = request.app.state.parts
    return found


Parts = Annotated[Dependencies, Depends(parts)]


@dataclass(frozen=True, slots=True)
class Allow:
    """A route's permission: a caller without it is refused, and the refusal is audited.

    Equal permissions are equal values, so FastAPI checks each only once for a request.
    """

    permission: Permission

    async def __call__(
        self, request: Request, given: Parts, _: Annotated[object, Security(BEARER)]
    ) -> Caller:
        """Return the caller. Raises NotAuthenticated or NotPermitted."""
        held = request.scope.get(HELD)
        if not isinstance(held, Held):
            raise NotAuthenticated(ANSWER)
        # Check the rights as they are now: reading the body, for example, may have taken long.
        caller = context.caller(request, held.principal)
        await require(request, given, caller, self.permission)
        return caller


async def require(
    request: Request, given: Dependencies, caller: Caller, permission: Permission
) -> None:
    """Refuse a principal that lacks a permission, and audit that. Raises NotPermitted.

    Use it for what a body may ask for beyond its route; `Allow` is for the route itself. If the
    principal loses the permission while the request is running, the request ends, too.
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
        "route": request.scope[TEMPLATE],
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
    """Return the calling operator. Raises NotAuthenticated, also for a tenant's key."""
    found = request.scope.get(PRINCIPAL)
    if not isinstance(found, Operator):
        raise NotAuthenticated(OPERATORS_ANSWER)
    return found


def operators_database(given: Dependencies) -> Database:
    """Return the operator's login of the database. Raises NotFound if this process has none."""
    if given.operators is None:
        raise NotFound("this process has no operator's routes")
    return given.operators


IsOperator = Annotated[Operator, Depends(is_operator)]


def number_in_path(
    name: str, description: str, unknown: str, *, most: int = MAX_NUMBER
) -> Callable[[str], Awaitable[int]]:
    """Return a dependency that reads a number. It raises NotFound with the text `unknown`."""
    path = Path(alias=name, description=description, max_length=10, examples=["3"])

    async def read(text: Annotated[str, path]) -> int:
        if not (text.isascii() and text.isdecimal() and 0 < int(text) <= most):
            raise NotFound(unknown)
        return int(text)

    return read


def id_in_path(name: str, description: str, unknown: str) -> Callable[[str], Awaitable[UUID]]:
    """Return a dependency that reads an id.

    It raises NotFound with the text `unknown`, also for what is not a UUID.
    """
    path = Path(
        alias=name,
        description=description,
        max_length=64,
        examples=["0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"],
    )

    async def read(text: Annotated[str, path]) -> UUID:
        try:
            return UUID(text)
        except ValueError:
            raise NotFound(unknown) from None

    return read


ExecutionId = Annotated[
    UUID, Depends(id_in_path("execution_id", "The execution's id.", NO_EXECUTION))
]
CanRead = Annotated[Caller, Depends(Allow(Permission.EXECUTION_READ))]
SandboxId = Annotated[UUID, Depends(id_in_path("sandbox_id", "The sandbox's id.", NO_SANDBOX))]
ProcessNumber = Annotated[
    int, Depends(number_in_path("process", "The process's number.", NO_PROCESS))
]
PortNumber = Annotated[
    int, Depends(number_in_path("port", "The port's number.", NOT_OPEN, most=MAX_PORT))
]
ContextNumber = Annotated[
    int, Depends(number_in_path("context", "The context's number.", NO_CONTEXT))
]
CanReadSandboxes = Annotated[Caller, Depends(Allow(Permission.SANDBOX_READ))]
# Files in a sandbox may hold a secret's value, unmasked. So reading them requires the same
# permission as running something in it.
CanUseSandboxes = Annotated[Caller, Depends(Allow(Permission.SANDBOX_USE))]
