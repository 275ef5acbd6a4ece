"""The gate of this node: it takes anything new only while the operator wants it."""

import asyncio

from runner.words.errors import NodeAway
from runner.words.nodes import NodeState


class Gate:
    """One node's. It is open until somebody learns otherwise."""

    def __init__(self) -> None:
        self._state = NodeState.READY
        self._open = asyncio.Event()
        self._open.set()
        self._stopped = False

    @property
    def draining(self) -> bool:
        """Whether the operator wants this node to become empty."""
        return self._state is NodeState.DRAINING

    def follow(self, state: NodeState) -> bool:
        """Open or close as the node's state demands; return whether that has changed."""
        before, self._state = self._state, state
        if state is NodeState.READY or self._stopped:
            self._open.set()
        else:
            self._open.clear()
        return before is not state

    def stop(self) -> None:
        """Hold nobody up any more."""
        self._stopped = True
        self._open.set()

    async def opened(self) -> None:
        """Wait while this node takes nothing; not once `stop` was called."""
        await self._open.wait()

    def require_open(self) -> None:
        """Raise NodeAway while this node takes nothing."""
        if self._state is not NodeState.READY:
            raise NodeAway(f"this node is {self._state.value} and takes nothing new")
