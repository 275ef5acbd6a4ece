"""The worker's side of the egress proxy. INTERFACE ONLY until engineer A replaces this file."""

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from runner.egress.policy import Policy


@dataclass(frozen=True, slots=True)
class Decision:
    """What the proxy decided on one request, or what came of an allowed connection."""

    session: str
    at: datetime
    outcome: Literal["allowed", "denied"]
    method: Literal["connect", "http", "socks5"]
    host: str
    port: int
    address: str | None
    rule: str | None
    reason: str
    detail: str
    bytes_up: int = 0
    bytes_down: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a session came to."""

    allowed: int
    denied: int
    connections: int
    bytes_up: int
    bytes_down: int


class Session:
    """One sandbox's way out."""

    async def close(self) -> Summary:
        """Cut all its connections and return what it came to."""
        return Summary(0, 0, 0, 0, 0)


class EgressGateway:
    """The running proxy."""

    ca_pem = ""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        uid: int,
        trusted_networks: Sequence[str],
        hosts: Mapping[str, str],
        extra_roots: Path | None,
        profiles_dir: Path,
        state_dir: Path,
    ) -> AsyncIterator["EgressGateway"]:
        """Start the proxy and serve sessions while the context lasts."""
        yield cls()

    async def open_session(
        self,
        session: str,
        policy: Policy,
        listener: socket.socket,
        secrets: Mapping[str, str],
        on_decision: Callable[[Decision], None],
    ) -> Session:
        """Serve a sandbox's socket."""
        return Session()
