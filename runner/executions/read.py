"""Reads executions: with the place in the queue while waiting, with the output once ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from runner.auth.caller import Caller
from runner.store import executions
from runner.store.db import Database
from runner.store.executions import ExecutionQuery, Place, StoredArtifact
from runner.store.transaction import Transaction
from runner.words.errors import NotFound
from runner.words.execution import Artifact, Execution, StoredOutput, Stream
from runner.words.states import ENDED, State

NO_EXECUTION = "no such execution"


@dataclass(frozen=True, slots=True)
class Seen:
    """An execution as it was read. None means not asked for, or not there."""

    execution: Execution
    place: Place | None = None
    output: Mapping[Stream, StoredOutput] | None = None
    artifacts: Sequence[Artifact] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, so that nothing of it changes any more."""
        return self.execution.state in ENDED


async def list_newest(tx: Transaction, wanted: ExecutionQuery) -> Sequence[Execution]:
    """Return the wanted executions, newest first."""
    return await executions.list_newest(tx, wanted)


async def find(tx: Transaction, execution_id: UUID) -> Execution:
    """Return an execution without its output and artifacts. Raises NotFound."""
    found = await executions.get(tx, execution_id)
    if found is None:
        raise NotFound(NO_EXECUTION)
    return found


async def artifacts(tx: Transaction, execution_id: UUID) -> Sequence[StoredArtifact]:
    """Return the files that the program left, by path. Raises NotFound for the execution."""
    await find(tx, execution_id)
    return await executions.artifacts(tx, execution_id)


async def artifact(tx: Transaction, execution_id: UUID, path: str) -> StoredArtifact:
    """Return one file that the program left. Raises NotFound."""
    found = None if "\0" in path else await executions.artifact(tx, execution_id, path)
    if found is None:
        raise NotFound("no such artifact")
    return found


async def read(database: Database, caller: Caller, execution_id: UUID) -> Seen:
    """Return an execution with everything that belongs to it. Raises NotFound."""
    found = await executions.whole(database, caller.tenant_id, execution_id)
    if found is None:
        raise NotFound(NO_EXECUTION)
    execution = found.execution
    if execution.state is State.QUEUED:
        async with database.tenant(caller.tenant_id) as tx:
            return Seen(execution, place=await executions.queue_place(tx, execution_id))
    if execution.state not in ENDED:
        return Seen(execution)
    left = [each.artifact for each in found.artifacts]
    return Seen(execution, output=found.output, artifacts=left)
