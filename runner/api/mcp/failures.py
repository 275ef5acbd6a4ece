"""Messages to a model when a tool fails: what happened, and what to do next."""

from collections.abc import Mapping
from types import MappingProxyType

import structlog
from fastapi import Request
from pydantic import ValidationError

from runner.api.context import request_id
from runner.api.mcp.results import ToolResult
from runner.api.problems import ANSWERS, MAX_FIELD_NAME, MAX_SHOWN_ERRORS
from runner.words import errors
from runner.words.complaints import complaint

NEXT: Mapping[type[errors.RunnerError], str] = MappingProxyType(
    {
        errors.Gone: "Make another one with create_sandbox.",
        errors.SandboxEnded: "Make another one with create_sandbox.",
        errors.FileRefused: "list_files shows what is there.",
        errors.NotReady: "Try again in a moment.",
        errors.LaunchFailed: "Try again in a moment.",
        errors.SandboxLate: "Try again in a moment.",
    }
)
"""Advice, by the nearest class of a failure; most details give it themselves."""

_log = structlog.get_logger("runner.api")


def failed(*lines: str) -> ToolResult:
    """Return the result of a tool that failed."""
    return ToolResult((" ".join(lines),), failed=True)


def of(request: Request, error: errors.RunnerError) -> ToolResult:
    """Return what a model is told about one of our errors; nothing of those that are our fault."""
    kinds = type(error).__mro__
    if not any(kind in ANSWERS for kind in kinds):
        return unexpected(request, error)
    detail = error.detail
    if isinstance(error, errors.Invalid):
        detail = f"{error.field}: {detail}"
    if isinstance(error, errors.NotReady):
        _log.warning("not_ready", detail=error.detail, request=request_id(request))
    following = next((NEXT[kind] for kind in kinds if kind in NEXT), None)
    if error.retry_after_s is not None:
        following = f"Try again in {error.retry_after_s} s."
    return failed(f"{detail}.", *([following] if following else []))


def wrong_arguments(error: ValidationError) -> ToolResult:
    """Return what is wrong with a call's arguments; their values are not repeated."""
    problems = "; ".join(
        f"{'.'.join(map(str, each['loc']))[:MAX_FIELD_NAME] or 'arguments'}: {complaint(each)}"
        for each in error.errors(include_url=False, include_input=False)[:MAX_SHOWN_ERRORS]
    )
    return failed(f"The arguments are not valid: {problems}.", "Nothing was done.")


def unexpected(request: Request, error: Exception) -> ToolResult:
    """Log an unexpected failure; reveal nothing of it."""
    id_ = request_id(request)
    _log.error("tool_failed", request=id_, exc_info=error)
    return failed(f"Internal error. The operator finds it in the API's log as request {id_}.")
