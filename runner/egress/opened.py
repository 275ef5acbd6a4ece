"""A session with the proxy as its worker knows it: its rules, and what was told of it."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace

from runner.egress.policy import Policy
from runner.egress.session import NOTHING, Decision, Summary


@dataclass(slots=True)
class OpenSession:
    """A session as the gateway knows it."""

    tenant: str
    policy: Policy
    listener: socket.socket
    secrets: Mapping[str, str] = field(repr=False)
    on_decision: Callable[[Decision], None]
    closed: asyncio.Future[None] | None = None
    """The proxy's word that it has closed the session, while somebody waits for it."""
    told: Summary = NOTHING
    """The counts that the current proxy has reported; those of earlier ones are in `before`."""
    counted: Summary = NOTHING
    """The last word of the current proxy on how far the session has come."""
    changed: asyncio.Future[None] | None = None
    """The proxy's word that it decides by `policy`."""
    changes: int = 0
    """How often its rules were changed."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: asyncio.Future[None] | None = None
    """The answer to the question that is under way."""
    before: Summary = NOTHING

    @property
    def known(self) -> Summary:
        """Return what is known of it from this proxy: the larger numbers, as they only grow."""
        told, counted = astuple(self.told), astuple(self.counted)
        return Summary(*map(max, told, counted))


def confirm(word: asyncio.Future[None] | None) -> None:
    """Let whoever waits for this word go on, if anybody does."""
    if word is not None and not word.done():
        word.set_result(None)


def added(first: Summary, second: Summary) -> Summary:
    """Return the sums of both."""
    return Summary(
        allowed=first.allowed + second.allowed,
        denied=first.denied + second.denied,
        connections=first.connections + second.connections,
        bytes_up=first.bytes_up + second.bytes_up,
        bytes_down=first.bytes_down + second.bytes_down,
    )


def including(told: Summary, decision: Decision) -> Summary:
    """Return the sums with a decision added."""
    allowed = decision.outcome == "allowed"
    return replace(
        told,
        allowed=told.allowed + allowed,
        denied=told.denied + (not allowed),
        connections=told.connections + 1,
        bytes_up=told.bytes_up + decision.bytes_up,
        bytes_down=told.bytes_down + decision.bytes_down,
    )
