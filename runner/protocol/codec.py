"""Messages as JSON: each is a frozen dataclass, and one field says which.

A message is checked against its class when it is read: all its fields, their types and bounds, no
unknown field, no key twice. The sandbox is hostile, so an error names the message and the field,
and repeats nothing that came from there.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from runner.words.errors import ProtocolViolation
from runner.words.json import RepeatedKey, strict_decoder

STRICT = ConfigDict(extra="forbid", strict=True)
"""How messages are read: nothing is converted, and unknown fields are refused."""
_DIGITS = 19
_TOLD = 3
"""How many problems of one message an error names."""


class Message(Protocol):
    """A class of messages, which has a name on the wire."""

    name: ClassVar[str]


M = TypeVar("M", bound=Message)


class Codec(Generic[M]):
    """Writes and reads the messages of one direction."""

    def __init__(
        self, *, speaker: str, told_by: str, kinds: Iterable[type[M]], fractions: bool = False
    ) -> None:
        """Take the classes of messages. Only with `fractions` may numbers have fractions."""
        self.kinds: Mapping[str, type[M]] = {kind.name: kind for kind in kinds}
        self._speaker = speaker
        self._told_by = told_by
        self._decoder = strict_decoder(
            parse_constant=_refuse,
            parse_int=_short_int,
            parse_float=_finite if fractions else _refuse,
        )
        self._adapters = {name: TypeAdapter(kind) for name, kind in self.kinds.items()}

    def encode(self, message: M) -> bytes:
        """Return the JSON of a message."""
        fields = self._adapters[message.name].dump_python(message, mode="json")
        return json.dumps({self._told_by: message.name, **fields}).encode()

    def decode(self, payload: bytes) -> M:
        """Return the message in these bytes. Raises ProtocolViolation if they are not one."""
        value = self._object(payload)
        name = value.pop(self._told_by, None)
        adapter = self._adapters.get(name) if isinstance(name, str) else None
        if adapter is None:
            raise self._violation(f"a message whose {self._told_by!r} names no known kind")
        try:
            # Validate it as JSON: only then may a list stand for a tuple.
            return adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            raise self._violation(f"{name!r} with {'; '.join(_problems(error))}") from None

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of each message, by name."""
        return {name: self._schema(name) for name in self.kinds}

    def _schema(self, name: str) -> dict[str, Any]:
        schema = json_schema(self._adapters[name])
        return {
            **schema,
            "properties": {self._told_by: {"const": name}, **schema.get("properties", {})},
            "required": [self._told_by, *schema.get("required", ())],
        }

    def _object(self, payload: bytes) -> dict[str, Any]:
        try:
            value = self._decoder.decode(payload.decode("utf-8"))
        except RepeatedKey as error:
            raise self._violation("a message that names a field twice") from error
        except (ValueError, RecursionError) as error:
            raise self._violation("a message that is not JSON of ours") from error
        if not isinstance(value, dict):
            raise self._violation("a message that is not a JSON object")
        return value

    def _violation(self, what: str) -> ProtocolViolation:
        return ProtocolViolation(f"{self._speaker} sent {what}")


def json_schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """Return a class's JSON Schema without titles, which only repeat the names."""
    schema = adapter.json_schema()
    for each in (schema, *schema.get("$defs", {}).values()):
        del each["title"]
        for facts in each.get("properties", {}).values():
            facts.pop("title", None)
    return schema


def _problems(error: ValidationError) -> list[str]:
    """Return the problems by field; the name of an unknown field is not repeated."""
    problems = []
    for each in error.errors(include_url=False, include_context=False, include_input=False)[:_TOLD]:
        if each["type"] == "unexpected_keyword_argument":
            problems.append("a field that it does not have")
        else:
            where = ".".join(map(str, each["loc"])) or "fields"
            problems.append(f"wrong {where}: {each['msg']}")
    return problems


def _short_int(text: str) -> int:
    if len(text.removeprefix("-")) > _DIGITS:
        raise ValueError("an integer of more than 64 bits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that is not finite")
    return number


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} has no place in a message")
