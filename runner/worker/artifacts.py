"""Artifacts on their way from the sandbox to the object store."""

import hashlib
import mimetypes
from collections.abc import AsyncIterator

from runner.masking import Masker
from runner.models import Artifact, Claim
from runner.store.executions import StoredArtifact
from runner.store.objects import ObjectStore, artifact_key

UNKNOWN = "application/octet-stream"


class ArtifactFiler:
    """Stores each artifact under a number of ours; its path is a fact about it, never a place."""

    def __init__(
        self, *, objects: ObjectStore, claim: Claim, filed: list[StoredArtifact], masker: Masker
    ) -> None:
        self._objects = objects
        self._masker = masker
        self._claim = claim
        self._filed = filed

    async def add(self, path: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Store one file of exactly `size` bytes, secrets starred, or nothing of it."""
        claim = self._claim
        key = artifact_key(claim.tenant_id, claim.execution_id, claim.attempt, len(self._filed))
        digest = hashlib.sha256()
        writer = await self._objects.create(key)
        try:
            async for chunk in self._masked(chunks):
                digest.update(chunk)
                await writer.write(chunk)
            await writer.keep()
        except BaseException:
            await writer.drop()
            raise
        self._filed.append(
            StoredArtifact(
                artifact=Artifact(
                    path=self._name(path),
                    size=size,
                    sha256=digest.hexdigest(),
                    media_type=mimetypes.guess_type(path, strict=True)[0] or UNKNOWN,
                ),
                object_key=key,
            )
        )

    def _name(self, path: str) -> str:
        """Return the path, which may hold a secret as well as any text; still one of its own."""
        name = self._masker.text(path)
        taken = {each.artifact.path for each in self._filed}
        return name if name not in taken else f"{name}~{len(taken)}"

    async def _masked(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        mask = self._masker.stream()
        async for chunk in chunks:
            yield mask.feed(chunk)
        yield mask.rest()
