"""The API's calls at the door about code contexts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, with_config

from runner.door.call import MOST_ARGUMENTS, DoorCall, Text
from runner.protocol.codec import STRICT
from runner.protocol.living import Path, StreamId
from runner.words.living import Language

MOST_CODE = 512 * 1024


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class OpenContextCall(DoorCall):
    """Begin a context: `context`, once its interpreter takes code.

    With `shared`, it is the one of its language that all who ask so have in common: begun if it is
    not there, and restarted if its interpreter has ended.
    """

    name = "open_context"
    language: Language
    cwd: Path | None
    env: Annotated[Mapping[Text, Text], Field(max_length=MOST_ARGUMENTS)]
    shared: bool = False


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ContextsCall(DoorCall):
    """Describe every context: one `context` each."""

    name = "contexts"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ContextCall(DoorCall):
    """Describe one context: `context`."""

    name = "context"
    context: StreamId


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class RunCodeCall(DoorCall):
    """Run code in a context: `context`, and once it is its turn, what happens.

    A caller that hangs up interrupts it. `O` and `E` frames are its output. A result is a `value`
    for each kind, followed by `D` frames, and then `result`. `raised` tells of an error,
    `run_ended` of the end.
    """

    name = "run_code"
    context: StreamId
    code: Annotated[str, Field(max_length=MOST_CODE)]
    env: Annotated[Mapping[Text, Text], Field(max_length=MOST_ARGUMENTS)]
    timeout_s: Annotated[float | None, Field(gt=0, le=366 * 86_400)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class InterruptCall(DoorCall):
    """Interrupt what runs in a context."""

    name = "interrupt"
    context: StreamId


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class RestartCall(DoorCall):
    """Give a context a new interpreter: `context`, once that takes code."""

    name = "restart"
    context: StreamId


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class CloseContextCall(DoorCall):
    """End a context with everything that it has started."""

    name = "close_context"
    context: StreamId


CODE_CALLS: tuple[type[DoorCall], ...] = (
    OpenContextCall,
    ContextsCall,
    ContextCall,
    RunCodeCall,
    InterruptCall,
    RestartCall,
    CloseContextCall,
)
