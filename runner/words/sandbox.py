"""What a sandbox is, whoever uses it."""

from enum import StrEnum

WORKSPACE = "/workspace"
"""The program's working directory in every sandbox, and the only place artifacts come from."""


class Isolation(StrEnum):
    """What stands between a program and the host's kernel, beyond the container's own walls."""

    CONTAINER = "container"
    GVISOR = "gvisor"
