"""Every error as `application/problem+json` (RFC 9457): one shape, no internals."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from runner.api.context import request_id
from runner.api.e2b.paths import path_of
from runner.api.e2b.shape import is_theirs, refusal
from runner.api.edge.sockets import INTERNAL
from runner.api.librechat import paths as librechat
from runner.words import errors
from runner.words.complaints import complaint

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
MAX_SHOWN_ERRORS = 20
MAX_FIELD_NAME = 200

_log = structlog.get_logger("runner.api")


class FieldProblem(BaseModel):
    """The fault of one field of the request; its value is not repeated."""

    field: str = Field(examples=["body.limits.cpu"])
    message: str = Field(examples=["Input should be greater than 0"])


class QuotaProblem(BaseModel):
    """The quota that a request was refused by, and the time at which some of it is free."""

    name: str = Field(examples=["cpu_s_per_day"])
    limit: int = Field(examples=[7200])
    used: float = Field(examples=[7204.2])
    frees_at: datetime | None = Field(
        description="Null if unknown, or if you must free space yourself."
    )


class Problem(BaseModel):
    """An error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:runner:problem:not-found",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no such execution",
                    "instance": "urn:runner:request:0193f2a1c0de4b1fb0d5a9c1e7a0f3d2",
                }
            ]
        }
    )

    type: str = Field(description="The kind of problem; stable, so that programs can compare it.")
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.", ge=400, le=599)
    detail: str = Field(description="What happened, to what, and what to do.")
    instance: str = Field(description="The request's id, as in the `X-Request-ID` header.")
    errors: list[FieldProblem] | None = Field(
        default=None, description="The fields that are wrong, if the request is not valid."
    )
    quota: QuotaProblem | None = Field(
        default=None,
        description="The quota that is used up, if that is why the request was refused.",
    )
    reason: str | None = Field(
        default=None,
        description="Of a sandbox that has ended, or did not do what was asked for now: why, in "
        "one word. Of a file in a sandbox: the kernel's name for its reason.",
        examples=["expired", "ENOSPC"],
    )
    kept_as: UUID | None = Field(
        default=None,
        description="Of a sandbox that was evicted: the snapshot that holds its files.",
    )


TITLES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "URI Too Long",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}
"""RFC 9110's titles, where Python's differ from one version to the next."""

INVALID = "invalid-request"
CLOSE_BY_STATUS = 4000
"""Codes from here on belong to applications (RFC 6455 7.4.2): ours are HTTP's plus this."""
_NO_ROUTE = {
    HTTPStatus.NOT_FOUND: "there is no such path; GET /docs lists all paths",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method; see `Allow`",
}
"""Details for the router's own refusals, which have only a status."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer to a failure: its status, and the fields by which programs tell it apart."""

    status: HTTPStatus
    kind: str | None = None


ANSWERS: Mapping[type[errors.RunnerError], _Answer] = {
    errors.NotReady: _Answer(HTTPStatus.SERVICE_UNAVAILABLE),
    errors.Overloaded: _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded"),
    errors.Unconfirmed: _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "unconfirmed"),
    errors.RightUnconfirmed: _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "unconfirmed"),
    errors.NotFound: _Answer(HTTPStatus.NOT_FOUND),
    errors.NotAuthenticated: _Answer(HTTPStatus.UNAUTHORIZED),
    errors.NotPermitted: _Answer(HTTPStatus.FORBIDDEN),
    errors.TenantSuspended: _Answer(HTTPStatus.FORBIDDEN, "tenant-suspended"),
    errors.Conflict: _Answer(HTTPStatus.CONFLICT),
    errors.Gone: _Answer(HTTPStatus.GONE),
    errors.FileRefused: _Answer(HTTPStatus.CONFLICT, "file-refused"),
    errors.PreconditionFailed: _Answer(HTTPStatus.PRECONDITION_FAILED),
    errors.StorageFull: _Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "storage-full"),
    errors.Invalid: _Answer(HTTPStatus.UNPROCESSABLE_ENTITY, INVALID),
    errors.QuotaExceeded: _Answer(HTTPStatus.TOO_MANY_REQUESTS, "quota-exceeded"),
    errors.TooManyAttempts: _Answer(HTTPStatus.TOO_MANY_REQUESTS),
    errors.PortFault: _Answer(HTTPStatus.BAD_GATEWAY),
    # The host is short of something for now: neither the caller's fault nor a defect of ours.
    errors.LaunchFailed: _Answer(HTTPStatus.SERVICE_UNAVAILABLE),
    errors.SandboxLate: _Answer(HTTPStatus.SERVICE_UNAVAILABLE),
}
"""Answers by the nearest class of a failure. Anything that is not here is our fault."""


FILE_STATUS: Mapping[str, HTTPStatus] = {
    "ENOENT": HTTPStatus.NOT_FOUND,
    "ENAMETOOLONG": HTTPStatus.UNPROCESSABLE_ENTITY,
    "EFBIG": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "ENOSPC": HTTPStatus.INSUFFICIENT_STORAGE,
    "EDQUOT": HTTPStatus.INSUFFICIENT_STORAGE,
}
"""Statuses by the kernel's reason for refusing a file; any other reason is a conflict."""

JSON_TAKEN = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
"""Further statuses of routes that take a JSON body."""


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI descriptions of the problems that a route may answer with."""
    always = (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
    return {
        status.value: {
            "description": TITLES.get(status, status.phrase),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*always, *statuses})
    }


LIVING = responses(
    HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE, HTTPStatus.INSUFFICIENT_STORAGE
)
"""Further statuses of routes that need a living sandbox."""


class Answered(Exception):
    """The refusal of a request has been sent already."""

    def __init__(self, answer: JSONResponse) -> None:
        super().__init__("answered")
        self.answer = answer


def problem(
    request: Request,
    status: HTTPStatus,
    detail: str,
    *,
    kind: str | None = None,
    fields: list[FieldProblem] | None = None,
    quota: QuotaProblem | None = None,
    reason: str | None = None,
    kept_as: UUID | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return a problem as a response; on E2B's routes, in their shape."""
    if is_theirs(request):
        gone = status is HTTPStatus.GONE
        used_up = quota is not None
        return refusal(request, status, detail, no_sandbox=gone, quota=used_up, headers=headers)
    if librechat.is_theirs(path_of(request.scope)):
        return librechat.refusal(status, detail, headers)
    title = TITLES.get(status, status.phrase)
    body = Problem(
        type=f"urn:runner:problem:{kind or title.lower().replace(' ', '-')}",
        title=title,
        status=status.value,
        detail=detail,
        instance=f"urn:runner:request:{request_id(request)}",
        errors=fields,
        quota=quota,
        reason=reason,
        kept_as=kept_as,
    )
    extra = dict(headers or {})
    if status is HTTPStatus.UNAUTHORIZED:
        extra["WWW-Authenticate"] = "Bearer"
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        extra.setdefault("Retry-After", str(RETRY_AFTER_S))
    return JSONResponse(
        body.model_dump(mode="json", exclude_none=True),
        status.value,
        headers=extra,
        media_type=MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Answer every error that a route raises on purpose with a problem."""
    app.add_exception_handler(errors.RunnerError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Answered, _answered)


def of(request: Request, error: errors.RunnerError) -> JSONResponse:
    """Return the problem that answers one of our errors."""
    answer = next((ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS), None)
    if answer is None:
        return unexpected(request, error)
    status, fields, quota, reason = answer.status, None, None, error.reason
    if isinstance(error, errors.Invalid):
        fields = [FieldProblem(field=f"body.{error.field}", message=error.detail)]
    if isinstance(error, errors.QuotaExceeded):
        quota = QuotaProblem(
            name=error.quota, limit=error.limit, used=error.used, frees_at=error.frees_at
        )
        if error.retry_after_s is None:
            # 429 would say that time alone frees some of it (RFC 6585 §4).
            status = HTTPStatus.FORBIDDEN
    if isinstance(error, errors.FileRefused):
        reason = error.errno_name
        status = FILE_STATUS.get(reason, status)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        _log.warning("not_ready", detail=error.detail, request=request_id(request))
    soon = error.retry_after_s
    return problem(
        request,
        status,
        error.detail,
        kind=answer.kind,
        fields=fields,
        quota=quota,
        reason=reason,
        kept_as=error.kept_as if isinstance(error, errors.Gone) else None,
        headers=None if soon is None else {"Retry-After": str(soon)},
    )


def unexpected(request: Request, error: Exception) -> JSONResponse:
    """Log an unexpected failure; return a problem that reveals nothing of it."""
    _log.error("request_failed", request=request_id(request), exc_info=error)
    return problem(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal error; to find it in the API's log, search for this request's id",
    )


def closing(error: errors.RunnerError) -> tuple[int, str]:
    """Return code (4000 and the status) and reason with which a failure closes a WebSocket."""
    answer = next((ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS), None)
    if answer is None:
        _log.error("socket_failed", exc_info=error)
        return INTERNAL, "internal error"
    return CLOSE_BY_STATUS + answer.status, error.detail


async def _ours(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, errors.RunnerError):
        raise error
    return of(request, error)


async def _validation(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [
        FieldProblem(field=_field(item), message=complaint(item))
        for item in error.errors()[:MAX_SHOWN_ERRORS]
    ]
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if any(item["type"] == "json_invalid" for item in error.errors()):
        status = HTTPStatus.BAD_REQUEST
    # With each reason: many clients show the detail alone, and E2B's errors have no list of fields.
    wrong = "; ".join(f"{field.field}: {field.message}" for field in fields)
    return problem(
        request, status, f"the request is not valid: {wrong}", kind=INVALID,
        fields=jsonable_encoder(fields),
    )  # fmt: skip


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    detail = _NO_ROUTE.get(status) if error.detail == status.phrase else None
    return problem(request, status, detail or str(error.detail), headers=error.headers)


async def _answered(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, Answered):
        raise error
    return error.answer


def _field(item: Mapping[str, Any]) -> str:
    if item["type"] == "json_invalid":
        return "body"
    return ".".join(str(part) for part in item["loc"])[:MAX_FIELD_NAME]
