"""Deployments to be backed up, and empty ones to restore to.

What most tests begin with is made once, and copied for each.
"""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.backup.manifest import Manifest
from runner.base.settings import Settings
from runner.embedded.services import services
from tests.support.backups import Small, small, small_copy
from tests.support.deployment import copy_database, initialised, state_folder


@dataclass(frozen=True)
class Made:
    """A backup."""

    folder: Path
    keys: Path
    manifest: Manifest


@dataclass(frozen=True)
class Prepared:
    """The folder of a deployment that does not run any more, and a backup of it."""

    state: Path
    folder: Path
    keys: Path
    manifest: Manifest


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """Make a deployment of two tenants, and back it up with its private keys."""
    made = tmp_path_factory.mktemp("prepared")
    folder, keys = made / "backup", made / "keys"
    with state_folder() as state:
        copy_database(state, initialised())
        with services(state, ephemeral=True) as running:
            source = Small(Settings(state_dir=state), running)
            manifest = asyncio.run(_two_tenants(source, folder, keys))
        yield Prepared(state, folder, keys, manifest)


async def _two_tenants(of: Small, folder: Path, keys: Path) -> Manifest:
    await of.install()
    for name in ("acme", "umbrella"):
        await of.tenant(name)
    return await of.backed_up(folder, keys)


@pytest.fixture
def running(prepared: Prepared) -> Iterator[Small]:
    """Return a deployment of two tenants."""
    with small_copy(prepared.state) as made:
        yield made


@pytest.fixture
def empty() -> Iterator[Small]:
    """Return a deployment in which nothing is installed."""
    with small() as made:
        yield made


@pytest.fixture(scope="session")
def bare() -> Iterator[Small]:
    """Return one that tests share: each expects a refusal, and that nothing was written."""
    with small() as made:
        yield made


@pytest.fixture
def backup(prepared: Prepared, tmp_path: Path) -> Made:
    """Return a backup of what `running` returns, with its private keys."""
    folder, keys = tmp_path / "backup", tmp_path / "keys"
    shutil.copytree(prepared.folder, folder)
    shutil.copytree(prepared.keys, keys)
    return Made(folder, keys, prepared.manifest)
