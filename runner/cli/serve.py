"""Commands that run until they are stopped: the API, the worker, and both together."""

import asyncio
import gc
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.base import telemetry
from runner.base.recipe import read_recipe
from runner.base.settings import Settings
from runner.base.tasks import attended
from runner.cli.address import Beside, announced
from runner.cli.console import err, out, read_settings, reports_errors, required, shown
from runner.cli.credentials import require_sound
from runner.cli.embedded import first_key

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from runner.base.tracing import SpanTracer
    from runner.door.client import Door
    from runner.sandboxes.catalogue import Catalogue
    from runner.sandboxes.living import LivingSandboxes
    from runner.sandboxes.place import SandboxPlaces
    from runner.sandboxes.use import Using
    from runner.sandboxes.watchers import Watchers
    from runner.secrets.vault import Vault
    from runner.store.db import Database
    from runner.store.objects import ObjectStore
    from runner.templates.builds import Templates

SWITCH_S = 0.0005
"""How long a thread continues while another one waits. With Python's own 5 ms, a thread that has
taken a ring delays the execution while the loop is busy."""
VERIFYING = 2
"""Audit logs that are verified at once: each occupies a thread and Python's lock with it."""


class _StoppedEarly(Exception):
    """Somebody wants the worker to end before it has begun to work."""


@reports_errors
def api(
    fd: Annotated[
        int | None, typer.Option(help="Serve on this inherited, listening socket.")
    ] = None,
) -> None:
    """Serve the HTTP API."""
    import uvloop

    settings = read_settings()
    telemetry.configure(settings.log_level, json=not err.is_terminal)
    uvloop.run(_api(settings, fd))


@reports_errors
def worker(
    *,
    healthy: Annotated[
        bool,
        typer.Option("--healthy", help="Only check this host's worker; exit with 1 if it fails."),
    ] = False,
) -> None:
    """Run executions: the one process that needs Docker."""
    settings = read_settings()
    if healthy:
        from runner.base.health import problems

        if found := problems(settings.run_dir):
            err.print("\n".join(f"{name}: {why}" for name, why in found.items()), markup=False)
            raise typer.Exit(1)
        out.print("ok")
        return
    import uvloop

    telemetry.configure(settings.log_level, json=not err.is_terminal)
    uvloop.run(_worker(settings))


@reports_errors
def dev() -> None:
    """Run everything on this host, with private PostgreSQL and Redis, until Ctrl-C."""
    settings = read_settings()
    telemetry.configure("warning", json=False)
    asyncio.run(_dev(settings))


def _settle_in() -> None:
    """Set Python up for a server: one busy event loop, and threads that mostly wait.

    The garbage collector leaves out the objects that exist now, which stay.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)


@asynccontextmanager
async def _settled(watchers: "Watchers") -> AsyncIterator[None]:
    """Serve inside the context: the watchers that clients leave end with it."""
    _settle_in()
    async with watchers:
        yield


async def _api(settings: Settings, fd: int | None) -> None:
    require_sound(settings)
    from runner.api.app import create_app
    from runner.api.callers import Cookies
    from runner.api.deps import Dependencies
    from runner.api.edge import ratelimit
    from runner.api.server import serve
    from runner.api.turns import Turns
    from runner.auth.rights import Rights
    from runner.auth.sandbox_tokens import SandboxTokens
    from runner.auth.sessions import Lifetime
    from runner.base.signing import TrustedKeys
    from runner.cli.people import operating, ways_in
    from runner.door.client import AWAY_S, Door
    from runner.egress.policy import load_ceiling
    from runner.executions.admission import Admission
    from runner.executions.notices import EndNotices
    from runner.executions.submit import Submitting
    from runner.queue.changes import Changes
    from runner.queue.doorbell import Doorbell
    from runner.quotas.sizes import load_sizes
    from runner.sandboxes.addresses import FileAddresses
    from runner.sandboxes.catalogue import Catalogue
    from runner.sandboxes.copies import Copies
    from runner.sandboxes.place import SandboxPlaces
    from runner.sandboxes.ports import PortGates, SandboxPorts
    from runner.sandboxes.snapshots import Snapshots
    from runner.sandboxes.use import Using
    from runner.sandboxes.watchers import Watchers
    from runner.secrets.keyring import open_keys
    from runner.secrets.vault import Vault
    from runner.store.db import Database
    from runner.store.objects import ObjectStore

    redis_url = required(settings.redis_url, "RUNNER_REDIS_URL")
    # Read everything that settings name before connecting, so that errors appear at once.
    sizes = load_sizes(settings.profiles_path)
    egress_ceiling = load_ceiling(settings.profiles_path)
    objects, keys = ObjectStore.open(settings), open_keys(settings)
    lifetime = Lifetime(
        idle=timedelta(seconds=settings.session_idle_s),
        absolute=timedelta(seconds=settings.session_max_s),
    )
    database_url = required(settings.database_api_url, "RUNNER_DATABASE_API_URL")
    async with (
        Database(database_url) as database,
        # Its own connection: if requests hold all others, they must still not outlast their rights.
        Database(database_url, max_size=1) as watching,
        Rights(watching, idle=lifetime.idle) as rights,
        operating(settings.database_operator_url, lifetime) as operators,
        Doorbell(redis_url) as doorbell,
        Changes(redis_url) as changes,
        ratelimit.RateLimiter(redis_url, answer_s=settings.patient(ratelimit.ANSWER_S)) as limiter,
        ways_in(settings, database, redis_url, lifetime) as people,
        _tracer(settings) as (tracer, registry),
    ):
        recipes = {name: read_recipe(settings.recipes_path, name) for name in settings.images}
        catalogue = Catalogue(
            sizes=sizes,
            images={name: recipe.languages for name, recipe in recipes.items()},
            users={name: recipe.user for name, recipe in recipes.items()},
            isolations=settings.isolation,
            egress_ceiling=egress_ceiling,
            image_names=settings.template_images,
        )
        away_s, certificates = settings.patient(AWAY_S), settings.door_certificates
        door = Door(settings.door_dir, away_s=away_s, certificates=certificates)
        places, gates = SandboxPlaces(database), PortGates(database)
        living = _living(settings, database, door, places, catalogue)
        using, vault = Using(door, places, living.may_resume), Vault(keys)
        app = create_app(
            Dependencies(
                settings=settings,
                sizes=sizes,
                egress_ceiling=egress_ceiling,
                database=database,
                objects=objects,
                doorbell=doorbell,
                changes=changes,
                vault=vault,
                trusted=TrustedKeys(settings.state_dir),
                limiter=limiter,
                submitting=Submitting(
                    database=database,
                    doorbell=doorbell,
                    changes=changes,
                    admission=Admission(database, most=settings.max_queued),
                    catalogue=catalogue,
                    notices=EndNotices(keys),
                ),
                sandboxes=living,
                using=using,
                addresses=FileAddresses(database, vault, rights),
                ports=SandboxPorts(database, gates),
                gates=gates,
                templates=(templates := _templates(living, using, objects, vault)),
                copies=Copies(database, living, Snapshots(database, using, objects, vault)),
                verifying=Turns("verifying audit logs", most=VERIFYING),
                logins=people.logins,
                rights=rights,
                tokens=SandboxTokens(database, keys),
                watchers=(watchers := Watchers(using)),
                cookies=Cookies(lifetime, secure=not settings.insecure_cookies),
                tracer=tracer,
                registry=registry,
                issuer=people.issuer,
                sign_ins=people.sign_ins,
                operators=operators.database,
                operator_rights=operators.rights,
            )
        )
        async with _settled(watchers), templates:
            await serve(app, settings, fd=fd)


@asynccontextmanager
async def _tracer(settings: Settings) -> AsyncIterator["tuple[SpanTracer, CollectorRegistry]"]:
    """Yield the API's tracer, and the registry in which it counts."""
    from prometheus_client import CollectorRegistry

    from runner.base.tracers import open_tracer

    registry = CollectorRegistry()
    async with open_tracer(settings, "runner-api", settings.node, registry) as tracer:
        yield tracer, registry


