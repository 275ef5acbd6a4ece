"""Our failures, drawn once. What the *program* does wrong is an outcome, never one of these.

    RunnerError
    ├── NotReady            a part we need does not answer; the same call may succeed later
    │   ├── StoreUnavailable
    │   │   ├── Unconfirmed
    │   │   └── RightUnconfirmed
    │   ├── QueueUnavailable
    │   ├── DockerUnavailable
    │   ├── KeyUnavailable
    │   ├── IssuerUnavailable
    │   └── Overloaded
    ├── Refused             the caller asked for what it may not have
    │   ├── NotFound
    │   ├── NotAuthenticated
    │   │   └── RightEnded
    │   ├── NotPermitted
    │   │   └── TenantSuspended
    │   ├── Conflict
    │   ├── PreconditionFailed
    │   ├── StorageFull
    │   ├── Invalid
    │   ├── QuotaExceeded
    │   └── TooManyAttempts
    ├── SandboxFault        the sandbox, not the program, went wrong
    │   ├── ImageMissing
    │   │   └── ImageIncompatible
    │   ├── IsolationMissing
    │   ├── LaunchFailed
    │   └── ProtocolViolation
    ├── LeaseLost           another attempt owns the execution; this one's result is refused
    └── SetupError          this host or configuration cannot run the product; says what to do
        └── SecretsUnreadable

Each carries `detail`: what happened, to what, and what to do, free of secrets and tenant data.
What a program may act on is in fields: which limit, how much of it is used, when to try again.
"""

from datetime import datetime


class RunnerError(Exception):
    """Base of every failure of ours."""

    retry_after_s: int | None = None
    """After which the same may succeed, where that is known."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotReady(RunnerError):
    """A part we depend on does not answer. Safe to try again."""


class StoreUnavailable(NotReady):
    """PostgreSQL or the object store does not answer."""


class Unconfirmed(StoreUnavailable):
    """PostgreSQL went away before it confirmed a change, which may be stored or not."""


class RightUnconfirmed(StoreUnavailable):
    """PostgreSQL did not say for too long whether the right of a request under way still stands."""


class QueueUnavailable(NotReady):
    """Redis does not answer."""


class DockerUnavailable(NotReady):
    """The Docker daemon does not answer in time."""


class KeyUnavailable(NotReady):
    """The key that secrets are under is not there, or is another one."""


class IssuerUnavailable(NotReady):
    """The identity provider does not give its keys."""


class Overloaded(NotReady):
    """More waits already than the deployment takes. It may be less after `retry_after_s`."""

    retry_after_s: int

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Refused(RunnerError):
    """The caller asked for something it may not have."""


class NotFound(Refused):
    """No such thing for this caller: unknown and another tenant's look the same."""


class NotAuthenticated(Refused):
    """No valid credential. Unknown, wrong, expired and revoked look the same."""


class RightEnded(NotAuthenticated):
    """The key, session or token that a request came with ended while it was under way."""


class NotPermitted(Refused):
    """The caller's role or key lacks the permission."""


class TenantSuspended(NotPermitted):
    """The caller's tenant may only read, until the operator ends its suspension."""


class Conflict(Refused):
    """The request contradicts what is stored, such as a reused idempotency key."""


class PreconditionFailed(Refused):
    """What is stored is not what the request's conditions name: somebody changed it."""


class StorageFull(Refused):
    """What was to be stored is beyond a limit of the tenant's storage, which it names."""

    def __init__(self, limit: str, allowed: int, *, used: int, asked: int) -> None:
        super().__init__(
            f"{limit} is {allowed}: {used} are used, this takes {asked} more; "
            "delete files, or ask the operator for more"
        )
        self.limit = limit
        self.allowed = allowed
        self.used = used
        self.asked = asked


class Invalid(Refused):
    """A value is outside what the tenant or this deployment allows. `field` names it."""

    def __init__(self, detail: str, field: str) -> None:
        super().__init__(detail)
        self.field = field


class TooManyAttempts(Refused):
    """Too many logins failed. The same may succeed after `retry_after_s` seconds."""

    retry_after_s: int

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class QuotaExceeded(Refused):
    """The tenant uses as much as it may. `retry_after_s` is None where time alone frees nothing."""

    def __init__(
        self,
        detail: str,
        *,
        quota: str,
        limit: int,
        used: float,
        frees_at: datetime | None,
        retry_after_s: int | None,
    ) -> None:
        super().__init__(detail)
        self.quota = quota
        self.limit = limit
        self.used = used
        self.frees_at = frees_at
        self.retry_after_s = retry_after_s


class SandboxFault(RunnerError):
    """The sandbox could not do its part; the program is not to blame."""


class ImageMissing(SandboxFault):
    """The image is not on this host. Building it is the way out; a retry is not."""


class ImageIncompatible(ImageMissing):
    """The image's supervisor and this worker share no generation of their protocol."""


class IsolationMissing(SandboxFault):
    """Docker lacks the runtime of the isolation asked for. Nothing less is started instead."""


class LaunchFailed(SandboxFault):
    """The container did not start, or its supervisor did not report in time."""


class ProtocolViolation(SandboxFault):
    """The supervisor's side of the socket said something it must not. The sandbox is lost."""


class LeaseLost(RunnerError):
    """This attempt no longer owns its execution."""


class SetupError(RunnerError):
    """This host or configuration cannot run the product."""


class SecretsUnreadable(SetupError):
    """The operator's file of tenants' secrets cannot be used."""
