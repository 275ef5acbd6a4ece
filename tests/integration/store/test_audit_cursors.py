"""Cursors: one deliverer at a time, in order, and a batch that was not taken is sent again."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import psycopg
import pytest

from runner.audit import events as audit
from runner.audit.chain import ZERO, Link, link_hash
from runner.audit.delivery import Batch, Undelivered
from runner.audit.forward import Forwarder
from runner.audit.outbound import Guard
from runner.audit.syslog import Receiver, Syslog
from runner.egress.addresses import networks
from runner.egress.names import Address
from runner.ids import new_id
from runner.store.db import Database

SINK = "syslog"
BODY = '{"action":"execution:end","at":"2026-01-02T03:04:05.000006Z","outcome":"success"}'
Connection = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def superuser(superuser: Connection) -> Connection:
    """Return a connection of a superuser, with no other test's chain left to deliver."""
    superuser.execute(
        "INSERT INTO audit_cursors (tenant_id, sink, seq) SELECT tenant_id, %s, 1000000 "
        "FROM audit_heads ON CONFLICT (tenant_id, sink) DO UPDATE SET seq = 1000000",
        [SINK],
    )
    return superuser


async def grown(worker: Database, tenant: UUID, records: int) -> None:
    """Append records to a tenant's log."""
    for _ in range(records):
        event = audit.AuditEvent("key:a", audit.Action.EXECUTION_END, audit.Outcome.SUCCESS)
        async with worker.tenant(tenant) as tx:
            await audit.append(tx, tenant, event)


async def test_several_workers_deliver_each_chain_in_order_and_one_at_a_time(
    worker: Database, superuser: Connection
) -> None:
    """Eight forwarders, four chains, batches of a hundred: no record twice, none before another."""
    tenants = [new_id() for _ in range(4)]
    await asyncio.gather(*(grown(worker, tenant, 150) for tenant in tenants))
    taken: dict[UUID, list[int]] = {tenant: [] for tenant in tenants}
    at_once: dict[UUID, int] = dict.fromkeys(tenants, 0)

    async def deliver(batch: Batch) -> None:
        at_once[batch.tenant] += 1
        assert at_once[batch.tenant] == 1
        await asyncio.sleep(0.01)
        taken[batch.tenant] += [link.seq for link in batch.links]
        at_once[batch.tenant] -= 1

    async def work(forwarder: Forwarder) -> None:
        while await forwarder.deliver_next(SINK):
            pass

    await asyncio.gather(*(work(Forwarder(worker, {SINK: deliver})) for _ in range(8)))
    # A forwarder that found a chain claimed stopped; what was left is delivered now.
    await work(Forwarder(worker, {SINK: deliver}))
    assert taken == {tenant: list(range(1, 151)) for tenant in tenants}


async def test_a_batch_of_a_worker_that_died_is_sent_again_and_its_late_word_is_refused(
    worker: Database, superuser: Connection
) -> None:
    """Nobody takes it while the lease lasts; then from where the cursor stood."""
    tenant = new_id()
    await grown(worker, tenant, 3)
    taken: list[tuple[str, int]] = []
    hung = asyncio.Event()

    async def hangs(batch: Batch) -> None:
        taken.append(("first", batch.last))
        hung.set()
        await asyncio.sleep(0.5)

    async def takes(batch: Batch) -> None:
        taken.append(("second", batch.last))

    first = asyncio.create_task(Forwarder(worker, {SINK: hangs}).deliver_next(SINK))
    await hung.wait()
    second = Forwarder(worker, {SINK: takes})
    assert not await second.deliver_next(SINK)
    superuser.execute("UPDATE audit_cursors SET due_at = now() WHERE tenant_id = %s", [tenant])
    await grown(worker, tenant, 2)
    assert await second.deliver_next(SINK)
    await first
    assert taken == [("first", 3), ("second", 5)]
    found = superuser.execute(
        "SELECT seq, failures FROM audit_cursors WHERE tenant_id = %s", [tenant]
    ).fetchone()
    assert found == {"seq": 5, "failures": 0}


