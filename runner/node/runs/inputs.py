"""Copies input files from the request and the object store to the sandbox."""

import hashlib
from collections.abc import AsyncIterator, Sequence

from runner.sandbox.guest.sandbox import Sandbox
from runner.store.objects import ObjectStore
from runner.words.errors import ProtocolViolation, SandboxFault, StoreUnavailable
from runner.words.execution import InputFile, Result, StoredObject, never_ran
from runner.words.states import Reason, State


async def upload(
    sandbox: Sandbox, files: Sequence[InputFile], objects: ObjectStore
) -> Result | None:
    """Place the input files; if they do not fit, return the execution's result.

    Raises StoreUnavailable if the object store does not return what was stored.
    """

    async def read(stored: StoredObject) -> AsyncIterator[bytes]:
        digest = hashlib.sha256()
        size = 0
        async for chunk in objects.read(stored.object_key):
            digest.update(chunk)
            size += len(chunk)
            if size > stored.size:
                break
            yield chunk
        if (size, digest.hexdigest()) != (stored.size, stored.sha256):
            raise StoreUnavailable("object store: an input file is not what was stored")

    try:
        await sandbox.upload(files, read)
    except ProtocolViolation:
        raise
    except SandboxFault as error:
        return never_ran(State.FAILED, Reason.COMMAND_NOT_STARTED, error.detail)
    return None
