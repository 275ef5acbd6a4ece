"""Parts that all calls at the door share, and the limits of these parts."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, with_config

from runner.protocol.codec import STRICT

MOST_ARGUMENTS = 4096
_LONGEST_TEXT = 128 * 1024
"""The length that one argument may have (execve(2), MAX_ARG_STRLEN)."""

Text: TypeAlias = Annotated[str, Field(max_length=_LONGEST_TEXT, pattern=r"^[^\x00]*$")]
Offset: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
Signed: TypeAlias = Annotated[str, Field(max_length=4096)]
AskedEnd: TypeAlias = Literal["killed", "tenant_suspended", "start_failed"]


@dataclass(frozen=True, slots=True)
class DoorCall:
    """Something that the API asks for, or adds to what it has asked for."""

    name: ClassVar[str]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class EndCall(DoorCall):
    """End the sandbox, whatever it is doing; `done` once its row says so."""

    name = "end"
    reason: AskedEnd
    detail: Annotated[str, Field(max_length=4096)] = ""
    """The facts of its row; the reason, if there is nothing more to say."""