def _living(
    settings: Settings,
    database: "Database",
    door: "Door",
    places: "SandboxPlaces",
    catalogue: "Catalogue",
) -> "LivingSandboxes":
    from runner.fleet.directory import NodeDirectory
    from runner.sandboxes.living import LivingSandboxes

    nodes = NodeDirectory(database, zone=settings.zone)
    return LivingSandboxes(database, door, places, catalogue, nodes)


def _templates(
    living: "LivingSandboxes", using: "Using", objects: "ObjectStore", vault: "Vault"
) -> "Templates":
    from runner.templates.building import Building
    from runner.templates.builds import Templates

    return Templates(living, Building(living.database, living, using, objects, vault))


async def _worker(settings: Settings) -> None:
    from runner.node.service import worker as working

    require_sound(settings)
    stop, started = stop_requested(), asyncio.Event()

    async def work() -> None:
        async with working(
            settings,
            database_url=required(settings.database_worker_url, "RUNNER_DATABASE_WORKER_URL"),
            redis_url=required(settings.redis_url, "RUNNER_REDIS_URL"),
        ):
            started.set()
            _settle_in()
            await stop.wait()

    async def leave() -> None:
        await stop.wait()
        if not started.is_set():  # It may wait for Docker, as long as that is away.
            raise _StoppedEarly

    with suppress(_StoppedEarly):
        await attended(work(), leave())


async def _dev(settings: Settings) -> None:
    from runner.embedded.stack import stack

    stop = stop_requested()
    async with stack(settings) as running:
        with out.status("starting"):
            await running.ready()
        key = await first_key(running.services.owner_url, settings)
        with announced(settings, Beside.of(running, key.token)):
            _welcome(settings, running.url, key.token)
            await running.watch(stop)
            out.print("stopping …")


def _welcome(settings: Settings, url: str, key: str) -> None:
    """Say where everything is and what to type, in lines that can be copied unchanged."""
    exports = {"RUNNER_URL": url, "RUNNER_API_KEY": key}
    if "state_dir" in settings.model_fields_set:
        exports = {"RUNNER_STATE_DIR": str(settings.state_dir.absolute()), **exports}
    out.print("[bold]runner dev[/] runs. Try it in another terminal:\n")
    for line in (
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        *(f"export {name}={shlex.quote(value)}" for name, value in exports.items()),
        "echo 'print(6 * 7)' > hello.py",
        "runner run hello.py",
    ):
        # Unchanged: without markup or colour and never cut, so that it can be copied.
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"\nThe key is of the tenant dev and may do everything. {url}/docs describes the API;\n"
        f"logs are in {shown(str(settings.state_dir / 'log'))}. Stop with Ctrl-C.",
        highlight=False,
        soft_wrap=True,
    )


def stop_requested() -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set; call it inside the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop
