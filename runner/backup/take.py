"""Makes a backup while the deployment runs."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from uuid import UUID

from runner.backup import database as programs
from runner.backup import files, objects, state
from runner.backup.database import COUNTING, DatabaseLogins, PostgresPrograms
from runner.backup.manifest import (
    CHAINS,
    DUMP,
    MANIFEST,
    OBJECTS,
    OBJECTS_INDEX,
    STATE,
    BackedFile,
    ChainEnd,
    Contents,
    Manifest,
    sealed,
)
from runner.base.signing import Signer
from runner.secrets.keyring import KeyRing
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.store.transaction import Transaction
from runner.words.errors import SetupError, StoreUnavailable
from runner.words.states import ENDED, State
from runner.words.text import counted

TRIES = 5
"""How often the objects are compared with the database if some are removed in the meantime."""
OLDEST = "0024"
"""The first schema with all that a backup reads."""
_DRAFT = ".listed"
UNENDED = sorted(state.value for state in State if state not in ENDED)
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is backed up."""

    logins: DatabaseLogins
    objects: ObjectStore
    state_dir: Path
    node: str
    release: str
    signer: Signer
    ring: KeyRing | None
    """The keys of tenants' secrets; None if there are none."""
    without_lost: bool = False
    """Whether a backup may lack objects that are lost already, which it then names."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """The snapshot that a dump is made of."""

    snapshot: str
    at: datetime
    server: int
    owner: str


async def take(
    of: Deployment, target: Path, keys: Path | None, folders: list[Path], tell: Tell
) -> Manifest:
    """Write a backup to a new folder, and private keys to another one, or nowhere if it is None.

    Raises SetupError if one of the folders exists or the deployment cannot be backed up, and
    StoreUnavailable if a part does not answer. What was copied stays beside `target`, for the next
    attempt.
    """
    began = datetime.now(UTC)
    async with Database(of.logins.superuser, max_size=1) as database:
        await programs.require_superuser(database, to_restore=False)
        revision = await _revision(database)
        tools = PostgresPrograms.choose(folders, await programs.server_version(database))
        # The keys get their name first: a backup that has its own is whole.
        with (
            files.appearing(target) as folder,
            files.appearing(keys) if keys else nullcontext() as private,
        ):
            backup = _Backup(of, database, tools, folder, tell)
            kept = None if private is None else backup.private_keys(private)
            moment, contents = await backup.database_and_objects()
            manifest = Manifest(
                began_at=began.isoformat(),
                of=moment.at.astimezone(UTC).isoformat(),
                ended_at=datetime.now(UTC).isoformat(),
                node=of.node,
                release=of.release,
                revision=revision,
                owner=moment.owner,
                server=moment.server,
                programs=tools.version,
                contents=contents,
                files=backup.described(),
                keys=kept,
            )
            files.written(folder / MANIFEST, sealed(of.signer, manifest).encode())
    return manifest


@dataclass(frozen=True, slots=True)
class _Backup:
    """A backup that is being made in a folder."""

    of: Deployment
    database: Database
    tools: PostgresPrograms
    folder: Path
    tell: Tell

    def private_keys(self, folder: Path) -> tuple[BackedFile, ...]:
        """Copy the private keys, and the keys of secrets wherever they are kept."""
        state.copied(self.of.state_dir, folder, state.PRIVATE)
        if self.of.ring is not None:
            files.written(folder / state.SECRETS_RING, self.of.ring.text().encode())
        return tuple(files.described(folder, name) for name in state.found(folder, state.PRIVATE))

    async def database_and_objects(self) -> tuple[_Moment, Contents]:
        """Copy what the database and the object store hold at one moment."""
        self.tell("objects")
        # Most of the work, at a time when nothing depends on how long it takes.
        async for some in objects.kept_now(self.database):
            await objects.copy_out(self.of.objects, some, self.folder)
        for left in reversed(range(TRIES)):
            self.tell("the state folder")
            # Before the database: what a worker has sealed since then, it would miss in the dump.
            state.copied(self.of.state_dir, self.folder / STATE, state.PUBLIC)
            async with self._moment() as (tx, moment):
                self.tell("objects that are new")
                lost = await self._objects_of(tx)
                if lost and (left or not self.of.without_lost):
                    continue
                chains = await self._chains_of(tx)
                tx.patiently(COUNTING)
                counts = await tx.one("backup.contents", unended=UNENDED)
                self.tell("the database")
                await self.tools.dump(self.of.logins.superuser, moment.snapshot, self.folder / DUMP)
            files.written(self.folder / CHAINS, chains)
            count, size = await asyncio.to_thread(self._index)
            contents = Contents(**(counts or {}), objects=count, object_bytes=size, lost=len(lost))
            return moment, contents
        raise StoreUnavailable(
            f"the object store lacks {counted(len(lost), 'object')} that rows name, such as "
            f"{lost[0]}: "
            f"run the command again if they were removed just now; what was copied stays in "
            f"{self.folder}. If they are lost, --without-lost leaves them out"
        )

    def described(self) -> tuple[BackedFile, ...]:
        """Return all files except the objects."""
        names = [DUMP, OBJECTS_INDEX, CHAINS]
        public = state.found(self.folder / STATE, state.PUBLIC)
        names += [f"{STATE}/{name}" for name in public]
        return tuple(files.described(self.folder, name) for name in names)

    @asynccontextmanager
    async def _moment(self) -> AsyncIterator[tuple[Transaction, _Moment]]:
        async with self.database.snapshot() as tx:
            row = await tx.one("backup.moment")
            if row is None:
                raise RuntimeError("backup.moment always has one row")
            yield tx, _Moment(**row)

    async def _objects_of(self, tx: Transaction) -> list[str]:
        """Copy the objects that this moment's rows refer to; return the keys of missing ones."""
        missing: list[str] = []
        with (self.folder / _DRAFT).open("w") as listed:
            async for some in objects.kept(tx):
                gone = await objects.copy_out(self.of.objects, some, self.folder)
                listed.writelines(f"{each.key}\n" for each in some if each.key not in gone)
                missing += gone
        return missing

    async def _chains_of(self, tx: Transaction) -> bytes:
        lines = []
        after = UUID(int=0)
        while rows := await tx.all("backup.chains", after=after, limit=objects.PAGE):
            for row in rows:
                end = ChainEnd(tenant=str(row["tenant_id"]), seq=row["seq"], hash=row["hash"].hex())
                lines.append(end.model_dump_json() + "\n")
            after = rows[-1]["tenant_id"]
        return "".join(lines).encode()

    def _index(self) -> tuple[int, int]:
        """Write the index of the objects from what is on the disk; remove what is not in it.

        Return how many there are, and their bytes.
        """
        draft, count, size = self.folder / _DRAFT, 0, 0
        tenants = set()
        (self.folder / OBJECTS / "tenants").mkdir(parents=True, exist_ok=True)
        with draft.open() as listed, (self.folder / OBJECTS_INDEX).open("w") as index:
            keys = (line.rstrip("\n") for line in listed)
            for above, of_tenant in groupby(keys, lambda key: "/".join(key.split("/")[:2])):
                wanted = set()
                for key in of_tenant:
                    found = objects.described(self.folder, key)
                    index.write(found.model_dump_json() + "\n")
                    wanted.add(key.removeprefix(f"{above}/"))
                    count, size = count + 1, size + found.bytes
                files.remove_others(self.folder / OBJECTS / above, wanted.__contains__)
                tenants.add(above)
        draft.unlink()
        for folder in (self.folder / OBJECTS / "tenants").iterdir():
            if f"tenants/{folder.name}" not in tenants:
                shutil.rmtree(folder)
        return count, size


async def _revision(database: Database) -> str:
    if "alembic_version" not in await programs.relations(database):
        raise SetupError("there is nothing to back up: this database has no schema")
    async with database.no_tenant() as tx:
        row = await tx.one("backup.revision")
    revision = str(row["revision"]) if row else ""
    if revision < OLDEST:
        raise SetupError(
            f"the schema is at revision {revision}, and a backup needs {OLDEST} or later: copy the "
            "database with `pg_dump`, then run `runner migrate`"
        )
    return revision
