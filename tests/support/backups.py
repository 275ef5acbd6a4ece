"""Small deployments without Docker, to be backed up: a database, objects, logs, secrets, keys."""

import hashlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from pydantic import SecretStr

from runner.audit.checkpoints import Checkpointer
from runner.audit.memory import Memory
from runner.backup.database import DatabaseLogins
from runner.backup.manifest import Manifest
from runner.backup.restore import Place
from runner.backup.take import Deployment, take
from runner.base.settings import Settings
from runner.base.signing import Signer, TrustedKeys
from runner.egress.certificates import load_or_make_authority
from runner.embedded.postgres import programs
from runner.embedded.services import Services, services
from runner.quotas.sizes import load_sizes
from runner.quotas.tiers import load_tiers
from runner.secrets.keyring import KeyFile
from runner.secrets.vault import Vault
from runner.store import files, ledger
from runner.store.db import Database
from runner.store.files import NewFile
from runner.store.migrations import migrate
from runner.store.objects import ObjectStore, new_key
from runner.tenants.tenancy import create_key, publish_tiers
from runner.words.principal import Role
from tests.support.deployment import copy_database, initialised, state_folder

SECRET = "canary-of-the-backup-4c1f"  # noqa: S105 - made up, and searched for
HERE = [programs()]
"""PostgreSQL's programs that fit to the server."""


def quiet(_: str) -> None:
    """Hear what a backup tells, and do nothing."""


@dataclass
class Small:
    """A deployment in a folder of its own, whose worker the test plays."""

    settings: Settings
    services: Services

    @property
    def folder(self) -> Path:
        """Its state folder."""
        return self.settings.state_dir

    @property
    def objects(self) -> ObjectStore:
        """Its object store."""
        return ObjectStore.open(self.settings)

    @property
    def logins(self) -> DatabaseLogins:
        """All logins of its PostgreSQL."""
        urls = (self.services.operator_url, self.services.api_url, self.services.worker_url)
        return DatabaseLogins(
            SecretStr(self.services.superuser_url),
            SecretStr(self.services.owner_url),
            tuple(map(SecretStr, urls)),
        )

    @property
    def place(self) -> Place:
        """It as a place to restore to."""
        sizes = load_sizes(self.settings.profiles_path)
        return Place(
            self.logins, self.objects, self.folder, self.settings.secrets_key_path,
            load_tiers(self.settings.profiles_path, sizes),
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a command finds it."""
        return {
            **self.settings.as_environment(),
            "RUNNER_DATABASE_SUPERUSER_URL": self.services.superuser_url,
            "RUNNER_DATABASE_OWNER_URL": self.services.owner_url,
            "RUNNER_DATABASE_OPERATOR_URL": self.services.operator_url,
            "RUNNER_DATABASE_API_URL": self.services.api_url,
            "RUNNER_DATABASE_WORKER_URL": self.services.worker_url,
        }

    def deployment(self, **changed: Any) -> Deployment:
        """Return what a backup is made of."""
        return Deployment(
            logins=self.logins, objects=self.objects, state_dir=self.folder, node="here",
            release="0", signer=Signer.open(self.folder),
            ring=KeyFile(self.settings.secrets_key_path).ring(), **changed,
        )  # fmt: skip

    async def backed_up(self, target: Path, keys: Path | None = None, **changed: Any) -> Manifest:
        """Back it up."""
        return await take(self.deployment(**changed), target, keys, HERE, quiet)

    def sql(
        self, statement: str, *values: Any, tenant: UUID | None = None
    ) -> list[tuple[Any, ...]]:
        """Return what a superuser sees, in a transaction of a tenant or of none."""
        with psycopg.connect(self.services.superuser_url) as connection:
            connection.execute(
                "SELECT set_config('app.tenant_id', %s, true)", [str(tenant) if tenant else ""]
            )
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    async def install(self) -> None:
        """Make its schema and its keys, as `runner dev` and a first start of the worker do."""
        migrate(self.logins.owner, *self.logins.others)
        async with self._owner() as owner:
            await publish_tiers(owner, self.place.tiers)
        KeyFile(self.settings.secrets_key_path).make()
        load_or_make_authority(self.folder / "egress")
        Signer.open(self.folder)

    async def tenant(self, name: str, count: int = 3) -> UUID:
        """Make a tenant with files and a secret, whose log is sealed."""
        limits = load_sizes(self.settings.profiles_path)["large"]
        async with self._owner() as owner, self._api() as api:
            made = await create_key(
                owner, tenant=name, role=Role.OWNER, name="test", max_limits=limits
            )
            async with api.tenant(made.tenant_id) as tx:
                ring = KeyFile(self.settings.secrets_key_path)
                await Vault(ring).put(tx, made.tenant_id, "token", SECRET)
        for number in range(count):
            await self.file(made.tenant_id, f"{number}.txt", f"{name} {number}".encode())
        await self.seal()
        return made.tenant_id

    async def file(self, tenant: UUID, path: str, content: bytes) -> str:
        """Store a file, as an upload does; return its object's key."""

        async def body() -> AsyncIterator[bytes]:
            yield content

        key = new_key(tenant, "files")
        async with self._api() as api:
            async with api.tenant(tenant) as tx:
                await ledger.reserve(tx, key, len(content))
            await self.objects.write(key, body())
            sha256 = hashlib.sha256(content).hexdigest()
            async with api.tenant(tenant) as tx:
                assert await ledger.keep(tx, [key])
                await files.put(tx, NewFile(path, len(content), sha256, "text/plain", key))
        return key

    async def remove(self, tenant: UUID, path: str, key: str) -> None:
        """Remove a file and its object, as retention does in the end."""
        async with self._api() as api, api.tenant(tenant) as tx:
            assert await files.delete(tx, path) is not None
        await self.objects.remove([key])

    async def seal(self) -> None:
        """Seal all logs, as the worker does."""
        async with Database(SecretStr(self.services.worker_url), max_size=1) as worker:
            checkpointer = Checkpointer(
                database=worker, signer=Signer.open(self.folder), age=timedelta(0),
                trusted=TrustedKeys(self.folder), memory=Memory(self.folder),
            )  # fmt: skip
            await checkpointer.sweep()

    def _owner(self) -> Database:
        return Database(self.logins.owner, max_size=1)

    def _api(self) -> Database:
        return Database(SecretStr(self.services.api_url), max_size=1)


@contextmanager
def small(**settings: Any) -> Iterator[Small]:
    """Run PostgreSQL and Redis in a new state folder, in which nothing is installed yet."""
    with state_folder() as folder:
        copy_database(folder, initialised())
        with services(folder, ephemeral=True) as running:
            yield Small(Settings(state_dir=folder, **settings), running)


@contextmanager
def small_copy(of: Path) -> Iterator[Small]:
    """Run a copy of the deployment that is in a state folder, and does not run."""
    with state_folder() as folder:
        subprocess.run(["cp", "--archive", "--sparse=always", f"{of}/.", folder], check=True)
        with services(folder, ephemeral=True) as running:
            yield Small(Settings(state_dir=folder), running)
