"""Opens everything that living sandboxes need of their node, and closes it in reverse order."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runner.base.duties import Duties
from runner.base.signing import Signer
from runner.base.tracing import SpanTracer
from runner.door.identity import DoorIdentity, DoorRole
from runner.node.contexts.masked import JsonMasking
from runner.node.gate import Gate
from runner.node.measures import Measures
from runner.node.residents.door import open_door
from runner.node.residents.ending import EndRecords
from runner.node.residents.evicting import Evictor
from runner.node.residents.far import open_far_door
from runner.node.residents.following import FOLLOW_S, follow
from runner.node.residents.furnish import Furnisher
from runner.node.residents.journal import FLUSH_S, Journal
from runner.node.residents.masks import MaskStore
from runner.node.residents.meter import SAMPLE_S
from runner.node.residents.residents import Residents
from runner.node.residents.usage import COUNT_S, UsageSweep, sample
from runner.node.runs.egress import Egress
from runner.node.runs.policy import ExecutionPolicy
from runner.node.runs.secrets import Secrets
from runner.node.stock.sandboxes import Sandboxes
from runner.queue.changes import Changes
from runner.sandbox.launch import Launcher
from runner.sandboxes.keeping import SnapshotKeeper
from runner.secrets.vault import Vault
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.words.errors import NotReady, SetupError

TAKING_OVER = "taking over living sandboxes"
_LOOK_S = 10.0
"""How often to look for rows that name this node and stand for nothing on it."""


@dataclass(frozen=True, slots=True)
class LivingTerms:
    """The settings of every living sandbox of a node."""

    most: int
    """How many may live here at once."""
    alone_s: int
    """How long a sandbox survives without a process of its node."""
    ends: bool
    """Whether they end with this process, instead of waiting for the next one."""
    sweep_s: float
    folder: Path
    """The folder of the door's socket."""
    place: str | None
    """The address at which APIs of other hosts reach it."""
    certificates: Path
    group: int | None
    """The group that may knock besides the node's own user."""
    reserve_mb: int
    """While the host has less memory free, paused sandboxes are evicted whose tenants permit it."""
    patience: int
    """How many times longer than elsewhere callers may take on this host."""


@asynccontextmanager
async def open_residents(
    terms: LivingTerms,
    *,
    database: Database,
    launcher: Launcher,
    sandboxes: Sandboxes,
    secrets: Secrets,
    egress: Egress,
    policy: ExecutionPolicy,
    gate: Gate,
    duties: Duties,
    changes: Changes,
    signer: Signer,
    vault: Vault,
    objects: ObjectStore,
    measures: Measures,
    tracer: SpanTracer,
) -> AsyncIterator[Residents]:
    """Let sandboxes live here while the context lasts; the next process takes them over.

    Raises SetupError if the door cannot be opened.
    """
    journal = Journal(database, changes.announce)
    json = JsonMasking()
    residents = Residents(
        database=database,
        furnisher=Furnisher(
            database=database,
            launcher=launcher,
            sandboxes=sandboxes,
            secrets=secrets,
            egress=egress,
            masks=MaskStore(database, vault),
            journal=journal,
            json=json,
            alone_s=terms.alone_s,
        ),
        journal=journal,
        policy=policy,
        ends=EndRecords(signer),
        gate=gate,
        most=terms.most,
    )
    keeper = SnapshotKeeper(database, objects, vault)
    evictor = Evictor(residents, keeper, reserve_mb=terms.reserve_mb, gate=gate)
    sweeps: tuple[tuple[str, Callable[[], Awaitable[None]], float], ...] = (
        (TAKING_OVER, residents.adopt, _LOOK_S),
        ("renewing living sandboxes' leases", residents.renew, residents.renew_every_s),
        ("reading living sandboxes' rows again", partial(follow, residents), FOLLOW_S),
        ("reaping living sandboxes", residents.reap, terms.sweep_s),
        ("ending suspended tenants' sandboxes", residents.end_suspended, terms.sweep_s),
        ("making room on a short host", evictor.sweep, terms.sweep_s),
        ("counting living sandboxes' use", UsageSweep(residents, database).count, COUNT_S),
        ("sampling living sandboxes", partial(sample, residents), SAMPLE_S),
        ("writing what is done in sandboxes", journal.write, FLUSH_S),
    )
    async with AsyncExitStack() as stack:
        stack.callback(json.close)
        stack.push_async_callback(_leave, residents, journal, ends=terms.ends)
        for name, work, every_s in sweeps:
            await stack.enter_async_context(duties.doing(name, work, every_s=every_s))
        door = await stack.enter_async_context(
            open_door(
                terms.folder,
                residents=residents,
                journal=journal,
                measures=measures,
                tracer=tracer,
                node=policy.node,
                group=terms.group,
                patience=terms.patience,
            )
        )
        if terms.place is not None:
            identity = _identity(terms.certificates, policy.node)
            await stack.enter_async_context(open_far_door(door, terms.place, identity, duties))
        yield residents


def _identity(folder: Path, node: str) -> DoorIdentity:
    try:
        return DoorIdentity(folder, DoorRole.NODE)
    except SetupError as error:
        raise SetupError(
            f"{error.detail}; RUNNER_DOOR_ADDRESS needs what `runner nodes join`, "
            f"or `runner nodes certify {node}`, makes"
        ) from error


async def _leave(residents: Residents, journal: Journal, *, ends: bool) -> None:
    await residents.leave(ends=ends)
    with suppress(NotReady):
        await journal.write()
