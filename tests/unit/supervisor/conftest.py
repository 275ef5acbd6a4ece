"""A supervisor that lives, as a process of this host."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.living import Node, Sandbox, living


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Open a sandbox without a container."""
    async with living(tmp_path) as opened:
        yield opened


@pytest.fixture
async def node(sandbox: Sandbox) -> Node:
    """Start its supervisor; return the node's end of the connection."""
    return await sandbox.start()
