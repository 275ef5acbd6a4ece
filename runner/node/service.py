"""The worker process: starts as a list of steps, drains on request."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

import structlog
from pydantic import SecretStr

from runner.audit import checkpoints, forward
from runner.audit.forward import Forwarder
from runner.audit.memory import Memory
from runner.audit.sinks import open_sinks
from runner.base.duties import Duties
from runner.base.health import Health
from runner.base.settings import Settings
from runner.base.signing import Signer, TrustedKeys
from runner.base.tracers import open_tracer
from runner.egress.gateway import EgressGateway
from runner.executions.notices import EndNotices
from runner.node.alone import only_worker
from runner.node.awaiting import launching
from runner.node.breaker import STARTING, Breaker
from runner.node.measures import Measures, NodeGauges
from runner.node.membership import BEAT_S, free_mb, joined
from runner.node.named import read_named
from runner.node.reaper import Reaper
from runner.node.residents.opening import LivingTerms, open_residents
from runner.node.residents.residents import Residents
from runner.node.retention import ABANDONED, GRACE, TIDY_EVERY_S, Retention
from runner.node.runs.claimer import Claimer
from runner.node.runs.egress import Egress
from runner.node.runs.execute import Endings, Executor
from runner.node.runs.finish import Finisher
from runner.node.runs.interrupted import Interruptions
from runner.node.runs.policy import ExecutionPolicy
from runner.node.runs.program import Programs
from runner.node.runs.refusals import WINDOW_S, Refusals
from runner.node.runs.secrets import Secrets
from runner.node.runs.settle import Settler
from runner.node.runs.taker import RingTaker
from runner.node.runs.unstarted import Returns
from runner.node.stock.demand import PoolBounds
from runner.node.stock.disposal import Disposals
from runner.node.stock.pool import open_pool
from runner.node.stock.reuse import ReuseBounds, open_reuse
from runner.node.stock.templates import SandboxesOfTemplates, TemplateImages
from runner.node.traffic import Traffic
from runner.queue.changes import Changes
from runner.queue.doorbell import Doorbell
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.sandbox.reap import remove_strays
from runner.secrets.vault import Vault
from runner.store.db import Database
from runner.store.nodes import NodeUse
from runner.store.retention import RetentionTerms
from runner.words.sandbox import SandboxSpec

SWEEP_S = 30.0
"""How long a sandbox may outlive a Docker daemon that did not answer when it was to go."""

_log = structlog.get_logger("runner.worker")


@asynccontextmanager
async def worker(
    settings: Settings, *, database_url: SecretStr, redis_url: SecretStr
) -> AsyncIterator[Claimer]:
    """Work while the context lasts; on leaving it, drain. Until Docker answers, wait for it.

    Raises SetupError when a setting cannot be used, another worker uses the same state folder, the
    seccomp profile does not compile, or Docker cannot be used.
    """
    policy = ExecutionPolicy(
        node=settings.node_id,
        instance=secrets.token_hex(6),
        lease=timedelta(seconds=settings.lease_s),
        max_attempts=settings.max_attempts,
        flood_bytes=settings.output_flood_mb * 2**20,
        max_artifacts=settings.max_artifacts,
    )
    traffic, measures, duties = Traffic(), Measures(), Duties()
    async with AsyncExitStack() as stack:
        named = read_named(settings)
        stack.enter_context(only_worker(settings))
        tracer = await stack.enter_async_context(
            open_tracer(settings, "runner-worker", policy.node, measures.registry)
        )
        launcher = await stack.enter_async_context(
            launching(settings, node=policy.node, instance=policy.instance)
        )
        # Beyond the slots: the reaper, refused jobs, lease keepers, and what the audit log needs.
        database = await stack.enter_async_context(
            Database(database_url, max_size=settings.slots * 2 + 4)
        )
        doorbell = await stack.enter_async_context(Doorbell(redis_url))
        changes = await stack.enter_async_context(Changes(redis_url, duties))
        signer, vault = Signer.open(settings.state_dir), Vault(named.keys)
        gateway = await stack.enter_async_context(
            EgressGateway.open(
                uid=settings.egress_uid,
                trusted_networks=settings.egress_trusted_networks,
                hosts=settings.egress_hosts,
                roots=named.roots,
                profiles_dir=settings.profiles_path,
                state_dir=settings.state_dir,
                duties=duties,
                patience=settings.patience,
            )
        )
        checkpointer = checkpoints.Checkpointer(
            database=database,
            signer=signer,
            trusted=TrustedKeys(settings.state_dir),
            memory=Memory(settings.state_dir),
            age=timedelta(seconds=settings.audit_checkpoint_s),
        )
        forwarder = Forwarder(
            database, open_sinks(settings, database, vault, named.receivers, named.roots)
        )
        tenants_secrets = Secrets(database=database, vault=vault, file=named.secrets)
        # What a request gets that asks for nothing.
        steady = SandboxSpec(
            settings.images[0], named.default_limits.resources, settings.isolation[0]
        )
        breaker = Breaker(partial(_start_and_end, launcher, steady))
        pool = await stack.enter_async_context(
            open_pool(
                launcher,
                bounds=PoolBounds(settings.pool, settings.pool_max, settings.pool_reserve_mb),
                steady=steady,
                max_idle_s=settings.pool_idle_s,
                traffic=traffic,
                duties=duties,
                blames_node=breaker.blames_node,
            )
        )
        templates = TemplateImages(
            database=database,
            objects=named.objects,
            vault=vault,
            images=launcher.maker.images,
            node=policy.node,
            folder=settings.state_dir / "templates",
            most_bytes=settings.template_images_mb * 2**20,
        )
        sandboxes = SandboxesOfTemplates(
            await stack.enter_async_context(
                open_reuse(
                    pool,
                    bounds=ReuseBounds.of(settings),
                    digest=launcher.maker.images.require,
                    duties=duties,
                )
            ),
            templates,
        )
        settler = Settler(database=database, signer=signer, max_attempts=policy.max_attempts)
        disposals = Disposals(
            sandboxes, backlog=settings.pool_max, reserve_mb=settings.pool_reserve_mb
        )
        finisher = Finisher(
            database=database,
            changes=changes,
            notices=EndNotices(named.keys),
            signer=signer,
            node=policy.node,
        )
        interruptions = Interruptions(
            database=database,
            changes=changes,
            finisher=finisher,
            settler=settler,
            policy=policy,
        )
        egress = Egress(
            gateway=gateway, ceiling=named.ceiling, secrets=tenants_secrets, measures=measures
        )
        executor = Executor(
            database=database,
            changes=changes,
            sandboxes=sandboxes,
            disposals=disposals,
            programs=Programs(
                database=database,
                changes=changes,
                objects=named.objects,
                secrets=tenants_secrets,
                egress=egress,
                policy=policy,
            ),
            endings=Endings(
                finisher,
                Returns(
                    database=database,
                    changes=changes,
                    breaker=breaker,
                    max_attempts=policy.max_attempts,
                ),
                interruptions,
            ),
            traffic=traffic,
            measures=measures,
            tracer=tracer,
            policy=policy,
        )
        # Before the door opens: nobody knocks at a node that was removed.
        membership = await stack.enter_async_context(joined(database, settings, policy.instance))
        claimer = Claimer(
            database=database,
            breaker=breaker,
            gate=membership.gate,
            executor=executor,
            interruptions=interruptions,
            policy=policy,
            doorbell=doorbell,
        )
        residents = await stack.enter_async_context(
            open_residents(
                LivingTerms(
                    most=settings.sandboxes,
                    alone_s=settings.sandbox_alone_s,
                    ends=settings.sandboxes_on_stop == "end",
                    sweep_s=settings.reconcile_s,
                    folder=settings.door_dir,
                    place=settings.door_address,
                    certificates=settings.door_certificates,
                    group=settings.door_gid,
                    reserve_mb=settings.sandbox_reserve_mb,
                    patience=settings.patience,
                ),
                database=database,
                launcher=launcher,
                sandboxes=sandboxes,
                secrets=tenants_secrets,
                egress=egress,
                policy=policy,
                gate=membership.gate,
                duties=duties,
                changes=changes,
                signer=signer,
                vault=vault,
                objects=named.objects,
                measures=measures,
                tracer=tracer,
            )
        )
        reaper = Reaper(
            database=database,
            doorbell=doorbell,
            changes=changes,
            settler=settler,
            policy=policy,
            slots=settings.slots,
        )
        retention = Retention(
            database=database,
            objects=named.objects,
            terms=RetentionTerms(
                days=settings.retention_days or None, grace=GRACE, abandoned=ABANDONED
            ),
        )
        rings = RingTaker(
            redis_url=redis_url,
            claimer=claimer,
            refusals=(refusals := Refusals(database)),
            slots=settings.slots,
            instance=policy.instance,
        )
        health = Health(
            settings.run_dir,
            lambda: duties.failing,
            lambda: launcher.guards.failing,
            lambda: breaker.failing,
            rings.ended,
        )
        sweeps: tuple[tuple[str, Callable[[], Awaitable[None]], float], ...] = (
            (
                "telling that this node lives",
                partial(membership.beat, partial(_use, claimer, residents, templates, breaker)),
                BEAT_S,
            ),
            ("reaping", reaper.reap, settings.reconcile_s),
            ("cancelling for suspended tenants", reaper.end_suspended, settings.reconcile_s),
            ("ringing again", reaper.reconcile, settings.reconcile_s),
            ("removing strays", partial(_sweep_strays, launcher, residents), SWEEP_S),
            ("removing deleted templates' images", templates.sweep, templates.SWEEP_S),
            ("retention", retention.sweep, settings.retention_every_s),
            ("tidying the object store", retention.tidy, TIDY_EVERY_S),
            ("checkpoints", checkpointer.sweep, checkpoints.SWEEP_S),
            ("refused jobs", refusals.record, WINDOW_S),
            *((f"forwarding to {sink}", work, forward.IDLE_S) for sink, work in forwarder.lines()),
        )
        stack.push_async_callback(refusals.record)
        # It waits until the node is broken, and the breaker itself tells whether it is.
        await stack.enter_async_context(duties.doing(STARTING, breaker.mend, lasting=True))
        for name, work, every_s in sweeps:
            await stack.enter_async_context(duties.doing(name, work, every_s=every_s))
        rings.start()
        _log.info("worker_ready", node=policy.node, instance=policy.instance, slots=settings.slots)
        try:
            async with (
                health.told(duties),
                measures.exposed(settings, NodeGauges(claimer, pool, residents, health)),
            ):
                yield claimer
        finally:
            rings.request_stop()
            await claimer.drain(settings.drain_s)
            await disposals.drain()
            await rings.join()
            _log.info("worker_stopped", instance=policy.instance)


def _use(
    claimer: Claimer, residents: Residents, templates: TemplateImages, breaker: Breaker
) -> NodeUse:
    """Return what this node holds now."""
    return NodeUse(
        running=claimer.running,
        living=len(residents),
        free_mb=free_mb(),
        templates=templates.held,
        fault=breaker.failing.get(STARTING),
    )


async def _start_and_end(launcher: Launcher, kind: SandboxSpec) -> None:
    await (await launcher.launch(SandboxOrder(kind))).destroy()


async def _sweep_strays(launcher: Launcher, residents: Residents) -> None:
    """Remove what an earlier worker left, and what could not be removed when it ended.

    Until it is known which sandboxes live on, any container may be one of them.
    """
    await residents.taken_over.wait()
    if removed := await remove_strays(launcher):
        _log.info("strays_removed", count=removed)
