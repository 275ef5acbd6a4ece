"""The protocol's schema file, an example of each event, and every way to spoil its fields."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from runner.protocol.events import (
    EVENTS,
    Alive,
    ArtifactOffered,
    Cleaned,
    Collected,
    Counted,
    Living,
    Loaded,
    NotPlaced,
    NotStarted,
    Placed,
    ProgramEnded,
    Started,
    SupervisorEvent,
)
from runner.protocol.schema import FOLDER, GENERATION
from runner.verify.forged import forged

FILE: Path = FOLDER / f"{GENERATION}.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text())
"""The newest generation, from its file."""
ENDED = ProgramEnded(exit_code=0, signal=None, stdout=0, stderr=0, disk_full=False)
EXAMPLES: dict[str, SupervisorEvent] = {
    each.name: each
    for each in (
        Alive(),
        Loaded(failed=("a_module",)),
        Cleaned(left=("files in /tmp",)),
        Placed(),
        NotPlaced(error="ENOSPC"),
        Started(),
        NotStarted(error="ENOENT"),
        Counted(stdout=1, stderr=2),
        ENDED,
        ArtifactOffered(path="a", size=1),
        Collected(refused=(("a", "b"),), refused_total=1),
        Living(),
    )
}


class Spoilt(NamedTuple):
    """An event that is wrong in one field."""

    event: str
    field: str
    how: str
    payload: bytes
    told: str
    """The error's words about it."""

    def __str__(self) -> str:
        return f"{self.event}-{self.field}-{self.how}".replace(" ", "_")


def spoilt() -> Iterator[Spoilt]:
    """Yield every event of the schema's file, spoilt in each field and at each bound."""
    for name, schema in DOCUMENT["events"].items():
        example = EXAMPLES[name]
        more = forged(example, tenant="another")
        yield Spoilt(name, "", "a field more", more, f"'{name}' with a field that it does not have")
        twice = EVENTS.encode(example).replace(b"{", f'{{"say": "{name}", '.encode(), 1)
        yield Spoilt(name, "say", "twice", twice, "names a field twice")
        for field, facts in schema["properties"].items():
            told = "'say' names no known kind" if field == "say" else f"'{name}' with wrong {field}"
            yield Spoilt(name, field, "missing", forged(example, without=(field,)), told)
            for how, value in broken(facts):
                wrong = forged(example, **{field: value})
                # Python would read such numbers, some of them slowly.
                no_json = how.startswith(("fraction", "huge"))
                yield Spoilt(name, field, how, wrong, "not JSON" if no_json else told)
    for how, code, signal in (("no cause", None, None), ("two causes", 0, 9)):
        both = forged(ENDED, exit_code=code, signal=signal)
        yield Spoilt("ended", "exit_code", how, both, "'ended' with wrong fields: ")


def broken(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield values that a field with this schema must refuse, each with what is wrong with it."""
    if "const" in facts:
        yield from {"unknown": "own_host", "null": None, "list": [facts["const"]]}.items()
        return
    if "anyOf" in facts:
        facts = next(each for each in facts["anyOf"] if each["type"] != "null")
    else:
        yield "null", None
    yield "object", {}
    yield from {
        "integer": _no_integer,
        "boolean": _no_boolean,
        "string": _no_text,
        "array": _no_list,
    }[facts["type"]](facts)


def _no_integer(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from {"text": "1", "true": True, "fraction": 1.5, "huge": 10**30}.items()
    yield "too low", facts["minimum"] - 1
    yield "too high", facts.get("exclusiveMaximum", facts.get("maximum", 0) + 1)


def _no_boolean(_: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from {"number": 1, "text": "true"}.items()


def _no_text(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "number", 1
    if "pattern" in facts:
        yield from {"markup": "<script>", "controls": "ENOENT\n", "long": "E" * 50}.items()
    else:
        yield "too long", "x" * (facts["maxLength"] + 1)
    if facts.get("minLength"):
        yield "too short", ""


def _no_list(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from {"text": "x", "number": 1}.items()
    item = facts["items"]
    columns = item.get("prefixItems", ())
    good: Any = ["x" for _ in columns] if columns else {"string": "x", "integer": 1}[item["type"]]
    yield "too many", [good] * (facts["maxItems"] + 1)
    if facts.get("minItems"):
        yield "too few", []
    if not columns:
        yield from ((f"{how} inside", [value]) for how, value in broken(item))
        return
    yield from {"short row": [good[:-1]], "long row": [[*good, "x"]], "no row": ["x"]}.items()
    for place, column in enumerate(columns):
        for how, value in broken(column):
            yield f"{how} in column {place}", [[*good[:place], value, *good[place + 1 :]]]
