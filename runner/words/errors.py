"""Every error that this package raises, as one tree. A failure of the *program* is a result.

    RunnerError
    ├── NotReady            a part we need does not answer; the same call may succeed later
    │   ├── StoreUnavailable
    │   │   ├── ObjectMissing
    │   │   ├── Unconfirmed
    │   │   └── RightUnconfirmed
    │   ├── QueueUnavailable
    │   ├── DockerUnavailable
    │   ├── KeyUnavailable
    │   ├── IssuerUnavailable
    │   ├── NodeAway
    │   ├── NodeStarved
    │   ├── SandboxNotStarted
    │   └── Overloaded
    ├── Refused             the caller asked for something it may not have
    │   ├── NotFound
    │   ├── NotAuthenticated
    │   │   └── RightEnded
    │   ├── NotPermitted
    │   │   └── TenantSuspended
    │   ├── Conflict
    │   │   ├── SandboxEnded
    │   │   └── StartupFailed
    │   ├── FileRefused
    │   ├── Gone
    │   ├── PreconditionFailed
    │   ├── StorageFull
    │   ├── Invalid
    │   ├── QuotaExceeded
    │   ├── TooManyAttempts
    │   └── GuestRefused    in a living sandbox, by its kernel
    ├── SandboxFault        the sandbox, not the program, went wrong
    │   ├── ImageMissing
    │   │   ├── ImageIncompatible
    │   │   └── TemplateMissing
    │   ├── IsolationMissing
    │   ├── LaunchFailed
    │   └── ProtocolViolation
    │       └── SandboxLate
    ├── PortFault           a server inside a sandbox does not answer, or not in HTTP
    ├── LeaseLost           another attempt owns the execution; the result of this one is refused
    └── SetupError          this host or configuration cannot run the product; says what to do
        └── SecretsUnreadable

Each has a `detail`: what happened, to what, and what to do, free of secrets and tenant data. What a
program needs to react to it has fields of its own: which limit, how much is used, when to retry.
"""

import errno
import os
from datetime import datetime
from uuid import UUID


class RunnerError(Exception):
    """Base of all these errors."""

    retry_after_s: int | None = None
    """Seconds after which the same call may succeed, if that is known."""
    reason: str | None = None
    """Why, in one word for programs, where the class has one."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotReady(RunnerError):
    """A part we depend on does not answer. Safe to try again."""


class StoreUnavailable(NotReady):
    """PostgreSQL or the object store does not answer."""


class ObjectMissing(StoreUnavailable):
    """The object store has no such object."""


class Unconfirmed(StoreUnavailable):
    """PostgreSQL went away before it confirmed a change: it may be stored or not."""


class RightUnconfirmed(StoreUnavailable):
    """PostgreSQL has not confirmed for too long that the right of a running request still holds."""


class QueueUnavailable(NotReady):
    """Redis does not answer."""


class DockerUnavailable(NotReady):
    """The Docker daemon does not answer in time."""


class KeyUnavailable(NotReady):
    """The key that encrypts the secrets is missing, or is a different one."""


class IssuerUnavailable(NotReady):
    """The identity provider does not return its keys."""


class NodeAway(NotReady):
    """The node on which a sandbox lives does not answer, or is not ready for requests yet."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.retry_after_s = 1


class NodeStarved(NotReady):
    """The node's host lacks memory, threads, descriptors or space for now."""

    reason = "node_starved"


class SandboxNotStarted(NotReady):
    """A sandbox that was ordered did not start. The order may be made again."""

    reason = "start_failed"


class Overloaded(NotReady):
    """Too much waits in the deployment already. Try again after `retry_after_s` seconds."""

    retry_after_s: int

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Refused(RunnerError):
    """The caller asked for something it may not have."""


class NotFound(Refused):
    """This caller has no such thing. What is unknown and what is another tenant's look the same."""


class NotAuthenticated(Refused):
    """No valid credential. Unknown, wrong, expired and revoked look the same."""


class RightEnded(NotAuthenticated):
    """The key, session or token of a request ended while the request was running."""


class NotPermitted(Refused):
    """The caller's role or key lacks the permission."""


class TenantSuspended(NotPermitted):
    """The caller's tenant may only read, until the operator ends its suspension."""


class Conflict(Refused):
    """The request contradicts what is stored, such as a reused idempotency key."""


class SandboxEnded(Conflict):
    """The sandbox has ended."""


class StartupFailed(Conflict):
    """A template's start command has failed in a sandbox, or was not ready in time."""

    reason = "start_failed"


class FileRefused(Refused):
    """A sandbox's kernel refused an operation on a path in it; `errno_name` says why."""

    def __init__(self, errno_name: str, path: str) -> None:
        super().__init__(f"{path}: {_why(errno_name)}")
        self.errno_name = errno_name
        self.path = path


class Gone(Refused):
    """It existed and has ended. `reason` is the machine-readable word for why.

    `kept_as` is the snapshot that holds its files, if they were kept at its end.
    """

    reason: str

    def __init__(self, detail: str, reason: str, kept_as: UUID | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.kept_as = kept_as


class PreconditionFailed(Refused):
    """The stored object does not meet the request's conditions: somebody changed it."""


class StorageFull(Refused):
    """Storing this would exceed a limit of the tenant's storage; `limit` names it."""

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
    """Too many attempts in a time. The same may succeed after `retry_after_s` seconds."""

    retry_after_s: int

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class QuotaExceeded(Refused):
    """The tenant has used up a quota. `retry_after_s` is None if waiting alone does not help."""

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

    @property
    def facts(self) -> dict[str, object]:
        """The details that the audit log keeps of it."""
        return {"quota": self.quota, "limit": self.limit, "used": self.used}


class GuestRefused(Refused):
    """A living sandbox cannot do what was asked; `errno` says why."""

    def __init__(self, errno: str, what: str) -> None:
        """Take the reason, such as `ENOENT`, and its subject: a path, a port, a process."""
        super().__init__(f"{what}: {errno}")
        self.errno = errno
        self.what = what


class SandboxFault(RunnerError):
    """The sandbox could not do its part; the program is not to blame."""


class ImageMissing(SandboxFault):
    """The image is not on this host. Build it; a retry does not help."""


class ImageIncompatible(ImageMissing):
    """The image's supervisor and this worker have no protocol generation in common."""


class TemplateMissing(ImageMissing):
    """The tenant's template was deleted or never built, or what is stored of it is damaged."""


class IsolationMissing(SandboxFault):
    """Docker lacks the runtime of the isolation asked for. Nothing less is started instead."""


class LaunchFailed(SandboxFault):
    """The container did not start, or its supervisor did not report in time."""

    reason = "start_failed"


class ProtocolViolation(SandboxFault):
    """The supervisor sent something that the protocol does not permit. The sandbox is lost."""


class SandboxLate(ProtocolViolation):
    """The supervisor did not do something in time, as on a host that is short of processors."""

    reason = "late"


class PortFault(RunnerError):
    """A server at a port inside a sandbox does not answer, or not as HTTP wants it."""


class LeaseLost(RunnerError):
    """This attempt no longer owns its execution."""


class SetupError(RunnerError):
    """This host or configuration cannot run the product."""


class SecretsUnreadable(SetupError):
    """The operator's file of tenants' secrets cannot be used."""


def _why(errno_name: str) -> str:
    """Return the errno's name, followed by the kernel's text for it."""
    number: int | None = getattr(errno, errno_name, None)
    return errno_name if number is None else f"{os.strerror(number)} ({errno_name})"
