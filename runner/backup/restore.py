"""Puts a backup into an empty deployment, so that a crash leaves nothing that looks whole.

Roles come first, then objects and the state folder, and the database last, in one transaction.
While the database is empty, nothing refers to what was restored, and the next attempt continues.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.backup import database as programs
from runner.backup import files, objects, state
from runner.backup.database import DatabaseLogins, PostgresPrograms
from runner.backup.manifest import DUMP, MANIFEST, STATE, Manifest
from runner.backup.take import Tell
from runner.backup.whole import listed_objects
from runner.quotas.tiers import Quotas
from runner.store.db import Database
from runner.store.migrations import migrate
from runner.store.objects import ObjectStore
from runner.tenants.tenancy import publish_tiers
from runner.words.errors import SetupError
from runner.words.principal import Tier

_MARK = "restoring"
"""File in the state folder while a restore is under way: the hash of its backup's manifest."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a backup is restored."""

    logins: DatabaseLogins
    objects: ObjectStore
    state_dir: Path
    ring: Path | None
    """Where the keys of secrets go; None if the environment holds them."""
    tiers: Mapping[Tier, Quotas]


async def restore(
    source: Path, keys: Path | None, manifest: Manifest, to: Place, folders: list[Path], tell: Tell
) -> None:
    """Restore a backup that was verified, and bring its schema up to date.

    `keys` is the folder of its private keys; None leaves them out. Raises SetupError that names
    what is in the way if the deployment is not empty, and StoreUnavailable if a part does not
    answer.
    """
    if manifest.owner != to.logins.owner_name:
        raise SetupError(
            f"the backup's schema belongs to {manifest.owner}, and RUNNER_DATABASE_OWNER_URL logs "
            f"in as {to.logins.owner_name}: use the same name"
        )
    async with Database(to.logins.superuser, max_size=1) as database:
        await programs.require_superuser(database, to_restore=True)
        server = await programs.server_version(database)
        tools = PostgresPrograms.choose(folders, server, manifest.programs)
        await _require_empty(database, source, to, with_keys=keys is not None)
    # With the permissions that a worker would give it: sandboxes' sockets are below.
    to.state_dir.mkdir(parents=True, exist_ok=True)
    files.written(to.state_dir / _MARK, _mark(source))
    tell("roles")
    await asyncio.to_thread(programs.make_roles, to.logins)
    tell("objects")
    for some in objects.in_pages(listed_objects(source)):
        await objects.copy_in(to.objects, some, source)
    tell("the state folder")
    public = [each.path for each in manifest.files if each.path.startswith(f"{STATE}/")]
    state.restored(source / STATE, to.state_dir, [each[len(STATE) + 1 :] for each in public])
    if keys is not None:
        _restore_keys(keys, manifest, to)
    tell("the database")
    await tools.restore(to.logins.superuser, source / DUMP)
    tell("the schema")
    await asyncio.to_thread(migrate, to.logins.owner, *to.logins.others)
    async with Database(to.logins.owner, max_size=1) as owner:
        await publish_tiers(owner, to.tiers)
    await asyncio.to_thread(programs.gather_statistics, to.logins.superuser)
    (to.state_dir / _MARK).unlink()


def _restore_keys(folder: Path, manifest: Manifest, to: Place) -> None:
    names = [each.path for each in manifest.keys or ()]
    state.restored(folder, to.state_dir, [each for each in names if each != state.SECRETS_RING])
    if state.SECRETS_RING in names and to.ring is not None and not to.ring.exists():
        files.copied(folder / state.SECRETS_RING, to.ring, 0o600)


async def _require_empty(database: Database, source: Path, to: Place, *, with_keys: bool) -> None:
    """Raise SetupError if there is something here already, and name it."""
    found = []
    if tables := await programs.relations(database):
        found.append(f"the database holds tables and views, such as {tables[0]}")
    if not _continues(source, to):
        if await to.objects.holds_anything():
            found.append("the object store holds objects")
        patterns = (*state.PUBLIC, *(state.PRIVATE if with_keys else ()))
        if names := list(state.found(to.state_dir, patterns)):
            found.append(f"{to.state_dir} holds {', '.join(names[:3])}")
    if found:
        raise SetupError(
            f"this deployment is not empty: {'; '.join(found)}. A restore needs an empty database, "
            "an empty object store and a new state folder"
        )


def _mark(source: Path) -> bytes:
    return files.hashed(source / MANIFEST)[1].encode()


def _continues(source: Path, to: Place) -> bool:
    """Return whether an earlier restore of this backup was interrupted here."""
    try:
        return (to.state_dir / _MARK).read_bytes() == _mark(source)
    except FileNotFoundError:
        return False
