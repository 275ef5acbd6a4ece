"""Begins sandboxes: claims their rows, has them furnished, and puts on record that they live.

A plain sandbox is made ready before its row is stored: a container that lives and is nobody's. One
statement then claims and starts the row, if it asks for just that. If making it ready fails, the
ordinary way is tried, which writes down why a sandbox did not start.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog

from runner.audit import events as audit
from runner.base.tasks import uninterrupted
from runner.node.residents.furnish import Furnished, Furnisher, residence_facts
from runner.node.residents.journal import Journal, sandbox_event
from runner.node.runs.policy import ExecutionPolicy
from runner.node.starvation import starved
from runner.sandbox.guest.living import LivingSandbox
from runner.store import nodes, residents
from runner.store.db import Database
from runner.store.residents import SandboxHold
from runner.words.errors import LeaseLost, NodeAway, RunnerError, SandboxEnded
from runner.words.execution import JSON
from runner.words.lives import EndReason
from runner.words.living import StoredSandbox
from runner.words.nodes import NodeState
from runner.words.sandbox import SandboxSpec

_log = structlog.get_logger("runner.worker")


class MadeAhead:
    """A sandbox that is being made ready, and that no row has yet."""

    def __init__(self, spec: SandboxSpec, making: asyncio.Task[LivingSandbox]) -> None:
        self.spec = spec
        self._making = making
        self.taken = False
        """Whether a row is to have it; otherwise it is removed."""

    async def guest(self) -> LivingSandbox | None:
        """Return it once it is ready; None if it could not be made."""
        try:
            return await self._making
        except (RunnerError, OSError) as error:
            _log.warning("sandbox_not_made_ahead", error=str(error))
            return None


@dataclass(frozen=True, slots=True)
class BegunSandbox:
    """A sandbox that takes commands, and that this process holds."""

    hold: SandboxHold
    sandbox: StoredSandbox
    started_at: datetime
    furnished: Furnished


@dataclass(frozen=True, slots=True)
class Beginnings:
    """Begins the sandboxes of one node."""

    database: Database
    furnisher: Furnisher
    journal: Journal
    policy: ExecutionPolicy
    end_row: Callable[[SandboxHold, EndReason, str], Awaitable[None]]
    """Writes how one ended that did not begin."""

    @asynccontextmanager
    async def ahead(self, tenant_id: UUID, spec: SandboxSpec) -> AsyncIterator[MadeAhead]:
        """Make one ready for the context. It is removed unless it is taken by the end."""
        made = MadeAhead(spec, asyncio.create_task(self.furnisher.ahead(tenant_id, spec)))
        try:
            yield made
        finally:
            if not made.taken:
                await uninterrupted(self._give_up(made))

    async def _give_up(self, made: MadeAhead) -> None:
        guest = await made.guest()
        if guest is not None:
            await self.furnisher.remove(guest)

    async def begin(
        self, tenant_id: UUID, sandbox_id: UUID, ahead: MadeAhead | None = None
    ) -> BegunSandbox:
        """Make the sandbox of this row live. If it fails, its row says why.

        Raises SandboxEnded if there is no such row, or it was ended meanwhile.
        """
        hold = SandboxHold(tenant_id, sandbox_id, self.policy.instance)
        guest = None if ahead is None else await ahead.guest()
        if ahead is not None and guest is not None:
            return await self._at_once(hold, ahead.spec, guest)
        sandbox = await self._claim(hold)
        try:
            furnished = await self.furnisher.new(hold, sandbox)
        except BaseException as error:
            await self._failed(hold, error)
            raise
        try:
            started_at = await self._record(hold, furnished.guest)
        except BaseException as error:
            await uninterrupted(furnished.closing.aclose())
            await uninterrupted(self.furnisher.remove(furnished.guest))
            await self._failed(hold, error)
            if isinstance(error, LeaseLost):
                raise SandboxEnded("it was ended before it lived") from error
            raise
        self.journal.announce(sandbox_id)
        return BegunSandbox(hold, sandbox, started_at, furnished)

    async def _at_once(
        self, hold: SandboxHold, spec: SandboxSpec, guest: LivingSandbox
    ) -> BegunSandbox:
        """Claim and start the row for a sandbox that was made ahead."""
        try:
            async with self.database.single(hold.tenant_id) as tx:
                sandbox, started_at = await residents.begin(
                    tx,
                    hold,
                    spec,
                    residence_facts(guest),
                    node=self.policy.node,
                    lease=self.policy.lease,
                    cpu_s=guest.container.counters().cpu_s,
                    record=self._started(hold, guest),
                )
            furnished = await self.furnisher.own(hold, sandbox, guest)
        except BaseException as error:
            await uninterrupted(self.furnisher.remove(guest))
            if isinstance(error, LeaseLost):
                raise await self._refused(error) from error
            # PostgreSQL may have stored it before it went away.
            await self._failed(hold, error)
            raise
        self.journal.announce(hold.sandbox_id)
        return BegunSandbox(hold, sandbox, started_at, furnished)

    async def _claim(self, hold: SandboxHold) -> StoredSandbox:
        policy = self.policy
        try:
            async with self.database.single(hold.tenant_id) as tx:
                return await residents.claim(
                    tx,
                    hold.sandbox_id,
                    node=policy.node,
                    instance=policy.instance,
                    lease=policy.lease,
                )
        except LeaseLost as error:
            raise await self._refused(error) from error

    async def _refused(self, error: LeaseLost) -> RunnerError:
        """Return why a row was not claimed: this node drains, or the row waits for no node."""
        async with self.database.statements() as tx:
            found = await nodes.get(tx, self.policy.node)
        if found is not None and (found.draining or found.state is NodeState.REMOVED):
            return NodeAway("this node drains, and takes nothing new")
        return SandboxEnded(error.detail)

    async def _record(self, hold: SandboxHold, guest: LivingSandbox) -> datetime:
        """Write that it takes commands; return since when."""
        async with self.database.single(hold.tenant_id) as tx:
            return await residents.start(
                tx,
                hold,
                residence_facts(guest),
                cpu_s=guest.container.counters().cpu_s,
                record=self._started(hold, guest),
            )

    def _started(self, hold: SandboxHold, guest: LivingSandbox) -> str:
        """Return the audit record of its start."""
        residence = guest.residence
        facts: dict[str, JSON] = {
            "node": self.policy.node,
            "sandbox": residence.sandbox_id,
            "image_digest": residence.image_digest,
            "profile_hash": residence.profile_hash,
        }
        event = sandbox_event(audit.Action.SANDBOX_START, hold.sandbox_id, facts)
        return audit.body(hold.tenant_id, event)

    async def _failed(self, hold: SandboxHold, error: BaseException) -> None:
        """Write why it did not start; if it was asked to stop meanwhile, it was killed."""
        reason, detail = EndReason.START_FAILED, "the node failed"
        if isinstance(error, LeaseLost):
            reason, detail = EndReason.KILLED, "killed before it lived"
        elif isinstance(error, RunnerError):
            detail = error.detail
        elif not isinstance(error, asyncio.CancelledError):
            _log.error("sandbox_not_made", sandbox=str(hold.sandbox_id), exc_info=error)
            if (short := starved(error)) is not None:
                detail = short.detail
        await self.end_row(hold, reason, detail)
