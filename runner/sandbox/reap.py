"""Removal of what an earlier worker on this node left: containers and socket directories."""

import asyncio
import shutil
from collections.abc import Collection

from runner.sandbox.launch import NODE_LABEL, SANDBOX_LABEL, Launcher


async def remove_strays(launcher: Launcher, may_live: Collection[str] = ()) -> int:
    """Remove every sandbox of this node that no sandbox of this worker is, and return how many.

    Safe at any time: what this worker launches or uses now is left alone, and the sandboxes whose
    ids are in `may_live`, which are to be adopted. Containers of other nodes, and containers that
    are not ours, do not match. Raises DockerUnavailable.
    """
    removed = set()

    def stays(sandbox_id: str) -> bool:
        return sandbox_id in launcher.live or sandbox_id in may_live

    for facts in await launcher.engine.containers({NODE_LABEL: launcher.site.node}):
        sandbox_id = facts["Labels"].get(SANDBOX_LABEL, "")
        if not stays(sandbox_id):
            await launcher.engine.remove(facts["Id"])
            removed.add(sandbox_id or facts["Id"])
    for home in list(launcher.site.folder.iterdir()):
        if not stays(home.name):
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
            removed.add(home.name)
    return len(removed)
