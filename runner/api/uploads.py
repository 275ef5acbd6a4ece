"""One upload to `/v1/files`: reserved, stored as it comes, and only then named."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import HTTPException
from starlette.requests import ClientDisconnect

from runner.api import representation
from runner.api.deps import Dependencies
from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.store import files, ledger
from runner.store.db import Transaction
from runner.store.files import NewFile, StoredFile
from runner.store.objects import new_key
from runner.words.errors import Conflict

UPLOAD_S = 3600.0
"""How long an upload may take: well below what retention takes for an abandoned one."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload: its place is reserved, then its bytes are stored, then it gets its name."""

    parts: Dependencies
    caller: Caller
    path: str
    size: int
    condition: files.Condition
    promised: list[bytes]

    async def reserve(self) -> str:
        """Return the key of an object to write. Raises StorageFull and PreconditionFailed."""
        key = new_key(self.caller.tenant_id, "files")
        async with self.parts.database.tenant(self.caller.tenant_id) as tx:
            files.demand(self.condition, await files.get(tx, self.path))
            await ledger.reserve(tx, key, self.size)
        return key

    async def receive(self, key: str, body: AsyncIterator[bytes]) -> str:
        """Store the body as it comes; return its SHA-256 sum once it is whole and as promised."""
        digest = hashlib.sha256()

        async def hashed() -> AsyncIterator[bytes]:
            async for chunk in body:
                digest.update(chunk)
                yield chunk

        try:
            async with asyncio.timeout(UPLOAD_S):
                await self.parts.objects.write(key, hashed())
        except ClientDisconnect:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the body ended early") from None
        except TimeoutError:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "the body took too long") from None
        if any(promised != digest.digest() for promised in self.promised):
            raise representation.invalid("content-digest", "the body's sha-256 is another one")
        return digest.hexdigest()

    async def keep(self, new: NewFile) -> StoredFile:
        """Give the object its name. Raises PreconditionFailed, or Conflict if it was given up."""
        async with self.parts.database.tenant(self.caller.tenant_id) as tx:
            if not await ledger.keep(tx, [new.object_key]):
                raise Conflict("the upload was given up meanwhile; send it again")
            stored = await files.put(tx, new, self.condition)
            on_record(tx, self.caller, Action.FILE_WRITE, stored)
        return stored

    async def give_up(self, key: str) -> None:
        """Free its place."""
        async with self.parts.database.tenant(self.caller.tenant_id) as tx:
            await ledger.give_up(tx, key)


def on_record(tx: Transaction, caller: Caller, action: Action, stored: StoredFile) -> None:
    """Put on record what a caller did with a file."""
    facts = {"size": stored.size, "sha256": stored.sha256}
    caller.record(tx, action, "file", stored.path, facts)
