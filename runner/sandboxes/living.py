"""Sandboxes that live: made, read, listed, changed, paused, resumed and killed."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias
from uuid import UUID

import structlog

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.base.tasks import uninterrupted
from runner.door.client import Door
from runner.fleet.directory import NodeDirectory
from runner.quotas.standing import resume_refusal, sandbox_refusal
from runner.sandboxes.catalogue import Catalogue, policy_in
from runner.sandboxes.egress import EgressOrder, not_in_force, rules_in_place
from runner.sandboxes.order import LivingOrder, resolve_sandbox
from runner.sandboxes.place import KIND, NO_SANDBOX, SandboxPlaces, ended, knock_to, took_commands
from runner.sandboxes.starting import SandboxStart
from runner.sandboxes.startup import begin
from runner.sandboxes.use import Using
from runner.store import quotas, sandboxes
from runner.store.db import Database
from runner.store.idempotency import KeyUse, Once
from runner.store.sandboxes import LifeChange, SandboxListing
from runner.words.errors import (
    NodeAway,
    NotFound,
    NotReady,
    QuotaExceeded,
    RunnerError,
    SandboxEnded,
    SandboxFault,
)
from runner.words.ids import new_id
from runner.words.lives import EndReason, Life
from runner.words.living import StoredSandbox

Fill: TypeAlias = Callable[[UUID], Awaitable[None]]
"""Puts files in a sandbox that has just been made."""
_log = structlog.get_logger("runner.api")


@dataclass(frozen=True, slots=True)
class _Repeated:
    """A request whose idempotency key was used before."""

    once: Once
    used: KeyUse


@dataclass(frozen=True, slots=True)
class LivingSandboxes:
    """Use cases on sandboxes that live. The row is the truth; the door makes the node follow it."""

    database: Database
    door: Door
    places: SandboxPlaces
    catalogue: Catalogue
    nodes: NodeDirectory

    async def create(
        self,
        caller: Caller,
        order: LivingOrder,
        *,
        once: Once | None = None,
        fill: Fill | None = None,
        id_: UUID | None = None,
    ) -> StoredSandbox:
        """Make a sandbox, and return it once it takes commands and `fill` has put files in it.

        It has the id `id_`, if there is one.

        If the idempotency key was used before, returns the earlier sandbox as it is. Raises
        NodeAway while that one is still starting or being filled, and Conflict if the key belongs
        to another request. Raises Invalid, QuotaExceeded, and NotReady if the sandbox does not
        start, or StartupFailed if its template's commands do not begin: its row then ends as
        `start_failed`.

        If this fails or is cancelled, nothing of the sandbox lives on, and its key is free again.
        """
        new = id_ or new_id()
        async with SandboxStart(self.database, self.door, self.nodes, caller, new) as start:
            filling = fill is not None
            accepted = await self._accept(start, order, once, filling=filling)
            if not isinstance(accepted, _Repeated):
                return await self._made(start, accepted, once, fill)
        once, used = accepted.once, accepted.used
        earlier = await self.read(caller, await once.require_same(used, used.sandbox_id))
        if not earlier.was_never_whole:
            return took_commands(earlier)
        # Its process died before it could free the key.
        await self.free(caller, once, earlier.id)
        return await self.create(caller, order, once=once, fill=fill, id_=id_)

    async def _made(
        self, start: SandboxStart, accepted: StoredSandbox, once: Once | None, fill: Fill | None
    ) -> StoredSandbox:
        caller, new = start.caller, start.new
        try:
            started = await start.stored(accepted)
            if fill is None and start.startup is None:
                # As its row is now: nobody else knows of it yet.
                made = replace(accepted, state=Life.RUNNING, started_at=started.at)
            else:
                if fill is not None:
                    await fill(new)
                if start.startup is not None:
                    using = Using(self.door, self.places, self.may_resume)
                    await begin(using, caller, new, start.startup)
                await self._filled(caller, new)
                made = await self.read(caller, new)
        except BaseException:
            # Nobody has been told of it, so nobody else would end it.
            await uninterrupted(self._undo(caller, new, once))
            raise
        if made.state is Life.RUNNING:
            self.places.remember(caller.tenant_id, new, started.door)
            self.places.learn_user(caller.tenant_id, new, made.user)
        return made

    async def _undo(self, caller: Caller, new: UUID, once: Once | None) -> None:
        with suppress(RunnerError):
            await self.kill(caller, new)
        if once is not None:
            with suppress(RunnerError):
                await self.free(caller, once, new)

    async def free(self, caller: Caller, once: Once, sandbox_id: UUID) -> None:
        """Free the idempotency key of a sandbox that nobody has been told of."""
        async with self.database.tenant(caller.tenant_id) as tx:
            await once.release(tx, sandbox_id=sandbox_id)

    async def _filled(self, caller: Caller, new: UUID) -> None:
        """Count a new sandbox as whole: its own time begins now."""
        async with self.database.tenant(caller.tenant_id) as tx:
            await sandboxes.filled(tx, new)
        await self._tell_node(caller, new)

    async def _tell_node(self, caller: Caller, sandbox_id: UUID) -> RunnerError | None:
        """Have the node read a changed row; if that fails, return why: its next sweep does it."""
        try:
            await self.door.refresh(await self.places.knock(caller, sandbox_id))
        except (NotReady, NotFound, SandboxEnded, SandboxFault) as error:
            _log.warning("sandbox_not_refreshed", sandbox=str(sandbox_id), detail=error.detail)
            return error
        return None

    async def read(self, caller: Caller, sandbox_id: UUID) -> StoredSandbox:
        """Return a sandbox as it is, even after its end. Raises NotFound."""
        async with self.database.single(caller.tenant_id) as tx:
            found = await sandboxes.get(tx, sandbox_id)
        if found is None:
            raise NotFound(NO_SANDBOX)
        return found

    async def list_some(self, caller: Caller, wanted: SandboxListing) -> list[StoredSandbox]:
        """Return sandboxes, newest first unless the listing says otherwise."""
        async with self.database.tenant(caller.tenant_id) as tx:
            return await sandboxes.list_some(tx, wanted)

    async def update(
        self,
        caller: Caller,
        sandbox_id: UUID,
        change: LifeChange,
        egress: EgressOrder | None = None,
    ) -> StoredSandbox:
        """Change a sandbox that lives, and tell its node. Raises NotFound, Gone and Conflict.

        The change is stored even if the node is away: a sweep of the node reads the row again.
        With `egress`, its way out has other rules when this returns. Raises Invalid for rules that
        the tenant may not have, QuotaExceeded, and NotReady if the rules are stored but the node or
        its proxy did not confirm them: until the next sweep, those before may be in force.
        """
        async with self.database.tenant(caller.tenant_id) as tx:
            facts = _facts(change)
            if egress is not None:
                change, told = await rules_in_place(self.catalogue, tx, sandbox_id, change, egress)
                facts |= told
            changed = await sandboxes.update(tx, sandbox_id, change)
            if changed is not None:
                caller.record(tx, Action.SANDBOX_UPDATE, KIND, str(sandbox_id), facts)
        if changed is None:
            found = await self.read(caller, sandbox_id)
            raise ended(found)
        untold = await self._tell_node(caller, sandbox_id)
        if egress is not None and isinstance(untold, (NotReady, SandboxFault)):
            await not_in_force(self.database, caller, sandbox_id, untold)
            raise NodeAway(
                "the egress rules are stored but may not be in force yet, as the node did not"
                f" confirm them ({untold.detail}): repeat this request"
            ) from untold
        return changed

    async def kill(self, caller: Caller, sandbox_id: UUID) -> StoredSandbox:
        """End a sandbox in whatever state; one that has ended stays as it is.

        Raises NotFound. Raises NodeAway if its node is away: the node ends it when it is back.
        """
        found = await self.read(caller, sandbox_id)
        if found.state is Life.ENDED:
            return found
        # First of all: even if this process dies, the node ends the sandbox, and nobody uses it.
        async with self.database.tenant(caller.tenant_id) as tx:
            over = await sandboxes.end_unclaimed(
                tx, sandbox_id, EndReason.KILLED, "killed before a node had made it"
            )
            if over or await sandboxes.ask_to_stop(tx, sandbox_id):
                caller.record(tx, Action.SANDBOX_KILL, KIND, str(sandbox_id))
            if over:
                facts = {"reason": EndReason.KILLED.value}
                caller.record(tx, Action.SANDBOX_END, KIND, str(sandbox_id), facts)
        self.places.forget(caller.tenant_id, sandbox_id)
        if not over:
            try:
                await self.door.end(await self.places.knock(caller, sandbox_id))
            except (NotFound, SandboxEnded):
                _log.info("sandbox_ended_before", sandbox=str(sandbox_id))
        return await self.read(caller, sandbox_id)

    async def pause(self, caller: Caller, sandbox_id: UUID) -> StoredSandbox:
        """Freeze a running sandbox. Raises NotFound, Gone, Conflict and NodeAway."""
        return await self._change(caller, sandbox_id, Life.PAUSED)

    async def resume(self, caller: Caller, sandbox_id: UUID) -> StoredSandbox:
        """Let a paused sandbox go on. Raises NotFound, Gone, Conflict and NodeAway.

        Raises QuotaExceeded if the tenant has used up the day's CPU-seconds; its running sandboxes
        are paused for the same reason.
        """
        return await self._change(caller, sandbox_id, Life.RUNNING)

    async def _change(self, caller: Caller, sandbox_id: UUID, target: Life) -> StoredSandbox:
        """Have the node change a sandbox's state, unless the sandbox is in that state already."""
        found = await self.places.find(caller, sandbox_id)
        if found.state is Life.ENDED:
            raise ended(found)
        if found.state is target:
            return await self.read(caller, sandbox_id)
        if target is Life.RUNNING:
            await self.may_resume(caller, sandbox_id)
        self.places.forget(caller.tenant_id, sandbox_id)
        act = self.door.pause if target is Life.PAUSED else self.door.resume
        try:
            await act(knock_to(caller, sandbox_id, found))
        except SandboxEnded:
            now = await self.read(caller, sandbox_id)
            raise ended(now) from None
        except SandboxFault as error:
            # Docker's fault, as under load: the node has put the sandbox back as it was.
            _log.warning("sandbox_not_changed", sandbox=str(sandbox_id), detail=error.detail)
            raise NotReady(f"the sandbox did not become {target.value}: try again") from error
        return await self.read(caller, sandbox_id)

    async def may_resume(self, caller: Caller, sandbox_id: UUID) -> None:
        """Raise QuotaExceeded, and put that on record, if the sandbox may not be resumed now."""
        async with self.database.single(caller.tenant_id) as tx:
            refused = resume_refusal(await quotas.standing(tx))
        if refused is not None:
            async with self.database.tenant(caller.tenant_id) as tx:
                caller.record(
                    tx,
                    Action.SANDBOX_RESUME,
                    KIND,
                    str(sandbox_id),
                    refused.facts,
                    outcome=Outcome.DENIED,
                )
            raise refused

    async def _accept(
        self, start: SandboxStart, order: LivingOrder, once: Once | None, *, filling: bool
    ) -> StoredSandbox | _Repeated:
        """Store the sandbox, unless its idempotency key was used before."""
        try:
            return await self._store(start, order, once, filling=filling)
        except QuotaExceeded as refused:
            caller, facts = start.caller, refused.facts
            async with self.database.tenant(caller.tenant_id) as tx:
                caller.record(
                    tx, Action.SANDBOX_CREATE, KIND, metadata=facts, outcome=Outcome.DENIED
                )
            raise

    async def _store(
        self, start: SandboxStart, order: LivingOrder, once: Once | None, *, filling: bool
    ) -> StoredSandbox | _Repeated:
        caller, new = start.caller, start.new
        async with self.database.tenant(caller.tenant_id) as tx:
            # Locked until the transaction ends, so that the last place is given away only once.
            tenant, standing = await quotas.alone(tx)
            if tenant is None:
                raise NotFound("the tenant of this key no longer exists")
            if once is not None and (used := await once.reserve(tx, sandbox_id=new)):
                return _Repeated(once, used)
            policy = await policy_in(tx, order.project, order.egress_policy)
            offer = await self.catalogue.offer(tx, tenant, standing, policy, order.image)
            wanted = resolve_sandbox(replace(order, egress_policy=policy), offer)
            memory_mb = wanted.spec.resources.memory_mb
            if refused := sandbox_refusal(
                standing, memory_mb=memory_mb, egress=bool(wanted.egress)
            ):
                raise refused
            start.ahead(wanted)
            if offer.template is not None and not order.builds:
                start.startup = offer.template.startup
                filling = filling or start.startup is not None
            insertion = sandboxes.insert_later(
                tx, new, wanted, created_by=caller.actor, filling=filling
            )
            facts = {
                "image": wanted.spec.image,
                "size": wanted.size,
                "isolation": wanted.spec.isolation.value,
                "timeout_s": wanted.timeout_s,
            }
            caller.record(tx, Action.SANDBOX_CREATE, KIND, str(new), facts)
        return await sandboxes.inserted(insertion)


def _facts(change: LifeChange) -> dict[str, object]:
    """Return a change for the audit log: that labels changed, not what they say."""
    facts: dict[str, object] = {"timeout_s": change.timeout_s} if change.sets_timeout else {}
    if change.on_shortage is not None:
        facts["on_shortage"] = change.on_shortage.value
    return {**facts, "metadata": True} if change.metadata is not None else facts
