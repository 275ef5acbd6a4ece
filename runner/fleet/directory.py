"""The nodes as they were a moment ago, remembered so that no creation waits for a statement."""

import asyncio
from collections import Counter

from runner.fleet.choice import NodeNeed, candidates, why_none
from runner.store import nodes
from runner.store.db import Database
from runner.store.nodes import StoredNode
from runner.words.errors import NodeAway
from runner.words.nodes import NodeState

FRESH_S = 1.0
"""How old the list of nodes may be. Each node tells of itself less often."""


class NodeDirectory:
    """The nodes of the deployment, and how many sandboxes this process has sent to each lately."""

    def __init__(
        self, database: Database, *, zone: str | None = None, fresh_s: float = FRESH_S
    ) -> None:
        """Prefer nodes of `zone`."""
        self._database = database
        self._zone = zone
        self._fresh_s = fresh_s
        self._nodes: list[StoredNode] = []
        self._sent: Counter[str] = Counter()
        self._until = 0.0
        self._reading = asyncio.Lock()

    async def takers(self, wanted: NodeNeed) -> list[StoredNode | None]:
        """Return the nodes to ask for a sandbox, in this order.

        None stands for the node of this host, if no node has registered: one of an earlier
        release. Raises NodeAway if no node can take it.
        """
        known = await self._read()
        if not known:
            return [None]
        found = candidates(known, wanted, zone=self._zone, sent=self._sent)
        if not found:
            raise NodeAway(why_none(known, wanted, self._sent))
        return list(found)

    def sent(self, node: StoredNode) -> None:
        """Count a sandbox that was sent to a node, until the node tells of itself again."""
        self._sent[node.node] += 1

    def doubt(self) -> None:
        """Read the nodes again next time: one was not as it is remembered."""
        self._until = 0.0

    async def _read(self) -> list[StoredNode]:
        async with self._reading:
            if self._until <= _now():
                async with self._database.statements() as tx:
                    found = await nodes.list_all(tx)
                seen = {each.node: each.seen_at for each in self._nodes}
                for each in found:
                    if each.seen_at != seen.get(each.node):
                        self._sent.pop(each.node, None)
                self._nodes = [each for each in found if each.state is not NodeState.REMOVED]
                self._until = _now() + self._fresh_s
            return self._nodes


def _now() -> float:
    return asyncio.get_running_loop().time()
