"""The bytes of objects: in a local folder, or in S3 or a compatible store, by URL.

Objects have random ids of ours below their tenant's prefix; the name that a client gives a file is
in a row of PostgreSQL. Writing is atomic: a reader sees the whole object or none. Only `ledger`
knows which objects should exist, and it knows before the first byte is written.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store, from_url
from pydantic import SecretStr

from runner.base.settings import Settings
from runner.store.unfinished import StagedFiles, Untold, UploadsInParts, Writes
from runner.words.errors import ObjectMissing, SetupError, StoreUnavailable
from runner.words.ids import new_id

CHUNK = 256 * 1024
PART = 5 * 2**20
"""The smallest part that S3 accepts in an upload in parts."""
CONNECT = timedelta(seconds=5)
STALLED = timedelta(seconds=30)
"""How long a store may send nothing while something is awaited of it."""
LONGEST = timedelta(days=1)
"""How long one answer of a store may take as a whole.

The client's own bound of 30 s would cut off a large object that somebody reads slowly.
"""
PARTS_AT_ONCE = 2
"""How many parts an upload may hold in memory."""

Kind = Literal["artifacts", "files", "snapshots", "templates"]


def new_key(tenant_id: UUID, kind: Kind) -> str:
    """Return a new key: overwriting a file and a second attempt both make new objects.

    Only this function composes keys. The tenant comes first, so that a prefix holds everything of
    a tenant. Nobody's names are in it, so that a store need not support them.
    """
    return f"tenants/{tenant_id}/{kind}/{new_id()}"


class ObjectStore:
    """All tenants' objects. Every method raises StoreUnavailable if the store refuses."""

    def __init__(self, store: obstore.store.ObjectStore, writes: Writes) -> None:
        self._store = store
        self._writes = writes

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Return the store that the settings name. Raises SetupError with the setting's name."""
        try:
            return cls(*_store(settings))
        except (BaseError, ValueError) as error:
            # The message may quote the address, and an address may hold a password.
            why = f"no object store can be opened by it ({type(error).__name__})"
            raise SetupError(f"RUNNER_OBJECTS_URL: {why}") from error
        except OSError as error:
            where = "RUNNER_STATE_DIR" if settings.objects_url is None else "RUNNER_OBJECTS_URL"
            why = f"{error.filename or 'the folder'} cannot be used: {error.strerror}"
            raise SetupError(f"{where}: {why}") from error

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store an object. If `chunks` raises, this raises the same, and nothing is stored."""
        try:
            await obstore.put_async(
                self._store, key, chunks, chunk_size=PART, max_concurrency=PARTS_AT_ONCE
            )
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield bytes from `start` up to but not including `end`, or to the last one if None.

        Raises ObjectMissing if there is no such object.
        """
        if end is not None and start >= end:
            return
        options: Any = {} if end is None and start == 0 else {"range": _range(start, end)}
        try:
            found = await obstore.get_async(self._store, key, options=options)
            async for chunk in found.stream(min_chunk_size=CHUNK):
                yield bytes(chunk)
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; it is no error if one does not exist."""
        for key in keys:
            try:
                await obstore.delete_async(self._store, key)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise _unavailable(error) from error

    async def keys(self, tenant_id: UUID) -> AsyncIterator[list[str]]:
        """Yield the keys of all objects of a tenant, some at a time."""
        try:
            async for some in obstore.list(self._store, prefix=f"tenants/{tenant_id}"):
                yield [each["path"] for each in some]
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def holds_anything(self) -> bool:
        """Return whether there is any object, of whichever tenant."""
        try:
            async for some in obstore.list(self._store, prefix="tenants"):
                if some:
                    return True
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return False

    async def older_than(self, age: timedelta) -> AsyncIterator[dict[UUID, list[str]]]:
        """Yield the keys of all objects that are at least this old, some at a time, by tenant.

        Objects that are not below a tenant's prefix are not ours, and are left out.
        """
        before = datetime.now(UTC) - age
        try:
            async for some in obstore.list(self._store, prefix="tenants"):
                found: dict[UUID, list[str]] = {}
                for each in some:
                    tenant_id = _tenant_of(each["path"])
                    if tenant_id is not None and each["last_modified"] < before:
                        found.setdefault(tenant_id, []).append(each["path"])
                yield found
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def end_unfinished(self, age: timedelta, tenant_id: UUID | None = None) -> int:
        """Remove writes that nobody has continued for `age`; return how many."""
        before = datetime.now(UTC) - age
        prefix = f"tenants/{tenant_id}" if tenant_id else "tenants"
        ended = 0
        try:
            for found in await self._writes.below(prefix):
                if found.touched_at <= before:
                    await self._writes.abort(found)
                    ended += 1
        except OSError as error:
            raise _unavailable(error) from error
        return ended

    async def remove_tenant(self, tenant_id: UUID) -> int:
        """Remove every byte of a tenant; return the number of objects and unfinished writes.

        Raises StoreUnavailable if there is something again afterwards: somebody is writing it.
        """
        removed = await self._remove_all(tenant_id)
        if again := await self._remove_all(tenant_id):
            raise StoreUnavailable(
                f"something still writes objects of this tenant ({again} now); try again"
            )
        return removed

    async def _remove_all(self, tenant_id: UUID) -> int:
        removed = await self.end_unfinished(timedelta(0), tenant_id)
        async for some in self.keys(tenant_id):
            await self.remove(some)
            removed += len(some)
        return removed


def _tenant_of(key: str) -> UUID | None:
    match key.split("/"):
        case ["tenants", tenant, _, *_]:
            try:
                return UUID(tenant)
            except ValueError:
                return None
    return None


def _store(settings: Settings) -> tuple[obstore.store.ObjectStore, Writes]:
    url = settings.objects_url
    if url is None:
        # Objects get the umask's permissions, so close their folder to other users.
        settings.objects_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if settings.objects_dir.stat().st_mode & 0o077:
            settings.objects_dir.chmod(0o700)
        local = LocalStore(settings.objects_dir, automatic_cleanup=True)
        return local, StagedFiles(settings.objects_dir)
    if not url.startswith(("s3://", "s3a://")):
        other = from_url(url)
        folder = other.prefix if isinstance(other, LocalStore) else None
        return other, StagedFiles(Path(folder)) if folder is not None else Untold()
    # Short, so that a client learns that the server is away while it still waits.
    retries = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
    bounds = {"connect_timeout": CONNECT, "read_timeout": STALLED, "timeout": LONGEST}
    options: dict[str, Any] = {
        "region": settings.objects_region,
        "retry_config": retries,
        "client_options": bounds,
    }
    if (endpoint := settings.objects_endpoint) is not None:
        options["endpoint"] = endpoint
        options["client_options"] = {**bounds, "allow_http": endpoint.startswith("http://")}
    if settings.objects_access_key is not None:
        options["access_key_id"] = _plain(settings.objects_access_key)
        options["secret_access_key"] = _plain(settings.objects_secret_key)
    return S3Store.from_url(url, **options), UploadsInParts(url, options)


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _range(start: int, end: int | None) -> Any:
    return {"offset": start} if end is None else (start, end)


def _unavailable(error: Exception) -> StoreUnavailable:
    # Its message may hold addresses and keys: the type says enough, and the cause is chained.
    if isinstance(error, FileNotFoundError):
        return ObjectMissing("object store: there is no such object")
    return StoreUnavailable(f"object store: {type(error).__name__}; try again")