async def test_a_failure_waits_longer_each_time(worker: Database, superuser: Connection) -> None:
    """1, 2, 4 … 300 seconds; and a fault of ours is one, too."""
    tenant = new_id()
    await grown(worker, tenant, 1)

    async def fails(_: Batch) -> None:
        raise LookupError("a fault of ours")

    waits = []
    for _ in range(10):
        superuser.execute("UPDATE audit_cursors SET due_at = now() WHERE tenant_id = %s", [tenant])
        assert await Forwarder(worker, {SINK: fails}).deliver_next(SINK)
        row = superuser.execute(
            "SELECT extract(epoch FROM due_at - now()) AS wait, problem FROM audit_cursors "
            "WHERE tenant_id = %s",
            [tenant],
        ).fetchone()
        assert row is not None
        waits.append(round(row["wait"]))
        assert row["problem"] == "a fault of ours; the operator's log has it"
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


async def test_a_log_with_a_gap_is_not_forwarded_past_it(
    worker: Database, superuser: Connection
) -> None:
    """What is missing was deleted: a receiver must not think that it has everything."""
    tenant = new_id()
    await grown(worker, tenant, 3)
    with superuser.transaction():
        superuser.execute("SET LOCAL session_replication_role = replica")
        superuser.execute("DELETE FROM audit_events WHERE tenant_id = %s AND seq = 1", [tenant])
    taken: list[Batch] = []

    async def takes(batch: Batch) -> None:
        taken.append(batch)

    assert await Forwarder(worker, {SINK: takes}).deliver_next(SINK)
    assert taken == []


@contextmanager
def receiving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a TCP server that serves one connection; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def to_syslog(port: int, *, trusted: Sequence[str] = ("127.0.0.0/8",)) -> Syslog:
    """Return the sink for a receiver on loopback."""

    async def lookup(_: str) -> Sequence[Address]:
        return [ip_address("127.0.0.1")]

    return Syslog(
        Guard(lookup, networks(trusted)),
        ssl.create_default_context(),
        Receiver("siem.example.test", port, tls=False),
        hostname="node-1",
    )


LINK = Link(1, BODY, ZERO, link_hash(ZERO, 1, BODY))
BATCH = Batch(UUID(int=7), tuple(replace(LINK, seq=seq) for seq in range(1, 101)))


async def test_syslog_over_tcp_arrives_whole() -> None:
    """A hundred messages, each behind the number of its octets."""
    received = bytearray()

    def serve(connection: socket.socket) -> None:
        while piece := connection.recv(65536):
            received.extend(piece)

    with receiving(serve) as port:
        await to_syslog(port).deliver(BATCH)
        await asyncio.sleep(0)  # The loop closes the connection, for which the receiver waits.
    assert received.count(b"<110>1 ") == 100


@pytest.mark.parametrize("read", [0, 1000])
async def test_a_syslog_receiver_that_goes_away_has_not_taken_the_batch(read: int) -> None:
    """At once, or in the middle: its host resets what it did not read."""

    def serve(connection: socket.socket) -> None:
        if read:
            connection.recv(read)

    with receiving(serve) as port, pytest.raises(Undelivered) as refused:
        await to_syslog(port).deliver(large())
    assert refused.value.problem == "it closed the connection"


def large() -> Batch:
    """Return a batch larger than what sockets buffer."""
    body = BODY.replace('"success"', '"success","text":"' + "x" * 200_000 + '"')
    return replace(BATCH, links=tuple(replace(LINK, seq=n, body=body) for n in range(1, 101)))


async def test_syslog_passes_the_same_guard() -> None:
    """An address that the operator does not trust is not connected to."""
    with pytest.raises(Undelivered, match="not a public address"):
        await to_syslog(9, trusted=()).deliver(BATCH)
