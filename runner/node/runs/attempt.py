"""The state of one attempt at an execution, and what is known of its end."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from runner.node.runs.egress import WayOut
from runner.node.runs.recorder import Recorder
from runner.node.runs.settle import EXPLANATIONS
from runner.node.runs.start import Start
from runner.receipts.document import Ran
from runner.sandbox.guest.sandbox import Sandbox
from runner.store.executions import StoredArtifact
from runner.words.execution import Claim, ExecutionRequest, Result, Stream, Usage, never_ran
from runner.words.explanation import Source
from runner.words.states import Reason, State

NOT_COLLECTED = "the files that it left were not collected completely"


@dataclass(slots=True)
class StageTimes:
    """When the stages of an attempt were over, on this process's monotonic clock; None: not yet."""

    asked: float = field(default_factory=time.monotonic)
    """When an execution was asked for; the claim was over at `claimed`."""
    claimed: float = field(default_factory=time.monotonic)
    sandbox: float | None = None
    """When it got its sandbox. When the program began: `Attempt.start`."""
    run: float | None = None
    """When the program had ended."""
    collected: float | None = None
    """When all but the writing of its result was done."""
    finished: float | None = None
    """When its result and receipt were stored."""


@dataclass(slots=True)
class Attempt:
    """One attempt. `result` is set from the moment at which the program has ended."""

    claim: Claim
    request: ExecutionRequest
    recorder: Recorder
    times: StageTimes = field(default_factory=StageTimes)
    artifacts: list[StoredArtifact] = field(default_factory=list)
    sandbox: Sandbox | None = None
    runs_before: int = 0
    from_stock: bool = False
    """Whether its sandbox was started before the execution was claimed."""
    way_out: WayOut = field(default_factory=WayOut)
    start: Start | None = None
    result: Result | None = None
    settled: Result | None = None
    """The result that is written, also of a program that never began."""
    tries: int = 0
    """How often writing its result was tried."""

    @property
    def begun(self) -> bool:
        """Whether the program has begun, or is recorded as begun."""
        return self.start is not None and self.start.at is not None

    @property
    def source(self) -> Source:
        """The origin of its sandbox."""
        if self.runs_before:
            return "reused"
        return "stock" if self.from_stock else "fresh"

    def ended(self, result: Result) -> None:
        """Note how the program ended, before anything is done with the files that it left.

        No later failure makes it run again or leaves its use uncounted.
        """
        self.times.run = time.monotonic()
        self.result = replace(result, artifacts_refused=(NOT_COLLECTED,))

    def ran(self, node: str, hashes: Mapping[Stream, str]) -> Ran:
        """Return the facts of the run for its receipt; `hashes` are those of its output."""
        return Ran(
            node=node,
            sandbox=self.sandbox.id if self.sandbox else None,
            isolation=self.sandbox.container.isolation if self.sandbox else None,
            egress_policy_hash=self.way_out.policy_hash,
            output_hashes=hashes,
            runs_before=self.runs_before,
        )

    def used(self) -> Usage:
        """Return what the program used; while it runs, only this process's clock says."""
        if self.result is not None:
            return self.result.usage
        began = self.start.at if self.start else None
        return Usage(wall_s=0.0 if began is None else round(time.monotonic() - began, 6))

    def broken_off(self, reason: Reason) -> Result | None:
        """Return the result of an attempt that cannot continue; None if it has none.

        A program that has ended keeps its own result. If the program was running when the worker
        failed, but the worker is alive, it is charged for its use and does not run again: the same
        cause would make the worker fail again.
        """
        if self.result is not None:
            return replace(self.result, egress=self.result.egress or self.way_out.usage)
        if reason is not Reason.INTERNAL or not self.begun:
            return None
        result = never_ran(State.SYSTEM_ERROR, reason, EXPLANATIONS[reason])
        return replace(result, usage=self.used(), egress=self.way_out.usage)
