"""Examples of each event of a living sandbox's supervisor, and every way to spoil it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from runner.protocol.events import Alive, SupervisorEvent
from runner.protocol.living_events import (
    LIVING_EVENTS,
    Archived,
    Change,
    Connected,
    Done,
    Entry,
    Failed,
    FileFound,
    FilesChanged,
    FilesListed,
    Finished,
    OutputDrained,
    OutputLost,
    ProcessesListed,
    ProcessExited,
    ProcessKnown,
    ProcessNotStarted,
    ProcessStarted,
    Watching,
)
from tests.support.protocol import DOCUMENT, Spoilt, broken

EVENTS: Mapping[str, Any] = DOCUMENT["living"]["events"]
ENTRY = Entry("/workspace/a", "link", 1, 0o644, 0, "b")
KNOWN = ProcessKnown(
    1,
    label="",
    terminal=False,
    stdin=True,
    output=3,
    ended=True,
    exit_code=0,
    signal=None,
)
EXITED = ProcessExited(exit_code=0, signal=None, output=3)
ARCHIVED = Archived(exit_code=0, signal=None, said="")
EXAMPLES: dict[str, SupervisorEvent] = {
    each.name: each
    for each in (
        Alive(),
        ProcessStarted(),
        ProcessNotStarted("ENOENT"),
        EXITED,
        KNOWN,
        ProcessesListed(next_stream=2),
        OutputLost(1),
        OutputDrained(1),
        FileFound(ENTRY),
        FilesListed((ENTRY,)),
        Watching(),
        FilesChanged((Change("made", "/workspace/a", folder=False),), lost=False),
        ARCHIVED,
        Connected(),
        Finished(),
        Done(more=False),
        Failed("ENOENT"),
    )
}
_NO_FIELD = "with a field that it does not have"


def spoilt() -> Iterator[Spoilt]:
    """Yield every event with each field, and each bound of it, broken; also those of entries."""
    for name, schema in EVENTS.items():
        example = json.loads(LIVING_EVENTS.encode(EXAMPLES[name]))
        for field, how, value in _spoilt_fields(schema, schema, example):
            if field == "say":
                told = "'say' names no known kind"
            elif not field:
                told = f"'{name}' {_NO_FIELD}"
            else:
                told = _NO_FIELD if "a field more" in how else f"'{name}' with wrong {field}"
            payload = json.dumps(value)
            no_json = any(
                len(word.removeprefix("-")) > 19 or "." in word for word in _numbers(value)
            )
            yield Spoilt(name, field, how, payload.encode(), "not JSON" if no_json else told)
    for event, changes in (
        (EXITED, {"exit_code": None}),
        (EXITED, {"signal": 9}),
        (ARCHIVED, {"exit_code": None}),
        (ARCHIVED, {"signal": 9}),
        (KNOWN, {"exit_code": None}),
        (KNOWN, {"signal": 9}),
        (KNOWN, {"ended": False}),
    ):
        lie = {**json.loads(LIVING_EVENTS.encode(event)), **changes}
        wrong = f"'{event.name}' with wrong fields: "
        yield Spoilt(event.name, "", f"causes {changes}", json.dumps(lie).encode(), wrong)


def _spoilt_fields(
    root: Any, schema: Any, example: dict[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a field's name, what is wrong with it, and the whole object with that."""
    yield "", "a field more", {**example, "tenant": "another"}
    for field, facts in schema["properties"].items():
        yield field, "missing", {key: value for key, value in example.items() if key != field}
        for how, value in _broken(root, facts, example[field]):
            yield field, how, {**example, field: value}


def _broken(root: Any, facts: Any, example: Any) -> Iterator[tuple[str, Any]]:
    if "$ref" in facts:
        yield from {"null": None, "text": "x", "list": [example], "empty": {}}.items()
        inner = root["$defs"][facts["$ref"].rpartition("/")[2]]
        for field, how, value in _spoilt_fields(root, inner, example):
            yield f"{field} {how}".strip(), value
    elif "enum" in facts:
        yield from {"null": None, "number": 1, "unknown": "own_host"}.items()
    elif facts.get("type") == "array":
        yield from {"null": None, "text": "x", "object": {}}.items()
        yield "too many", example * (facts["maxItems"] + 1)
        for how, value in _broken(root, facts["items"], example[0]):
            yield f"{how} inside", [value]
    else:
        yield from broken(facts)


def _numbers(value: Any) -> Iterator[str]:
    """Yield the numbers in it, as they are written."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield json.dumps(value)
