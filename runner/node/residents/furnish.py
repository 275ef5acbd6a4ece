"""The equipment of a living sandbox: a container from the stock, secrets, a way out."""

import asyncio
import secrets as randomness
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import TypeAlias
from uuid import UUID

import structlog

from runner.audit import events as audit
from runner.base.masking import Masker
from runner.base.tasks import uninterrupted
from runner.node.contexts.masked import JsonMasking
from runner.node.contexts.table import ContextTable
from runner.node.residents.journal import Journal
from runner.node.residents.masks import MaskStore
from runner.node.residents.processes import ProcessTable
from runner.node.residents.starts import Starts
from runner.node.runs.actor import SandboxUser
from runner.node.runs.egress import TRUST, Egress, Listening, WayOut
from runner.node.runs.secrets import Secrets
from runner.node.stock.sandboxes import Need, Sandboxes
from runner.sandbox.guest.living import LivingSandbox, Residence
from runner.sandbox.guest.sandbox import Bridge, Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.store import quotas
from runner.store.db import Database
from runner.store.residents import SandboxHold, TakenOver
from runner.words.errors import LaunchFailed, NotReady, RunnerError
from runner.words.execution import JSON
from runner.words.living import StoredSandbox
from runner.words.sandbox import WORKSPACE, SandboxSpec

_SECRET_BYTES = 32
SYSTEM_TRUST = "/etc/ssl/certs/ca-certificates.crt"
"""In every image."""

_log = structlog.get_logger("runner.worker")


@dataclass(frozen=True, slots=True)
class Furnished:
    """A sandbox that lives, with everything that its processes get."""

    guest: LivingSandbox
    environment: dict[str, str]
    """Variables of every process; they follow the sandbox's egress rules."""
    masker: Masker
    way: WayOut
    closing: AsyncExitStack
    """Closes its way out."""
    rewire: "Rewire"
    json: JsonMasking
    """Stars secrets in JSON, for every sandbox of the node."""
    workdir: str = WORKSPACE
    """The folder in which processes and contexts start unless they name one."""

    def starts(self, processes: ProcessTable, journal: Journal) -> Starts:
        """Return what starts its processes, and keeps and records them."""
        return Starts(self.guest, processes, journal, self.environment, self.workdir)

    def contexts(self, masker: Callable[[], Masker]) -> ContextTable:
        """Return its code contexts; `masker` returns what stars the secrets that are known now."""
        return ContextTable(self.guest, self.environment, masker, self.json, workdir=self.workdir)


Rewire: TypeAlias = Callable[[StoredSandbox], Awaitable[Masker]]
"""Gives a way out the rules of a row; returns what stars every secret. Raises what `new` raises."""


class _Watch:
    """Records what a way out reports: its decisions go to the audit log, with secrets starred."""

    def __init__(self, journal: Journal, hold: SandboxHold) -> None:
        self._journal = journal
        self._hold = hold
        self.values: set[str] = set()
        self.masker = Masker(())

    async def hide(self, values: Iterable[str]) -> None:
        """Star these values from now on."""
        if self.values.issuperset(values := tuple(values)):
            return
        self.values.update(values)
        self.masker = await asyncio.to_thread(Masker, self.values)

    def decide(self, _data: Mapping[str, JSON], record: audit.AuditEvent) -> None:
        """Put a decision on record."""
        self._journal.tell(self._hold.tenant_id, self._hold.sandbox_id, record, self.masker)

    def note(self, _text: str) -> None:
        """Ignore notes for a program: nobody knows which process has asked."""


