"""Every error as `application/problem+json` (RFC 9457): one shape, no internals."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from runner.api.context import request_id
from runner.words import errors

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
MAX_SHOWN_ERRORS = 20
MAX_FIELD_NAME = 200

_log = structlog.get_logger("runner.api")


class FieldProblem(BaseModel):
    """What is wrong with one field of the request; its value is not repeated."""

    field: str = Field(examples=["body.limits.cpu"])
    message: str = Field(examples=["Input should be greater than 0"])


class QuotaProblem(BaseModel):
    """Which quota a request was refused by, and when some of it is free."""

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


TITLES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "URI Too Long",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}
"""RFC 9110's words where Python's differ from one version to the next."""

INVALID = "invalid-request"
_NO_ROUTE = {
    HTTPStatus.NOT_FOUND: "there is no such path; GET /docs lists all paths",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method; see `Allow`",
}
"""What the router's own refusals, which say no more than their status, mean to a client."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """How a failure is told: its status, and what a program may want to tell apart of it."""

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
    errors.PreconditionFailed: _Answer(HTTPStatus.PRECONDITION_FAILED),
    errors.StorageFull: _Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "storage-full"),
    errors.Invalid: _Answer(HTTPStatus.UNPROCESSABLE_ENTITY, INVALID),
    errors.QuotaExceeded: _Answer(HTTPStatus.TOO_MANY_REQUESTS, "quota-exceeded"),
    errors.TooManyAttempts: _Answer(HTTPStatus.TOO_MANY_REQUESTS),
}
"""By the nearest of a failure's classes. What is not here is our fault."""


JSON_TAKEN = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
"""What a route that takes a JSON body may answer, too."""


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of problems that a route may answer with."""
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


def problem(
    request: Request,
    status: HTTPStatus,
    detail: str,
    *,
    kind: str | None = None,
    fields: list[FieldProblem] | None = None,
    quota: QuotaProblem | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return a problem as a response."""
    title = TITLES.get(status, status.phrase)
    body = Problem(
        type=f"urn:runner:problem:{kind or title.lower().replace(' ', '-')}",
        title=title,
        status=status.value,
        detail=detail,
        instance=f"urn:runner:request:{request_id(request)}",
        errors=fields,
        quota=quota,
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
    """Make every error that a route raises on purpose a problem."""
    app.add_exception_handler(errors.RunnerError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


def of(request: Request, error: errors.RunnerError) -> JSONResponse:
    """Return the problem that one of our failures is to a client."""
    answer = next((ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS), None)
    if answer is None:
        return unexpected(request, error)
    status, fields, quota = answer.status, None, None
    if isinstance(error, errors.Invalid):
        fields = [FieldProblem(field=f"body.{error.field}", message=error.detail)]
    if isinstance(error, errors.QuotaExceeded):
        quota = QuotaProblem(
            name=error.quota, limit=error.limit, used=error.used, frees_at=error.frees_at
        )
        if error.retry_after_s is None:
            # 429 would say that time alone frees some of it (RFC 6585 §4).
            status = HTTPStatus.FORBIDDEN
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
        headers=None if soon is None else {"Retry-After": str(soon)},
    )


def unexpected(request: Request, error: Exception) -> JSONResponse:
    """Log what nobody foresaw; return a problem that tells nothing of it."""
    _log.error("request_failed", request=request_id(request), exc_info=error)
    return problem(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal error; to find it in the API's log, search for this request's id",
    )


async def _ours(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, errors.RunnerError):
        raise error
    return of(request, error)


async def _validation(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [
        FieldProblem(field=_field(item), message=item["msg"])
        for item in error.errors()[:MAX_SHOWN_ERRORS]
    ]
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if any(item["type"] == "json_invalid" for item in error.errors()):
        status = HTTPStatus.BAD_REQUEST
    names = ", ".join(field.field for field in fields)
    return problem(
        request, status, f"the request is not valid: {names}", kind=INVALID,
        fields=jsonable_encoder(fields),
    )  # fmt: skip


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    detail = _NO_ROUTE.get(status) if error.detail == status.phrase else None
    return problem(request, status, detail or str(error.detail), headers=error.headers)


def _field(item: Mapping[str, Any]) -> str:
    if item["type"] == "json_invalid":
        return "body"
    return ".".join(str(part) for part in item["loc"])[:MAX_FIELD_NAME]
