"""Logs: structured, one event a line, without secrets, and of a bounded length."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import structlog

from runner.words.trace import TracePlace

SECRET_KEYS = frozenset(
    {
        "api_key",
        "authorization",
        "code",
        "cookie",
        "env",
        "key",
        "password",
        "secret",
        "stdin",
        "token",
    }
)
REDACTED = "[redacted]"
LIBRARIES = ("alembic", "docker", "mcp", "psycopg", "rq", "uvicorn")


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of fields that hold secrets or a tenant's program, at any depth."""
    return {name: _redacted(name, value) for name, value in event.items()}


def _redacted(name: str, value: Any) -> Any:
    if name.lower() in SECRET_KEYS:
        return REDACTED
    if isinstance(value, Mapping):
        return {str(inner): _redacted(str(inner), each) for inner, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", each) for each in value]
    return value


MAX_NAME = 64
MAX_TEXT = 2048
MAX_TRACEBACK = 16 * 1024
MAX_ITEMS = 64
MAX_BITS = 64
MAX_DEPTH = 4
TRACEBACK = "exception"


def bound(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Shorten the values of a line: some of them come from strangers, sandboxes and libraries.

    Runs last, so that it sees every field and every traceback, a library's as well.
    """
    return {
        str(name)[:MAX_NAME]: _cut(value, MAX_TRACEBACK if name == TRACEBACK else MAX_TEXT)
        for name, value in islice(event.items(), MAX_ITEMS)
    }


def _cut(value: Any, most: int, depth: int = 0) -> Any:
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if value.bit_length() <= MAX_BITS else f"{value.bit_length()} bits"
        case Mapping() | list() | tuple() | set() | frozenset() if depth == MAX_DEPTH:
            return "…"
        case Mapping():
            items = islice(value.items(), MAX_ITEMS)
            return {str(name)[:MAX_NAME]: _cut(each, most // 2, depth + 1) for name, each in items}
        case list() | tuple() | set() | frozenset():
            return [_cut(each, most // 2, depth + 1) for each in islice(value, MAX_ITEMS)]
        case bytes() | bytearray():
            value = bytes(value[:most])
    return _shortened(value if isinstance(value, str) else repr(value), most)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    # The end of a traceback says what went wrong, and the beginning where.
    return f"{text[: most // 2]}… {len(text) - most} characters …{text[-(most // 2) :]}"


def traced(place: TracePlace | None) -> AbstractContextManager[None]:
    """Add the id of a trace, if there is one, to what is logged inside the context."""
    if place is None:
        return nullcontext()
    return structlog.contextvars.bound_contextvars(trace_id=place.trace_id)


def configure(level: str, *, json: bool) -> None:
    """Send our own events and the libraries' to stderr: JSON lines, or text for a terminal."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        # By now a traceback is text, without local variables, which may hold secrets.
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                bound,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in LIBRARIES:
        # Routine messages of libraries are noise beside our own events.
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            # This comes first, so that a line that nobody sees takes no more time.
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
