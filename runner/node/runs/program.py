"""Runs an attempt's program in its sandbox: gives it its inputs, and collects what it leaves.

place files → connect to the egress proxy → run, recording output → collect artifacts.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import structlog

from runner.audit import events as audit
from runner.base.masking import Masker
from runner.node.runs.actor import SandboxUser
from runner.node.runs.artifacts import ArtifactFiler
from runner.node.runs.attempt import Attempt
from runner.node.runs.egress import Egress
from runner.node.runs.inputs import upload
from runner.node.runs.output import cut_off
from runner.node.runs.policy import ExecutionPolicy
from runner.node.runs.recorder import until_stored
from runner.node.runs.secrets import Secrets
from runner.node.runs.settle import began, not_started
from runner.node.runs.start import Start
from runner.queue.changes import Changes
from runner.sandbox.guest.artifacts import NOTHING, CollectedFiles
from runner.sandbox.guest.outcome import classify, result_of
from runner.sandbox.guest.process import RunTerms, RunWatch
from runner.sandbox.guest.sandbox import Sandbox
from runner.store import attempts, quotas
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.words.errors import Invalid, KeyUnavailable, SandboxFault
from runner.words.execution import Claim, Program, Result, never_ran
from runner.words.states import Reason, State

_log = structlog.get_logger("runner.worker")


class Programs:
    """Runs programs, and gives them their files, secrets and egress."""

    def __init__(
        self,
        *,
        database: Database,
        changes: Changes,
        objects: ObjectStore,
        secrets: Secrets,
        egress: Egress,
        policy: ExecutionPolicy,
    ) -> None:
        self._database = database
        self._changes = changes
        self._objects = objects
        self._secrets = secrets
        self._egress = egress
        self._policy = policy

    async def run(self, attempt: Attempt, sandbox: Sandbox, cancel: asyncio.Event) -> Result:
        """Run the program to its end, and return its result.

        Raises SandboxFault if the sandbox fails before the program began, and any error that
        prevents recording its start.
        """
        claim, request, recorder = attempt.claim, attempt.request, attempt.recorder

        start = attempt.start = Start(
            lambda: audit.body(
                claim.tenant_id,
                began(claim, self._policy.node, sandbox, from_stock=attempt.from_stock),
            )
        )

        async def record_start() -> None:
            seq = await until_stored(
                lambda: attempts.start(self._database, claim, self._policy.lease, start.begun())
            )
            recorder.begin(seq)
            self._changes.announce(claim.execution_id)

        try:
            secret_env = await self._secrets.environment(
                SandboxUser.of(claim), request.run.secret_env
            )
            await recorder.hide(secret_env.values())
            if (refusal := await upload(sandbox, request.run.files, self._objects)) is not None:
                return refusal
            left = await until_stored(lambda: self._egress_left(claim)) if request.egress else 0
            async with (
                self._egress.open(
                    SandboxUser.of(claim), request.egress, sandbox, recorder, left
                ) as way_out,
                start.recorded(record_start, ahead=bool(request.egress)),
            ):
                attempt.way_out = way_out
                # Mask it first: the sentence cuts it short, and half a secret is not found.
                command = await recorder.masker.text_aside(request.run.program.argv[0])
                ending = await sandbox.run(
                    _reaching(request.run.program, {**way_out.environment, **secret_env}),
                    RunTerms(request.run.bounds, self._policy.flood_bytes),
                    RunWatch(start.begin, recorder.add, cancel),
                    bridge=way_out.bridge,
                )
                verdict = classify(replace(ending, command=command))
                attempt.ended(result_of(ending, verdict, sandbox, NOTHING))
            again = request.reuse and not ending.oom_killed
            collected = await self._collect(attempt, sandbox, again=again)
            result = result_of(ending, verdict, sandbox, collected)
        except Invalid as error:
            result = never_ran(State.FAILED, _REFUSALS[error.field], error.detail)
        except KeyUnavailable as error:
            _log.warning("secrets_not_opened", execution=str(claim.execution_id), why=error.detail)
            result = not_started(error)
        except SandboxFault as error:
            if not attempt.begun:
                raise
            # The sandbox's figures are missing or cannot be trusted; use those of the clock.
            result = never_ran(State.SYSTEM_ERROR, Reason.SANDBOX_PROTOCOL, error.detail)
            result = replace(result, usage=attempt.used())
        await recorder.close(cut=cut_off(result))
        result = recorder.settled(result)
        attempt.result = _masked(replace(result, egress=attempt.way_out.usage), recorder.masker)
        return attempt.result

    async def _collect(self, attempt: Attempt, sandbox: Sandbox, *, again: bool) -> CollectedFiles:
        request = attempt.request
        filer = ArtifactFiler(
            database=self._database,
            objects=self._objects,
            claim=attempt.claim,
            filed=attempt.artifacts,
            masker=attempt.recorder.masker,
            file_prefix=request.artifacts_to,
        )
        collected = await sandbox.collect(
            names=request.run.artifacts,
            max_files=self._policy.max_artifacts,
            max_bytes=request.sandbox.resources.disk_mb * 2**20,
            sink=filer,
            again=again,
            masker=attempt.recorder.masker,
        )
        return replace(collected, refused=(*collected.refused, *filer.refused))

    async def _egress_left(self, claim: Claim) -> int:
        async with self._database.tenant(claim.tenant_id) as tx:
            return (await quotas.standing_of_runs(tx)).egress_left


_REFUSALS = {"egress": Reason.EGRESS_NOT_OPENED, "secret_env": Reason.SECRET_UNAVAILABLE}


def _reaching(program: Program, environment: Mapping[str, str]) -> Program:
    """Return the program with the proxy in its environment; its own variables win."""
    return replace(program, env={**environment, **program.env})


def _masked(result: Result, masker: Masker) -> Result:
    refused = tuple(map(masker.text, result.artifacts_refused))
    return replace(result, detail=masker.text(result.detail), artifacts_refused=refused)
