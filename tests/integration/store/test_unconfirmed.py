"""PostgreSQL goes away at the end of a change: nobody is told that nothing was stored."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from runner.audit import events as audit
from runner.embedded.services import Services
from runner.store import db, executions, transaction
from runner.store.db import Database
from runner.words.errors import StoreUnavailable, Unconfirmed
from runner.words.ids import new_id
from tests.integration.store.conftest import REQUEST, SUBMITTED, new_tenant
from tests.support.networks import POSTGRES, Network

Change = Callable[[Database, UUID], Awaitable[None]]
IDLE = b"Z\0\0\0\5I"
"""PostgreSQL's word that no transaction is in progress any more (ReadyForQuery)."""


@pytest.fixture
async def network() -> Network:
    """Return a network that carries everything."""
    return Network()


@pytest.fixture
async def far_away(postgres: Services, network: Network, tmp_path: Path) -> AsyncIterator[Database]:
    """Return a pool of the API's role, at the other end of the network."""
    real = postgres.postgres.sockets
    async with network.to(real / POSTGRES, tmp_path / POSTGRES):
        url = postgres.api_url.replace(str(real), str(tmp_path))
        async with Database(SecretStr(url), max_size=1) as database:
            async with database.statements() as tx:
                await tx.one("session.ping")
            yield database


@contextmanager
def ending_at_a_commit(superuser: Any) -> Iterator[None]:
    """Have PostgreSQL end each connection that commits a new execution, as in a shutdown."""
    superuser.execute(
        "CREATE FUNCTION goes_away() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
    )
    superuser.execute(
        "CREATE CONSTRAINT TRIGGER goes_away AFTER INSERT ON executions "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION goes_away()"
    )
    try:
        yield
    finally:
        superuser.execute("DROP TRIGGER goes_away ON executions")
        superuser.execute("DROP FUNCTION goes_away()")


async def _without_reading(database: Database, tenant: UUID) -> None:
    async with database.tenant(tenant) as tx:
        executions.insert_later(tx, new_id(), REQUEST)
        audit.append(tx, tenant, SUBMITTED)


async def _after_reading(database: Database, tenant: UUID) -> None:
    """Write once the transaction has begun: the COMMIT is no part of the first round trip."""
    async with database.tenant(tenant) as tx:
        await executions.get(tx, new_id())
        executions.insert_later(tx, new_id(), REQUEST)
        await tx.flush()


async def _in_one_round_trip(database: Database, tenant: UUID) -> None:
    await database.at_once(tenant, ("audit.append", {"body": audit.body(tenant, SUBMITTED)}))


def _stored(superuser: Any, tenant: UUID) -> bool:
    row = superuser.execute(
        "SELECT EXISTS (SELECT FROM executions WHERE tenant_id = %(tenant)s) OR EXISTS "
        "(SELECT FROM audit_events WHERE tenant_id = %(tenant)s AND action = %(action)s) AS stored",
        {"tenant": tenant, "action": SUBMITTED.action.value},
    ).fetchone()
    return bool(row["stored"])


CHANGES = (_without_reading, _after_reading, _in_one_round_trip)


def _named(change: Change) -> str:
    return change.__name__.strip("_").replace("_", "-")


@pytest.mark.parametrize("change", CHANGES, ids=_named)
async def test_a_change_whose_confirmation_is_lost_is_unconfirmed(
    far_away: Database, network: Network, owner: Database, superuser: Any, change: Change
) -> None:
    """It is stored, and the error does not deny it."""
    tenant = await new_tenant(owner, f"unconfirmed-{_named(change)}")
    network.lost = IDLE
    with pytest.raises(Unconfirmed, match="may be stored or not"):
        await change(far_away, tenant)
    assert _stored(superuser, tenant)


@pytest.mark.parametrize("change", CHANGES[:2], ids=_named)
async def test_a_commit_during_which_postgres_shuts_down_is_unconfirmed(
    api: Database, owner: Database, superuser: Any, change: Change
) -> None:
    """PostgreSQL's last word says only that it ends; here, it had stored nothing."""
    tenant = await new_tenant(owner, f"shut-down-{_named(change)}")
    with ending_at_a_commit(superuser), pytest.raises(Unconfirmed, match="or not"):
        await change(api, tenant)
    assert not _stored(superuser, tenant)
    await change(api, tenant)
    assert _stored(superuser, tenant)


async def test_what_is_cut_off_before_its_end_is_not_stored(
    far_away: Database, network: Network, owner: Database, superuser: Any
) -> None:
    """The error is the plain one then: nobody has to look."""
    tenant = await new_tenant(owner, "cut-off-before")

    async def cut_off() -> None:
        async with far_away.tenant(tenant) as tx:
            audit.append(tx, tenant, SUBMITTED)
            network.lost = b"Z"
            await executions.get(tx, new_id())

    with pytest.raises(StoreUnavailable) as told:
        await cut_off()
    assert not isinstance(told.value, Unconfirmed)
    assert not _stored(superuser, tenant)


async def test_without_the_look_at_the_end_a_stored_change_seems_refused(
    far_away: Database,
    network: Network,
    owner: Database,
    superuser: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: the plain error, which promises that nothing is stored, and it is."""
    for module in (db, transaction):
        monkeypatch.setattr(module, "unconfirmed", nullcontext)
    for change in CHANGES:
        tenant = await new_tenant(owner, f"denied-{_named(change)}")
        network.lost = None
        async with far_away.statements() as tx:
            await tx.one("session.ping")
        network.lost = IDLE
        with pytest.raises(StoreUnavailable) as told:
            await change(far_away, tenant)
        assert not isinstance(told.value, Unconfirmed)
        assert _stored(superuser, tenant)
