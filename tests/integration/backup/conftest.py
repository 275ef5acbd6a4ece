"""Deployments to be backed up, and empty ones to restore to."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.backup.manifest import Manifest
from tests.support.backups import Small, small


@pytest.fixture
async def running() -> AsyncIterator[Small]:
    """Return a deployment of two tenants."""
    with small() as made:
        await made.install()
        for name in ("acme", "umbrella"):
            await made.tenant(name)
        yield made


@pytest.fixture
def empty() -> Iterator[Small]:
    """Return a deployment in which nothing is installed."""
    with small() as made:
        yield made


@dataclass(frozen=True)
class Made:
    """A backup, and the deployment that it is of."""

    of: Small
    folder: Path
    keys: Path
    manifest: Manifest


@pytest.fixture
async def backup(running: Small, tmp_path: Path) -> Made:
    """Return a backup with its private keys."""
    folder, keys = tmp_path / "backup", tmp_path / "keys"
    manifest = await running.backed_up(folder, keys)
    return Made(running, folder, keys, manifest)
