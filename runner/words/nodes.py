"""A node: a Docker host with the one process that makes sandboxes on it."""

from enum import StrEnum


class NodeState(StrEnum):
    """A node's readiness to take executions and sandboxes."""

    READY = "ready"
    DRAINING = "draining"
    """It takes nothing new; what it has goes on."""
    AWAY = "away"
    """It has not said lately that it lives."""
    REMOVED = "removed"
    """It is no part of the deployment any more, and takes nothing if it comes back."""
