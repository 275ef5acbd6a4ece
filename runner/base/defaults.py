"""Defaults of settings that depend on the host."""

import os
import socket
from pathlib import Path


def default_state_dir() -> Path:
    """Return where durable state is stored: root uses the system's place, others their own."""
    if os.geteuid() == 0:
        return Path("/var/lib/agent-runner")
    return Path.home() / ".local" / "state" / "agent-runner"


def default_node() -> str:
    """Return this host's name, for container labels and leases."""
    return socket.gethostname()
