"""Reports of a context's program: one JSON object a line, checked against its class."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, with_config

from runner.protocol.codec import STRICT, Codec
from runner.words.errors import ProtocolViolation, SandboxFault
from runner.words.execution import Stream
from runner.words.living import OutputGap, OutputPiece

LINE_S = 10e-6
LINE_BYTE_S = 8e-9
"""Seconds of the event loop, on a slow core, for checking a line, and for each of its bytes."""
LONGEST = 512 * 1024
"""The longest line. A piece of a value is far shorter, whatever characters it has."""
MOST_TRACE = 64 * 1024
Number: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
Piece: TypeAlias = Annotated[str, Field(max_length=64 * 1024)]


class ContextBroken(SandboxFault):
    """The program of a context sent what it never sends; the context cannot be used again.

    Code in the context shares a user with that program and may have changed it, so the sandbox
    need not end.
    """


@dataclass(frozen=True, slots=True)
class Said:
    """Something that the program says. `run` is the number of the run that it is about."""

    name: ClassVar[str]
    run: Number


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ReadySaid(Said):
    """The interpreter takes code."""

    name = "ready"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class UnavailableSaid(Said):
    """There is no such interpreter in this image."""

    name = "unavailable"
    detail: Annotated[str, Field(max_length=4096)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class OutputSaid(Said):
    """The code, or a child process of it, has written this."""

    name = "output"
    of: Literal["stdout", "stderr"]
    text: Piece


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ValueSaid(Said):
    """A piece of one kind of the next result. With `json`, it is part of JSON, else of text."""

    name = "value"
    mime: Annotated[str, Field(max_length=255)]
    json: bool
    text: Piece


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ResultSaid(Said):
    """The result whose values came before is complete. The `main` one is the code's own value."""

    name = "result"
    main: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ErrorSaid(Said):
    """The code has failed."""

    name = "error"
    error: Annotated[str, Field(max_length=256)]
    value: Piece
    traceback: Annotated[str, Field(max_length=MOST_TRACE)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class EndedSaid(Said):
    """The run has ended."""

    name = "ended"
    count: Number
    exit_code: Annotated[int, Field(ge=0, le=255)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class GoneSaid(Said):
    """The interpreter has ended. Code runs again after a restart."""

    name = "gone"
    exit_code: Annotated[int, Field(ge=0, le=255)]
    signal: Annotated[int, Field(ge=0, le=64)]


SAID: Codec[Said] = Codec(
    speaker="a context",
    told_by="say",
    kinds=(
        ReadySaid,
        UnavailableSaid,
        OutputSaid,
        ValueSaid,
        ResultSaid,
        ErrorSaid,
        EndedSaid,
        GoneSaid,
    ),
)


class SaidLines:
    """The program's reports, from a byte of its output on. Iterate over them once."""

    def __init__(
        self,
        output: AsyncIterator[OutputPiece | OutputGap],
        *,
        torn: bool,
        charge: Callable[[float], None],
    ) -> None:
        """Take its output; it begins within a line, if it is `torn`.

        `charge` is told what each piece takes of the event loop's time, in seconds.
        """
        self.offset: int | None = None
        """The byte at which the next line begins; None until a line has come."""
        self._output = output
        self._torn = torn
        self._charge = charge

    async def __aiter__(self) -> AsyncGenerator[Said | OutputGap, None]:
        """Yield what it says. The rest of a line that a gap has torn is left out.

        Raises ContextBroken for a line that it never says.
        """
        rest = bytearray()
        async for each in self._output:
            if isinstance(each, OutputGap):
                rest.clear()
                self._torn = True
                yield each
                continue
            if each.stream is Stream.STDERR:
                # Python's own last words, if the program fails.
                continue
            # Only what is new is searched: a line may come in very many pieces.
            ends, newline, begins = each.data.rpartition(b"\n")
            lines = (bytes(rest) + ends).split(b"\n") if newline else []
            self._charge(LINE_S * (1 + len(lines)) + LINE_BYTE_S * len(each.data))
            # Much may be there already: others have their turn after each piece.
            await asyncio.sleep(0)
            end = each.offset + len(each.data) - len(begins) - sum(len(line) + 1 for line in lines)
            for line in lines:
                end += len(line) + 1
                self.offset = end
                if line and not self._torn:
                    yield _decoded(line)
                self._torn = False
            if newline:
                rest.clear()
            rest += begins
            if len(rest) > LONGEST:
                raise ContextBroken("a context said something too long")


def _decoded(line: bytes) -> Said:
    try:
        return SAID.decode(line)
    except ProtocolViolation as error:
        raise ContextBroken(error.detail) from error
