"""Reports: what a supervisor may say. Each is checked field by field against the type it claims.

Any violation raises ProtocolViolation; the sandbox is lost then.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runner.protocol.frames import Data
from runner.words.errors import ProtocolViolation
from runner.words.json import read_json

VERSION = 4
MAX_PATH = 1024
"""Bytes of an artifact's name. PostgreSQL keeps it in an index, whose rows hold 2,704 bytes."""
_DIGITS = 19
_COUNT = Field(ge=0, lt=2**53)


class Report(BaseModel):
    """Something the supervisor says."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    name: ClassVar[str]


class Ready(Report):
    """The supervisor is up and waits for commands."""

    name = "ready"
    version: int


class Alive(Report):
    """The supervisor still waits for commands."""

    name = "alive"


class Loaded(Report):
    """The image's list of modules is imported, but for those named."""

    name = "loaded"
    failed: list[str] = Field(max_length=100)


class Cleaned(Report):
    """Nothing of the last run is left, but for the kinds of things named."""

    name = "cleaned"
    left: list[str] = Field(max_length=100)


class Placed(Report):
    """An input file is in its place."""

    name = "placed"


class NotPlaced(Report):
    """An input file could not be written: the name of an errno."""

    name = "not_placed"
    error: str = Field(pattern=r"^E[A-Z0-9]{1,20}$")


class Started(Report):
    """The program runs."""

    name = "started"


class NotStarted(Report):
    """The program could not be executed: the name of an errno."""

    name = "not_started"
    error: str = Field(pattern=r"^E[A-Z0-9]{1,20}$")


class Counted(Report):
    """How many bytes each output has carried so far, including those dropped."""

    name = "counted"
    stdout: int = _COUNT
    stderr: int = _COUNT


class Ended(Report):
    """The program and everything it started are gone."""

    name = "ended"
    exit_code: int | None = Field(ge=0, le=255)
    signal: int | None = Field(ge=1, le=64)
    stdout: int = _COUNT
    stderr: int = _COUNT
    disk_full: bool


def _bounded(path: str) -> str:
    if len(path.encode(errors="surrogatepass")) > MAX_PATH:
        raise ValueError(f"longer than {MAX_PATH} bytes")
    return path


class Offered(Report):
    """A file follows, in `D` frames of `size` bytes together."""

    name = "artifact"
    path: Annotated[str, Field(min_length=1), AfterValidator(_bounded)]
    size: int = _COUNT


class Collected(Report):
    """Every file was handed back or refused; of the refused, the first fifty are named."""

    name = "collected"
    refused: list[tuple[str, str]] = Field(max_length=50)
    refused_total: int = _COUNT


REPORTS: Mapping[str, TypeAdapter[Any]] = {
    kind.name: TypeAdapter(kind)
    for kind in (
        Ready,
        Alive,
        Loaded,
        Cleaned,
        Placed,
        NotPlaced,
        Started,
        NotStarted,
        Counted,
        Ended,
        Offered,
        Collected,
    )
}

Message: TypeAlias = Report | Data


def parse(payload: bytes) -> Report:
    """Return the report these bytes are, or raise ProtocolViolation."""
    try:
        value = read_json(
            payload.decode("utf-8"),
            parse_constant=_refuse,
            parse_int=_short_int,
            parse_float=_refuse,
        )
    except (ValueError, RecursionError) as error:
        raise ProtocolViolation("the sandbox sent a report that is not JSON of ours") from error
    if not isinstance(value, dict):
        raise ProtocolViolation("the sandbox sent a report that is not an object")
    name = value.pop("say", None)
    adapter = REPORTS.get(name) if isinstance(name, str) else None
    if adapter is None:
        raise ProtocolViolation("the sandbox sent a report of no known kind")
    try:
        # Tuples do not exist in JSON: validate as JSON, strictly.
        report: Report = adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        fields = ", ".join(str(item["loc"]) for item in error.errors()[:3])
        raise ProtocolViolation(
            f"the sandbox sent a {name} report with wrong fields: {fields}"
        ) from None
    return report


def _short_int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError("an integer of more than 64 bits")
    return int(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} has no place in a report")
