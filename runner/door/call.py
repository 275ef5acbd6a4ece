"""What every call at the door shares, and how long its parts may be."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import Field

MOST_ARGUMENTS = 4096
_LONGEST_TEXT = 128 * 1024
"""The length that one argument may have (execve(2), MAX_ARG_STRLEN)."""

Text: TypeAlias = Annotated[str, Field(max_length=_LONGEST_TEXT, pattern=r"^[^\x00]*$")]
Offset: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
Signed: TypeAlias = Annotated[str, Field(max_length=4096)]


@dataclass(frozen=True, slots=True)
class DoorCall:
    """Something that the API asks for, or adds to what it has asked for."""

    name: ClassVar[str]
