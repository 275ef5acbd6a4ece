"""Writes the end of an attempt whose program ran: all of it if possible, otherwise less.

After a failure of ours, a program that is known to have run does not run again, and its use is
charged. So there is always something to write, down to the bare fact of its end. Each of these
endings is repeated for a bounded time only, so that no result holds its slot for ever.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from runner.audit import events as audit
from runner.base.signing import Signer
from runner.executions.notices import EndNotice, EndNotices
from runner.node.runs.artifacts import make_files
from runner.node.runs.attempt import Attempt
from runner.node.runs.recorder import AWAY_S, until_stored
from runner.node.runs.settle import ended, put_on_record
from runner.node.runs.start import Start
from runner.queue.changes import Changes, News
from runner.store import attempts, ledger, scheduling
from runner.store.attempts import Begun, Rest, Times, output_of
from runner.store.db import Database
from runner.store.executions import StoredArtifact
from runner.store.transaction import Transaction
from runner.words.errors import LeaseLost
from runner.words.execution import Claim, Result, Stream
from runner.words.states import Reason, State

LEAST_PATIENCE_S = 15.0
"""For how long each lesser ending is tried, after the time for the complete one is over."""
_NOT_KEPT = "not stored because of a fault of ours; the operator's log has the details"


@dataclass(frozen=True, slots=True)
class _Ending:
    """A result to write, and what to write with it."""

    result: Result
    artifacts: Sequence[StoredArtifact]
    rest: Rest = field(default_factory=Rest)
    audited: Sequence[audit.AuditEvent] = ()
    hashes: Mapping[Stream, str] = field(default_factory=dict)
    signed: bool = True
    is_whole: bool = False
    """Whether the rest holds all output of the attempt."""

    def notice(self, attempt: int, times: Times) -> EndNotice | None:
        """Return what an API needs that waits for it; None if this is not all of it.

        PostgreSQL decides in which order it reads several artifacts.
        """
        if not self.is_whole or len(self.artifacts) > 1:
            return None
        left = tuple(each.artifact for each in self.artifacts)
        return EndNotice(attempt, times, self.result, output_of(self.rest.entries), left)


@dataclass(frozen=True, slots=True)
class _Written:
    """An end that is stored."""

    more: bool
    """Whether another execution can be claimed now."""
    notice: bytes | None = None


class Finisher:
    """Writes results, each with its artifacts, its records and its receipt in one transaction."""

    def __init__(
        self,
        *,
        database: Database,
        changes: Changes,
        notices: EndNotices,
        signer: Signer,
        node: str,
    ) -> None:
        self._database = database
        self._notices = notices
        self._changes = changes
        self._signer = signer
        self._node = node
        self._log = structlog.get_logger("runner.worker")

    async def finish(self, attempt: Attempt, result: Result) -> bool:
        """Write the result; return whether another execution can be claimed now.

        Raises LeaseLost, or the failure if even the least could not be written.
        """
        fault: Exception | None = None
        until = time.monotonic() + AWAY_S
        for ending in _endings(attempt, result):
            try:
                written = await until_stored(
                    partial(self._write, attempt, ending),
                    patience_s=max(until - time.monotonic(), LEAST_PATIENCE_S),
                )
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001 - told, and less is tried; raised at the end
                self._log.exception(
                    "result_not_stored",
                    tenant=str(attempt.claim.tenant_id),
                    execution=str(attempt.claim.execution_id),
                )
                fault = error
            else:
                self._changes.announce(
                    attempt.claim.execution_id, News.ENDED, notice=written.notice
                )
                return written.more
        raise fault or RuntimeError("there was nothing to write")

    async def _write(self, attempt: Attempt, ending: _Ending) -> _Written:
        claim, result = attempt.claim, ending.result
        notice: EndNotice | None = None
        attempt.tries += 1
        async with self._database.tenant(claim.tenant_id) as tx:
            if attempt.tries > 1 and await attempts.is_finished_with(tx, claim, result):
                return _Written(more=True)
            begun = await _unrecorded(tx, claim, attempt.start)
            finishing = await attempts.finish_with(
                tx, claim, result, ending.artifacts, ending.rest, begun
            )
            for event in ending.audited:
                audit.append(tx, claim.tenant_id, event)
            await make_files(tx, claim, ending.artifacts)
            await _give_up(tx, attempt.artifacts, ending.artifacts)
            if ending.signed:
                kept = [each.artifact for each in ending.artifacts]
                ran = attempt.ran(self._node, ending.hashes)
                times = await put_on_record(
                    tx, self._signer, claim, attempt.request, result, kept, ran, finishing
                )
                notice = ending.notice(claim.attempt, times)
            else:
                audit.append(tx, claim.tenant_id, ended(claim, result))
                await tx.flush()
                await finishing.times()
            claimable = scheduling.claimable_afterwards(tx)
        sealed = notice and self._notices.sealed(claim.tenant_id, claim.execution_id, notice)
        return _Written(await claimable(), sealed or None)


def _endings(attempt: Attempt, result: Result) -> Iterator[_Ending]:
    """Yield what to try to write: everything (twice, as a fault may pass), then less and less."""
    recorder = attempt.recorder
    whole = _Ending(
        result,
        tuple(attempt.artifacts),
        recorder.rest,
        recorder.rest_audited,
        recorder.hashes(),
        is_whole=recorder.is_whole,
    )
    yield whole
    yield whole
    if whole.artifacts:
        refused = tuple(f"{each.artifact.path}: {_NOT_KEPT}" for each in whole.artifacts)
        yield replace(
            whole,
            result=replace(result, artifacts_refused=(*result.artifacts_refused, *refused)),
            artifacts=(),
        )
    bare = _Ending(
        replace(
            result,
            state=State.SYSTEM_ERROR,
            reason=Reason.RESULT_NOT_STORED,
            detail=f"the program ended ({result.state}, {result.reason}), and the rest of its "
            f"output and what it left were {_NOT_KEPT}",
            artifacts_refused=(),
        ),
        (),
        audited=whole.audited,
    )
    yield bare
    yield replace(bare, audited=(), signed=False)


async def _unrecorded(tx: Transaction, claim: Claim, start: Start | None) -> Begun | None:
    """Return the start to write together with the end; None if it is recorded or there is none.

    If recording a start was cancelled, it may be stored all the same. That start is this attempt's
    own, but writing it again with the end would be refused as if it were another attempt's.
    """
    if start is None:
        return None
    if start.doubtful and await attempts.is_running(tx, claim):
        start.found()
    return start.unrecorded()


async def _give_up(
    tx: Transaction, stored: Sequence[StoredArtifact], kept: Sequence[StoredArtifact]
) -> None:
    """Free the space of artifacts that were stored and are not kept."""
    for each in stored if not kept else ():
        await ledger.give_up(tx, each.object_key)
