"""What an earlier worker on this node left behind: containers and socket directories."""

import asyncio
import shutil

from runner.sandbox.launch import INSTANCE_LABEL, NODE_LABEL, SANDBOX_LABEL, Launcher


async def remove_strays(launcher: Launcher) -> int:
    """Remove every sandbox of this node that no sandbox of this worker is, and return how many.

    Safe at any time: what this worker launches or uses now is left alone. Containers of other
    nodes, and containers that are not ours, do not match. Raises DockerUnavailable.
    """
    removed = set()
    for facts in await launcher.engine.containers({NODE_LABEL: launcher.site.node}):
        sandbox_id = facts["Labels"].get(SANDBOX_LABEL, "")
        ours = facts["Labels"].get(INSTANCE_LABEL) == launcher.site.instance
        if not (ours and sandbox_id in launcher.live):
            await launcher.engine.remove(facts["Id"])
            removed.add(sandbox_id or facts["Id"])
    for home in list(launcher.site.folder.iterdir()):
        if home.name not in launcher.live:
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
            removed.add(home.name)
    return len(removed)
