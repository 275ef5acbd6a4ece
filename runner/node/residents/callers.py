"""Bounds the calls of each sandbox and tenant, and cancels those of callers that hung up.

A call may wait for a process or a port that never does anything. Meanwhile it reads nothing from
its caller, so it would not notice a hang-up and would stay for ever. The kernel reports a hang-up,
however much is unread.
"""

import asyncio
import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from runner.door.grants import DoorGrant
from runner.node.residents.attend import NodeLine
from runner.words.errors import NodeAway

LOOK_S = 0.5
"""How often the kernel is asked who has hung up."""
MOST_OF_SANDBOX = 256
MOST_OF_TENANT = 1024
"""How many calls are answered at once: no tenant takes the places of the others."""
_CLOSED = -1
"""The descriptor of a connection that was closed after a failure."""


class CallTable:
    """Counts the calls under way, and cancels those of callers that hung up."""

    def __init__(
        self, *, of_sandbox: int = MOST_OF_SANDBOX, of_tenant: int = MOST_OF_TENANT
    ) -> None:
        self._of_sandbox = of_sandbox
        self._of_tenant = of_tenant
        self._by_sandbox: Counter[UUID] = Counter()
        self._by_tenant: Counter[UUID] = Counter()
        self._calls: dict[NodeLine, asyncio.Task[None]] = {}
        self._looking: asyncio.TimerHandle | None = None

    @contextmanager
    def answered(self, line: NodeLine, grant: DoorGrant) -> Iterator[None]:
        """Cancel the current task if its caller hangs up during the context.

        Raises NodeAway if too many calls of this sandbox or tenant are under way.
        """
        if self._by_sandbox[grant.sandbox] >= self._of_sandbox:
            raise NodeAway(f"this sandbox answers {self._of_sandbox} calls already")
        if self._by_tenant[grant.tenant] >= self._of_tenant:
            raise NodeAway(f"the node answers {self._of_tenant} calls of this tenant already")
        self._by_sandbox[grant.sandbox] += 1
        self._by_tenant[grant.tenant] += 1
        try:
            with self._watched(line):
                yield
        finally:
            for counts, key in (
                (self._by_sandbox, grant.sandbox),
                (self._by_tenant, grant.tenant),
            ):
                counts[key] -= 1
                if not counts[key]:
                    del counts[key]

    @contextmanager
    def _watched(self, line: NodeLine) -> Iterator[None]:
        # Each connection's call runs in a task of its own.
        self._calls[line] = cast("asyncio.Task[None]", asyncio.current_task())
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        try:
            yield
        finally:
            del self._calls[line]

    def _look(self) -> None:
        self._looking = None
        poll = select.poll()
        by_descriptor = {}
        for line, task in self._calls.items():
            if (descriptor := line.peer.fileno()) == _CLOSED:
                task.cancel()
                continue
            by_descriptor[descriptor] = task
            # poll(2) reports a hang-up in any case; but over TCP, the caller ends only its half.
            near = line.peer.family == socket.AF_UNIX
            poll.register(descriptor, 0 if near else select.POLLRDHUP)
        for descriptor, _ in poll.poll(0):
            by_descriptor[descriptor].cancel()
        if self._calls:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)
