"""Living sandboxes of a deployment, used as the API uses them but for its HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from pydantic import SecretStr

from runner.audit import events as audit
from runner.audit.events import Filter, Origin
from runner.auth.caller import Caller
from runner.door.client import AWAY_S, Door
from runner.egress.policy import load_ceiling
from runner.fleet.directory import NodeDirectory
from runner.quotas.sizes import load_sizes
from runner.sandboxes.catalogue import Catalogue
from runner.sandboxes.living import LivingSandboxes
from runner.sandboxes.order import LivingOrder
from runner.sandboxes.place import SandboxPlaces
from runner.sandboxes.use import Using
from runner.store.db import Database
from runner.store.sandboxes import SandboxListing
from runner.words.execution import Stream
from runner.words.ids import new_id
from runner.words.living import Launch, OutputGap, OutputPiece, ProcessEnd, ProcessInfo
from runner.words.principal import Principal, PrincipalKind, Role
from tests.support.deployment import Deployment

SMALL = LivingOrder(size="small")


@dataclass(frozen=True, slots=True)
class Ran:
    """A process that was started and followed to its end."""

    process: ProcessInfo
    stdout: bytes
    stderr: bytes
    gaps: tuple[OutputGap, ...]
    end: ProcessEnd | None


@dataclass(frozen=True, slots=True)
class Agent:
    """Somebody who works in sandboxes of a tenant."""

    name: str
    """The tenant's."""
    caller: Caller
    living: LivingSandboxes
    using: Using
    database: Database

    async def run(self, sandbox: UUID, *argv: str, **options: object) -> Ran:
        """Start a process and follow it to its end."""
        launch = Launch(argv, **options)  # type: ignore[arg-type]  # by name
        async with self.using.start(self.caller, sandbox, launch) as stream:
            return ran(stream.process, [each async for each in stream.output()], stream.end)

    async def read(self, sandbox: UUID, number: int, offset: int = 0) -> Ran:
        """Read what a process wrote, until it has ended."""
        async with self.using.attach(self.caller, sandbox, number, offset=offset) as stream:
            return ran(stream.process, [each async for each in stream.output()], stream.end)

    async def records(self) -> list[dict[str, object]]:
        """Return the tenant's audit records."""
        async with self.database.tenant(self.caller.tenant_id) as tx:
            return [json.loads(each.body) for each in await audit.list_after(tx, 0, Filter(), 1000)]


def ran(process: ProcessInfo, output: list[OutputPiece | OutputGap], end: ProcessEnd | None) -> Ran:
    """Return what was heard of a process."""
    pieces = [each for each in output if isinstance(each, OutputPiece)]
    return Ran(
        process=process,
        stdout=b"".join(each.data for each in pieces if each.stream is Stream.STDOUT),
        stderr=b"".join(each.data for each in pieces if each.stream is Stream.STDERR),
        gaps=tuple(each for each in output if isinstance(each, OutputGap)),
        end=end,
    )


@asynccontextmanager
async def agent(deployment: Deployment, tenant: str) -> AsyncIterator[Agent]:
    """Return somebody of a tenant; what still lives of it is killed at the end."""
    settings = deployment.stack.settings
    deployment.client(tenant)
    (row,) = deployment.sql("SELECT tenant_id FROM tenants WHERE name = %s", tenant)
    principal = Principal(row["tenant_id"], new_id(), PrincipalKind.KEY, "test", Role.DEVELOPER)
    async with Database(SecretStr(deployment.stack.services.api_url), max_size=4) as database:
        catalogue = Catalogue(
            sizes=load_sizes(settings.profiles_path),
            images={"python": frozenset({"python"})},
            isolations=settings.isolation,
            egress_ceiling=load_ceiling(settings.profiles_path),
        )
        places = SandboxPlaces(database)
        door = Door(settings.door_dir, away_s=settings.patient(AWAY_S))
        living = LivingSandboxes(database, door, places, catalogue, NodeDirectory(database))
        made = Agent(
            tenant,
            Caller(principal, Origin(ip="203.0.113.7")),
            living,
            Using(door, places, living.may_resume),
            database,
        )
        yield made
        for each in await living.list_some(made.caller, SandboxListing(limit=100)):
            await living.kill(made.caller, each.id)
