"""A migrated PostgreSQL for tests of the store alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from pydantic import SecretStr

from runner.audit import events as audit
from runner.base.settings import Settings
from runner.embedded.services import Services, services
from runner.quotas.sizes import load_sizes
from runner.quotas.tiers import load_tiers
from runner.store import executions
from runner.store.db import Database
from runner.store.migrations import migrate
from runner.tenants.tenancy import create_key, publish_tiers
from runner.words.execution import Claim, ExecutionRequest, Program, RunSpec
from runner.words.ids import new_id
from runner.words.principal import Role
from runner.words.resources import Limits
from runner.words.sandbox import SandboxSpec
from tests.support.deployment import state_folder

LIMITS = Limits(cpu=1, memory_mb=64, pids=8, disk_mb=8, timeout_s=5, output_kb=8)
REQUEST = ExecutionRequest(
    SandboxSpec("python", LIMITS.resources),
    RunSpec(Program(argv=("true",), env={}), LIMITS.bounds),
    size="nano",
)
LEASE = timedelta(minutes=1)
Claimed: TypeAlias = Callable[[str], Awaitable[Claim]]
SUBMITTED = audit.AuditEvent("submitter", audit.Action.EXECUTION_SUBMIT, audit.Outcome.SUCCESS)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Services]:
    """Return running services with the schema in place; migrating twice changes nothing."""
    with state_folder() as folder, services(folder, ephemeral=True) as running:
        for _ in range(2):
            migrate(SecretStr(running.owner_url))
        asyncio.run(publish(running))
        yield running


@contextmanager
def of_a_module() -> Iterator[Services]:
    """Run services for one module, as other tests' waiting executions would be claimed."""
    with state_folder() as folder, services(folder, ephemeral=True) as running:
        migrate(SecretStr(running.owner_url))
        asyncio.run(publish(running))
        yield running


async def publish(running: Services) -> None:
    """Publish the shipped tiers."""
    profiles = Settings().profiles_path
    async with Database(SecretStr(running.owner_url), max_size=1) as owner:
        await publish_tiers(owner, load_tiers(profiles, load_sizes(profiles)))


@pytest.fixture
async def owner(postgres: Services) -> AsyncIterator[Database]:
    """Return a pool of the schema's owner."""
    async with Database(SecretStr(postgres.owner_url), max_size=2) as database:
        yield database


@pytest.fixture
async def api(postgres: Services) -> AsyncIterator[Database]:
    """Return a pool of the API's role, with one connection: every use reuses it."""
    async with Database(SecretStr(postgres.api_url), max_size=1) as database:
        yield database


@pytest.fixture
async def operators(postgres: Services) -> AsyncIterator[Database]:
    """Return a pool of the operators' role."""
    async with Database(SecretStr(postgres.operator_url), max_size=1) as database:
        yield database


@pytest.fixture
async def worker(postgres: Services) -> AsyncIterator[Database]:
    """Return a pool of the worker's role."""
    async with Database(SecretStr(postgres.worker_url), max_size=4) as database:
        yield database


@pytest.fixture
def superuser(postgres: Services) -> Iterator["psycopg.Connection[dict[str, object]]"]:
    """Return a connection that no policy binds."""
    with psycopg.connect(
        postgres.postgres.url("postgres"), autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


async def new_tenant(owner: Database, name: str) -> UUID:
    """Make a tenant and return its id."""
    made = await create_key(owner, tenant=name, role=Role.OWNER, name="test", max_limits=LIMITS)
    return made.tenant_id


@pytest.fixture
def claimed(api: Database, owner: Database, superuser: Any) -> Claimed:
    """Return a function that claims a new tenant's only execution, whoever is next."""

    async def claim(name: str) -> Claim:
        made = Claim(execution_id=new_id(), tenant_id=await new_tenant(owner, name), attempt=1)
        async with api.tenant(made.tenant_id) as tx:
            executions.insert_later(tx, made.execution_id, REQUEST)
            audit.append(tx, made.tenant_id, SUBMITTED)
        superuser.execute(
            "UPDATE executions SET state = 'starting', attempt = 1, claimed_at = now(), "
            "lease_until = now() + interval '1 min' WHERE execution_id = %s",
            [made.execution_id],
        )
        return made

    return claim
