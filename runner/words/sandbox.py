"""What a sandbox is and is made from, whoever uses it."""

from dataclasses import dataclass
from enum import StrEnum

from runner.words.resources import Resources

WORKSPACE = "/workspace"
"""The program's working directory in every sandbox, and the only place artifacts come from."""


class Isolation(StrEnum):
    """What stands between a program and the host's kernel, beyond the container's own walls."""

    CONTAINER = "container"
    GVISOR = "gvisor"


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What a sandbox is made from."""

    image: str
    resources: Resources
    isolation: Isolation = Isolation.CONTAINER