class Furnisher:
    """Furnishes living sandboxes, and removes them."""

    def __init__(
        self,
        *,
        database: Database,
        launcher: Launcher,
        sandboxes: Sandboxes,
        secrets: Secrets,
        egress: Egress,
        masks: MaskStore,
        journal: Journal,
        json: JsonMasking,
        alone_s: int,
    ) -> None:
        """Take parts. A sandbox survives `alone_s` seconds without a process of its node."""
        self._database = database
        self._launcher = launcher
        self._sandboxes = sandboxes
        self._secrets = secrets
        self._egress = egress
        self._masks = masks
        self._journal = journal
        self._json = json
        self._alone_s = alone_s

    async def new(self, hold: SandboxHold, sandbox: StoredSandbox) -> Furnished:
        """Take a sandbox from the stock and let it live. On failure, nothing of it stays.

        Raises SandboxFault, KeyUnavailable, and Invalid for a missing secret.
        """
        given = await self._secrets.environment(_user(hold), sandbox.secret_env)
        async with AsyncExitStack() as undoing:
            container = await self._container(hold.tenant_id, sandbox.spec, undoing)
            async with AsyncExitStack() as closing:
                watch = await self._watch(hold, given)
                way = await self._way_out(hold, sandbox, container, watch, closing)
                if watch.values:
                    await self._masks.keep(hold, watch.values)
                guest = await self._living(container, way.bridge)
                furnished = self._furnished(hold, guest, sandbox, way, given, watch, closing)
                undoing.pop_all()
                return furnished

    async def ahead(self, tenant_id: UUID, spec: SandboxSpec) -> LivingSandbox:
        """Let a sandbox live that has no row yet; `own` furnishes it once it has one.

        If it died while it waited in the stock, this fails. Raises what `new` raises.
        """
        async with AsyncExitStack() as undoing:
            container = await self._container(tenant_id, spec, undoing, checked=False)
            guest = await self._living(container)
            undoing.pop_all()
            return guest

    async def own(
        self, hold: SandboxHold, sandbox: StoredSandbox, guest: LivingSandbox
    ) -> Furnished:
        """Furnish what `ahead` made, for a row that asks for no secrets and no way out."""
        async with AsyncExitStack() as closing:
            watch = await self._watch(hold, {})
            way = await self._way_out(hold, sandbox, guest, watch, closing)
            return self._furnished(hold, guest, sandbox, way, {}, watch, closing)

    async def _container(
        self, tenant_id: UUID, spec: SandboxSpec, undoing: AsyncExitStack, *, checked: bool = True
    ) -> Sandbox:
        """Take one from the stock for a tenant."""
        order = SandboxOrder(spec, tenant=str(tenant_id))
        container = await self._sandboxes.claim(Need(order, checked=checked))
        undoing.push_async_callback(self._sandboxes.dispose, container)
        container.container.assign(order.tenant)
        return container

    async def _living(self, container: Sandbox, bridge: Bridge | None = None) -> LivingSandbox:
        secret = randomness.token_hex(_SECRET_BYTES)
        return await container.live(secret, alone_s=self._alone_s, bridge=bridge or Bridge())

    async def again(self, hold: SandboxHold, taken: TakenOver) -> Furnished:
        """Take over a sandbox that an earlier process of this node left alive.

        If it raises NotReady, the caller may try again. If it raises what `new` raises, nothing of
        the sandbox stays but what a sweep removes.
        """
        residence = read_residence(taken.guest)
        sandbox = taken.sandbox
        # A secret that was deleted meanwhile is not given to further processes.
        given = await self._secrets.environment(_user(hold), sandbox.secret_env, lenient=True)
        known = await self._masks.read(hold, taken.masks)
        guest = await self._launcher.adopt(residence)
        guest.container.assign(str(hold.tenant_id))
        try:
            async with AsyncExitStack() as closing:
                watch = await self._watch(hold, given)
                # Processes may still have, and write, what a secret was before.
                await watch.hide(known)
                way = await self._way_out(hold, sandbox, guest, watch, closing, lenient=True)
                if not known.issuperset(watch.values):
                    await self._masks.keep(hold, watch.values)
                return self._furnished(hold, guest, sandbox, way, given, watch, closing)
        except BaseException as error:
            guest.leave()
            if isinstance(error, Exception) and not isinstance(error, NotReady):
                await uninterrupted(self.remove(guest))
            raise

    async def remove(self, guest: LivingSandbox) -> None:
        """Remove its container, or leave it to a sweep if Docker does not answer."""
        try:
            await guest.destroy()
        except RunnerError as error:
            self._launcher.live.discard(guest.id)
            _log.warning("sandbox_left_to_sweep", sandbox=guest.id, error=error.detail)

    async def _watch(self, hold: SandboxHold, given: Mapping[str, str]) -> _Watch:
        """Return a watch that stars the sandbox's secrets from its first report on."""
        watch = _Watch(self._journal, hold)
        await watch.hide(given.values())
        return watch

    async def _way_out(
        self,
        hold: SandboxHold,
        sandbox: StoredSandbox,
        container: Listening,
        watch: _Watch,
        closing: AsyncExitStack,
        *,
        lenient: bool = False,
    ) -> WayOut:
        left = 0
        if sandbox.egress:
            async with self._database.tenant(hold.tenant_id) as tx:
                left = (await quotas.standing(tx)).egress_left
        return await closing.enter_async_context(
            self._egress.open(_user(hold), sandbox.egress, container, watch, left, lenient=lenient)
        )

    def _furnished(
        self,
        hold: SandboxHold,
        guest: LivingSandbox,
        sandbox: StoredSandbox,
        way: WayOut,
        given: Mapping[str, str],
        watch: _Watch,
        closing: AsyncExitStack,
    ) -> Furnished:
        environment = _environment(way, given, sandbox)

        async def rewire(changed: StoredSandbox) -> Masker:
            left = 0
            if changed.egress and way.session is None:
                async with self._database.tenant(hold.tenant_id) as tx:
                    left = (await quotas.standing(tx)).egress_left
            known = frozenset(watch.values)
            await self._egress.change(
                way, _user(hold), changed.egress, guest, watch, left, lenient=True
            )
            if not known.issuperset(watch.values):
                await self._masks.keep(hold, watch.values)
            if way.bridge is not None and way.bridge.trust:
                await _tell_whom_to_trust(guest, way.bridge.trust)
            environment.clear()
            environment.update(_environment(way, given, changed))
            return watch.masker

        return Furnished(
            guest,
            environment,
            watch.masker,
            way,
            closing.pop_all(),
            rewire,
            self._json,
            sandbox.workdir or WORKSPACE,
        )


async def _tell_whom_to_trust(guest: LivingSandbox, certificate: str) -> None:
    """Write the certificates where the environment points to, as the supervisor does at first."""

    async def bundle() -> AsyncIterator[bytes]:
        async with guest.files.read(SYSTEM_TRUST) as file:
            async for chunk in file:
                yield chunk
        yield b"\n" + certificate.encode()

    await guest.files.write(TRUST, bundle(), mode=0o644, parents=True)


def residence_facts(guest: LivingSandbox) -> dict[str, JSON]:
    """Return what a later process of this node must know, in the row's form."""
    return asdict(guest.residence)


def read_residence(facts: Mapping[str, JSON] | None) -> Residence:
    """Read it back from the row. Raises LaunchFailed if it is of no use."""
    try:
        return Residence(**dict(facts or {}))
    except TypeError:
        raise LaunchFailed("the sandbox's row does not say how to find it") from None


def _environment(way: WayOut, given: Mapping[str, str], sandbox: StoredSandbox) -> dict[str, str]:
    return {**way.environment, **given, **sandbox.env}


def _user(hold: SandboxHold) -> SandboxUser:
    return SandboxUser(hold.tenant_id, "sandbox", hold.sandbox_id)
