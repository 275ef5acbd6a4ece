"""The first exchange, in which both ends agree on a generation of the protocol.

The supervisor offers the generations that it speaks. The node picks the highest that it speaks,
too, says so, and goes on in it without waiting for an answer. The first exchange is the same in
every generation, so that any two ends can at least understand why they cannot go on: a kind (`C`),
a length and JSON.
"""

import struct
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import Field, with_config

from runner.protocol.codec import STRICT, Codec
from runner.words.errors import ImageIncompatible, ProtocolViolation

GENERATIONS = (1, 2)
"""What this node speaks."""
HEADER_FIELDS = {"kind": "c", "length": "I"}
HEADER = struct.Struct(">" + "".join(HEADER_FIELDS.values()))
KIND = b"C"
LONGEST = 4096
_MOST = 100

Generation: TypeAlias = Annotated[int, Field(ge=1, lt=2**31)]


@dataclass(frozen=True, slots=True)
class FirstWord:
    """What a supervisor may say first."""

    name: ClassVar[str]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Greeting(FirstWord):
    """The supervisor is up, and speaks these generations."""

    name = "greeting"
    generations: Annotated[tuple[Generation, ...], Field(min_length=1, max_length=_MOST)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Returning(FirstWord):
    """A supervisor that was told to live has lost its node and is here again, with its secret."""

    name = "returning"
    generations: Annotated[tuple[Generation, ...], Field(min_length=1, max_length=_MOST)]
    secret: Annotated[str, Field(max_length=64, repr=False)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Ready(FirstWord):
    """What supervisors said before there were generations. No node goes on with them."""

    name = "ready"
    version: int


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Agree:
    """The node goes on in this generation, and so must the supervisor."""

    name: ClassVar[str] = "agree"
    generation: Generation


FIRST_WORDS: Codec[FirstWord] = Codec(
    speaker="the sandbox", told_by="say", kinds=(Greeting, Returning, Ready)
)
ANSWERS: Codec[Agree] = Codec(speaker="the worker", told_by="do", kinds=(Agree,))


def framed(payload: bytes) -> bytes:
    """Return a frame of the first exchange."""
    return HEADER.pack(KIND, len(payload)) + payload


def first_word(buffer: bytearray) -> tuple[FirstWord, int] | None:
    """Return what the supervisor says first, and where it ends; None if it is not whole."""
    if len(buffer) < HEADER.size:
        return None
    kind, length = HEADER.unpack_from(buffer)
    if kind != KIND:
        raise ProtocolViolation(f"the sandbox sent a greeting of the unknown kind {kind!r}")
    if not 0 < length <= LONGEST:
        raise ProtocolViolation(
            f"the sandbox sent a greeting with wrong length: {length}, and not 1 to {LONGEST}"
        )
    end = HEADER.size + length
    if len(buffer) < end:
        return None
    return FIRST_WORDS.decode(bytes(buffer[HEADER.size : end])), end


def agreed(said: FirstWord, image: str) -> int:
    """Return the highest generation that both speak. Raises ImageIncompatible if there is none."""
    if isinstance(said, (Greeting, Returning)):
        if common := set(said.generations) & set(GENERATIONS):
            return max(common)
        theirs = _listed(said.generations)
    else:
        theirs = "a version from before there were generations"
    raise ImageIncompatible(
        f"the supervisor of the sandbox image {image!r} speaks {theirs} of the protocol, and this "
        f"worker speaks {_listed(GENERATIONS)}; `runner images build {image}`, run from this "
        "worker's version, makes an image that fits"
    )


def too_old(image: str, spoken: int, needed: int) -> ImageIncompatible:
    """Return the failure for a supervisor whose generation lacks what it is asked for."""
    return ImageIncompatible(
        f"the supervisor of the sandbox image {image!r} speaks generation {spoken} of the "
        f"protocol, and sandboxes that live need generation {needed}; `runner images build "
        f"{image}`, run from this worker's version, makes an image that fits"
    )


def _listed(generations: tuple[int, ...]) -> str:
    numbers = ", ".join(map(str, sorted(set(generations))))
    return f"generation{'s' if len(set(generations)) > 1 else ''} {numbers}"
