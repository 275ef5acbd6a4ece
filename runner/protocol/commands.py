"""Commands: what the node tells a supervisor to do, which believes it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import Field, TypeAdapter, with_config

from runner.protocol.codec import STRICT, Codec

Size: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]


@dataclass(frozen=True, slots=True)
class Command:
    """Something the node wants done."""

    name: ClassVar[str]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Ping(Command):
    """Say whether commands are awaited; `alive` answers."""

    name = "ping"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Load(Command):
    """Import the image's list of modules; `loaded` answers."""

    name = "load"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Prepare(Command):
    """Make the process that becomes the next program. Nothing answers."""

    name = "prepare"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class PlaceFile(Command):
    """Write an input file, whose `size` bytes follow; `placed` or `not_placed` answers."""

    name = "place"
    path: str
    size: Size


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class RunProgram(Command):
    """Run the program whose `program_bytes` and then `stdin_bytes` follow.

    `started` or `not_started` answers; its output, `counted` and `ended` follow. Of each output at
    most `output_bytes` are sent. With `egress`, 127.0.0.1:3128 leads to the egress proxy; `trust`
    is a certificate that the program shall trust, or nothing.
    """

    name = "run"
    program_bytes: Size
    stdin_bytes: Size
    output_bytes: Size
    egress: bool
    trust: str


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Terminate(Command):
    """Send SIGTERM to every process of the program. `ended` follows when they are gone."""

    name = "terminate"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Collect(Command):
    """Hand back files: each is an `artifact`, and `collected` is the end.

    `names_bytes` bytes of names follow in `D` frames: a JSON array of patterns, or nothing. At most
    `max_files` of `max_bytes` together are handed back, of those that match a pattern; without
    patterns, of all but what tools made for themselves. Unless another program is to run `again`,
    the sandbox obeys nothing afterwards.
    """

    name = "collect"
    names_bytes: Size
    max_files: Size
    max_bytes: Size
    again: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Clean(Command):
    """Remove all that the program left, after `collected`; `cleaned` answers."""

    name = "clean"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Live(Command):
    """Live from now on: `living` answers, and `living_commands` is spoken.

    When the connection ends the supervisor stays, with all that runs, and connects again where it
    connected first, with `secret` in its greeting. After `alone_s` seconds without a node it ends.
    With `egress`, 127.0.0.1:3128 leads to the egress proxy; `trust` is a certificate that programs
    shall trust, or nothing.
    """

    name = "live"
    secret: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    alone_s: Annotated[int, Field(ge=1, le=10**7)]
    egress: bool
    trust: str


COMMANDS: Codec[Command] = Codec(
    speaker="the worker",
    told_by="do",
    kinds=(Ping, Load, Prepare, PlaceFile, RunProgram, Terminate, Collect, Clean, Live),
)


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Invocation:
    """The program, as it follows `run`: as JSON, whose length `program_bytes` tells."""

    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    env: Mapping[str, str]
    cwd: str
    interpret: bool
    """That `argv` is Python with a script, which the supervisor's own interpreter may run."""

    def encode(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(INVOCATION.dump_python(self)).encode()


INVOCATION = TypeAdapter(Invocation)
