"""What a sandbox that lives and its node say alike: numbers, paths, sizes."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import Field, with_config

from runner.protocol.codec import STRICT

WINDOW = 256 * 1024
"""How much of a stream may be sent before its reader has granted more."""
OVERHEAD = 64
"""What a frame takes from a window beside its payload: its reader needs memory for it, too."""
MAX_PATH = 4096
_MAX_STREAM = 2**32 - 1
_MAX_TERMINAL = 4096

StreamId: TypeAlias = Annotated[int, Field(ge=1, le=_MAX_STREAM)]
Path: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_PATH)]
"""Absolute, or relative to the workspace."""
Mode: TypeAlias = Annotated[int, Field(ge=0, le=0o7777)]
Side: TypeAlias = Annotated[int, Field(ge=1, le=_MAX_TERMINAL)]
Label: TypeAlias = Annotated[str, Field(max_length=8 * 1024)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Terminal:
    """The size of a terminal, in characters."""

    rows: Side
    columns: Side
