"""Artifacts on their way from the sandbox to the object store."""

import mimetypes

from runner.models import Artifact, Claim
from runner.sandbox.sandbox import Collected
from runner.store.executions import StoredArtifact
from runner.store.objects import ObjectStore, ObjectWriter, artifact_key

UNKNOWN = "application/octet-stream"


class ArtifactFiler:
    """Stores each artifact under a number of ours; its path is a fact about it, never a place."""

    def __init__(self, *, objects: ObjectStore, claim: Claim) -> None:
        self._objects = objects
        self._claim = claim
        self._writer: ObjectWriter | None = None
        self._key = ""
        self.filed: list[StoredArtifact] = []

    async def begin(self, path: str) -> None:
        """Open the next object."""
        claim = self._claim
        self._key = artifact_key(
            claim.tenant_id, claim.execution_id, claim.attempt, len(self.filed)
        )
        self._writer = await self._objects.create(self._key)

    async def write(self, chunk: bytes) -> None:
        """Append to it."""
        if self._writer is None:
            raise RuntimeError("write() without begin()")
        await self._writer.write(chunk)

    async def end(self, collected: Collected) -> None:
        """Keep it."""
        if self._writer is None:
            raise RuntimeError("end() without begin()")
        await self._writer.keep()
        self._writer = None
        self.filed.append(
            StoredArtifact(
                artifact=Artifact(
                    path=collected.path,
                    size=collected.size,
                    sha256=collected.sha256,
                    media_type=mimetypes.guess_type(collected.path, strict=True)[0] or UNKNOWN,
                ),
                object_key=self._key,
            )
        )

    async def abort(self) -> None:
        """Drop what was begun and not ended."""
        if self._writer is not None:
            await self._writer.drop()
            self._writer = None
