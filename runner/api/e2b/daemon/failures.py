"""Our failures in E2B's words: a code of Connect, or an HTTP status for `/files`."""

from collections.abc import Mapping
from http import HTTPStatus

from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.sandboxes.watchers import TooManyWatchers
from runner.words import errors

_CODES: Mapping[type[errors.RunnerError], Code] = {
    errors.NotReady: Code.UNAVAILABLE,
    errors.NotFound: Code.NOT_FOUND,
    errors.NotAuthenticated: Code.UNAUTHENTICATED,
    errors.NotPermitted: Code.PERMISSION_DENIED,
    # The sandbox does not run, or does so no longer. Their clients then ask for its health.
    errors.Conflict: Code.UNAVAILABLE,
    errors.Gone: Code.UNAVAILABLE,
    TooManyWatchers: Code.RESOURCE_EXHAUSTED,
    errors.Invalid: Code.INVALID_ARGUMENT,
    errors.QuotaExceeded: Code.RESOURCE_EXHAUSTED,
    errors.TooManyAttempts: Code.RESOURCE_EXHAUSTED,
    errors.StorageFull: Code.RESOURCE_EXHAUSTED,
    # The sandbox is lost with whatever ran in it: to its client, that is the same as its end.
    errors.SandboxFault: Code.UNAVAILABLE,
}
"""By the nearest class of a failure. Anything that is not here is our fault."""

_KERNELS: Mapping[str, Code] = {
    "ENOENT": Code.NOT_FOUND,
    "ESRCH": Code.NOT_FOUND,
    "EEXIST": Code.ALREADY_EXISTS,
    "EACCES": Code.PERMISSION_DENIED,
    "EPERM": Code.PERMISSION_DENIED,
    "EROFS": Code.PERMISSION_DENIED,
    "ENOTDIR": Code.INVALID_ARGUMENT,
    "EISDIR": Code.INVALID_ARGUMENT,
    "EINVAL": Code.INVALID_ARGUMENT,
    "ENAMETOOLONG": Code.INVALID_ARGUMENT,
    "ENOEXEC": Code.INVALID_ARGUMENT,
    "E2BIG": Code.INVALID_ARGUMENT,
    "EAGAIN": Code.RESOURCE_EXHAUSTED,
    "ENOMEM": Code.RESOURCE_EXHAUSTED,
    "ENOSPC": Code.RESOURCE_EXHAUSTED,
    "EDQUOT": Code.RESOURCE_EXHAUSTED,
    "EMFILE": Code.RESOURCE_EXHAUSTED,
}
"""By the name of the reason of a sandbox's kernel; any other is a failed precondition."""

_STATUSES: Mapping[str, HTTPStatus] = {
    "ENOSPC": HTTPStatus.INSUFFICIENT_STORAGE,
    "EDQUOT": HTTPStatus.INSUFFICIENT_STORAGE,
    "EFBIG": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}
_OF_CODES: Mapping[Code, HTTPStatus] = {
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
}


def told(error: errors.RunnerError) -> ConnectError | None:
    """Return what a client is told of a failure; None if it is our fault, and must be hidden."""
    if isinstance(error, errors.FileRefused):
        return ConnectError(_KERNELS.get(error.errno_name, Code.FAILED_PRECONDITION), error.detail)
    for kind in type(error).__mro__:
        if kind in _CODES:
            return ConnectError(_CODES[kind], error.detail)
    return None


def file_status(error: errors.FileRefused) -> HTTPStatus:
    """Return the status with which `/files` answers what a sandbox's kernel has refused."""
    by_reason = _STATUSES.get(error.errno_name)
    code = _KERNELS.get(error.errno_name, Code.FAILED_PRECONDITION)
    return by_reason or _OF_CODES.get(code, HTTPStatus.CONFLICT)
