"""Copies artifacts from the sandbox to the object store."""

import hashlib
import mimetypes
from collections.abc import AsyncIterator, Sequence

import structlog

from runner.audit import events as audit
from runner.base.masking import Masker
from runner.base.tasks import aside, uninterrupted
from runner.node.runs.recorder import until_stored
from runner.store import files, ledger
from runner.store.db import Database
from runner.store.executions import StoredArtifact
from runner.store.files import NewFile
from runner.store.objects import ObjectStore, new_key
from runner.store.transaction import Transaction
from runner.words.errors import RunnerError, StorageFull, StoreUnavailable
from runner.words.execution import Artifact, Claim
from runner.words.paths import file_path

UNKNOWN = "application/octet-stream"
_log = structlog.get_logger("runner.worker")
_PIECE = 256 * 1024
_HASHED_INLINE = 32 * 1024


class ArtifactFiler:
    """Stores each artifact under an id of ours; its path is a stored fact, never a location.

    `refused` names the files that were not kept or did not become stored files, and says why.
    """

    def __init__(
        self,
        *,
        database: Database,
        objects: ObjectStore,
        claim: Claim,
        filed: list[StoredArtifact],
        masker: Masker,
        file_prefix: str | None,
    ) -> None:
        self._database = database
        self._objects = objects
        self._claim = claim
        self._filed = filed
        self._masker = masker
        self._file_prefix = file_prefix
        self._away: StoreUnavailable | None = None
        self._taken: set[str] = set()
        self.refused: list[str] = []

    async def add(self, path: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Store one file of exactly `size` bytes with its secrets masked, or nothing of it.

        If the store refuses the file, it is added to `refused` and the next files are not tried:
        the program has run, and its result does not wait for the store.
        """
        if self._away is not None:
            await self._refuse(path, self._away, chunks)
            return
        key = new_key(self._claim.tenant_id, "artifacts")
        try:
            await until_stored(lambda: self._reserve(key, size))
            sha256 = await self._store(key, chunks)
        except StoreUnavailable as error:
            self._away = error
            await self._refuse(path, error, chunks)
            return
        except StorageFull as error:
            await self._refuse(path, error, chunks)
            return
        name = self._name(path)
        self._filed.append(
            StoredArtifact(
                artifact=Artifact(
                    path=name,
                    size=size,
                    sha256=sha256,
                    media_type=mimetypes.guess_type(path, strict=True)[0] or UNKNOWN,
                ),
                object_key=key,
                file_path=self._file_path(name),
            )
        )

    async def _store(self, key: str, chunks: AsyncIterator[bytes]) -> str:
        """Store the bytes and return their SHA-256 sum; on any failure, free their space."""
        digest = hashlib.sha256()

        async def written() -> AsyncIterator[bytes]:
            async for chunk in self._masked(chunks):
                await aside(digest.update, chunk, inline=_HASHED_INLINE)
                yield chunk

        try:
            await self._objects.write(key, written())
        except BaseException:
            try:
                await uninterrupted(self._give_up(key))
            except StoreUnavailable as error:
                # Raise the first failure, such as a cancellation; a sweep frees the space.
                _log.warning("room_left_to_sweep", key=key, error=error.detail)
            raise
        return digest.hexdigest()

    async def _refuse(self, path: str, error: RunnerError, chunks: AsyncIterator[bytes]) -> None:
        self.refused.append(f"{path}: {error.detail}")
        async for _ in chunks:
            pass

    def _name(self, path: str) -> str:
        """Return the path with secrets masked, and a number if it now equals an earlier one."""
        name = masked = self._masker.text(path)
        number = 0
        while name in self._taken:
            number += 1
            name = f"{masked}~{number}"
        self._taken.add(name)
        return name

    def _file_path(self, name: str) -> str | None:
        """Return the name of the stored file that it becomes, or None if it becomes none."""
        if self._file_prefix is None:
            return None
        try:
            return file_path(self._file_prefix + name)
        except ValueError as error:
            self.refused.append(f"{name}: an artifact, and no file: its name {error}")
            return None

    async def _masked(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        mask = self._masker.stream()
        async for chunk in _gathered(chunks):
            yield await mask.feed_aside(chunk)
        yield mask.rest()

    async def _reserve(self, key: str, size: int) -> None:
        async with self._database.tenant(self._claim.tenant_id) as tx:
            await ledger.reserve(tx, key, size)

    async def _give_up(self, key: str) -> None:
        async with self._database.tenant(self._claim.tenant_id) as tx:
            await ledger.give_up(tx, key)


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same bytes in larger pieces, because a sandbox decides how small its pieces are."""
    piece = bytearray()
    async for chunk in chunks:
        piece += chunk
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


async def make_files(tx: Transaction, claim: Claim, artifacts: Sequence[StoredArtifact]) -> None:
    """Make the artifacts that have a file name stored files, which refer to the same bytes."""
    for stored in artifacts:
        if stored.file_path is None:
            continue
        artifact = stored.artifact
        new = NewFile(
            path=stored.file_path,
            size=artifact.size,
            sha256=artifact.sha256,
            media_type=artifact.media_type,
            object_key=stored.object_key,
        )
        await files.put(tx, new)
        event = audit.AuditEvent(
            actor="system:worker",
            action=audit.Action.FILE_WRITE,
            outcome=audit.Outcome.SUCCESS,
            resource_type="file",
            resource_id=new.path,
            metadata={
                "size": new.size,
                "sha256": new.sha256,
                "execution": str(claim.execution_id),
            },
        )
        audit.append(tx, claim.tenant_id, event)
