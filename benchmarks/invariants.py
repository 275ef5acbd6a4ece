"""Invariants of a deployment after a stress test: nothing lost, repeated or left behind."""

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from uuid import UUID

import docker
import psutil
import psycopg
from pydantic import SecretStr

from benchmarks.attacks import LEAVES, Book
from runner.audit.checkpoints import verify_log
from runner.base.settings import Settings
from runner.base.signing import TrustedKeys
from runner.embedded.stack import Stack
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.words.states import ENDED

SETTLED_S = 240.0
_LEDGER = b"""
    SELECT tenant_id, d.attempts, r.attempts, d.cpu_s, r.cpu_s FROM
        (SELECT tenant_id, sum(attempts) AS attempts, sum(cpu_s) AS cpu_s
         FROM usage_days GROUP BY 1) d
        FULL JOIN
        (SELECT tenant_id, count(*) FILTER (WHERE kind = 'execution') AS attempts,
                sum(cpu_s) AS cpu_s FROM usage_records GROUP BY 1) r USING (tenant_id)
    WHERE (d.attempts, d.cpu_s) IS DISTINCT FROM (r.attempts, r.cpu_s)"""
_WITHOUT_RECEIPT = b"""
    SELECT execution_id FROM executions e WHERE state = ANY(%(ended)s)
    AND NOT EXISTS (SELECT FROM receipts r WHERE r.execution_id = e.execution_id) LIMIT 5"""
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Visits:
    """A server that programs of executions visit, each at a path `/ON_WORKER_LOSS/NAME` of its own.

    It lies outside of the deployment: what it counts has happened, whatever is recorded of it.
    """

    def __init__(self) -> None:
        self.port = 0
        self.paths: Counter[str] = Counter()

    @classmethod
    @asynccontextmanager
    async def counted(cls, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Self]:
        """Serve inside the context."""
        visits = cls()
        server = await asyncio.start_server(visits._serve, address, port)
        visits.port = server.sockets[0].getsockname()[1]
        async with server:
            yield visits

    def unasked(self, book: Book) -> list[str]:
        """Return what ran twice without having asked for it; write down how many have run."""
        book.done["programs that visited"] = len(self.paths)
        if not self.paths:
            return ["no program reached the server that counts visits"]
        return [
            f"the program that visited {path} ran {times} times"
            for path, times in self.paths.items()
            if times > 1 and path.startswith("/fail/")
        ]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.paths[head.split()[1].decode()] += 1
            writer.write(_ANSWER)
            await writer.drain()
        writer.close()


class _Reader:
    """Reads what a deployment has stored, as a superuser."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def rows(self, statement: bytes, **values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        return await (await self._connection.execute(statement, values)).fetchall()


async def broken(url: str, settings: Settings, book: Book) -> list[str]:
    """Wait until everything accepted has ended; return what is not as it should be.

    `url` is a superuser's, for the database of the deployment that has these settings.
    """
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        reader = _Reader(connection)
        return [
            *await _not_once(reader, book),
            *await _begun_again(reader),
            *await _bytes_lost(reader, settings),
        ]


async def _not_once(reader: _Reader, book: Book) -> list[str]:
    """Return the executions that do not end, that are gone, and that have not exactly one end."""
    deadline = time.monotonic() + SETTLED_S
    ended = [str(state) for state in ENDED]
    wrong = []
    open_ = b"SELECT execution_id, state FROM executions WHERE NOT state = ANY(%(ended)s)"
    while (  # noqa: ASYNC110 - nobody tells
        left := await reader.rows(open_, ended=ended)
    ) and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    wrong += [f"execution {id_} is still {state}" for id_, state in left[:5]]
    if len(left) > 5:  # noqa: PLR2004 - enough to look into
        wrong.append(f"and {len(left) - 5} more have not ended")
    known = {str(id_) for (id_,) in await reader.rows(b"SELECT execution_id FROM executions")}
    wrong += [f"execution {id_} was accepted and is gone" for id_ in {*book.accepted} - known]
    twice = b"""SELECT resource_id, count(*) FROM audit_events
                WHERE action = 'execution:end' GROUP BY 1 HAVING count(*) <> 1"""
    wrong += [f"execution {id_} ended {n} times" for id_, n in await reader.rows(twice)]
    ends = b"SELECT count(DISTINCT resource_id) FROM audit_events WHERE action = 'execution:end'"
    ((count,),) = await reader.rows(ends)
    if count != len(known) - len(left):
        wrong.append(f"{len(known) - len(left)} executions ended, {count} have a record of it")
    book.done["executions accepted and ended"] = len(known) - len(left)
    return wrong


async def _begun_again(reader: _Reader) -> list[str]:
    """Return the executions that began twice on record though they had not asked for it."""
    again = b"""SELECT resource_id, count(*) FROM audit_events
                JOIN executions ON execution_id::text = resource_id
                WHERE action = 'execution:start' AND on_worker_loss = 'fail'
                GROUP BY 1 HAVING count(*) > 1"""
    return [f"execution {id_} began {n} times" for id_, n in await reader.rows(again)]


async def _bytes_lost(reader: _Reader, settings: Settings) -> list[str]:
    """Return the artifacts that were neither kept nor named, and the objects without bytes."""
    unnamed = b"""
        SELECT execution_id FROM executions e
        WHERE state = 'succeeded' AND metadata ? %(label)s::text
        AND NOT EXISTS (
            SELECT FROM artifacts a WHERE (a.tenant_id, a.execution_id, a.path)
                = (e.tenant_id, e.execution_id, e.metadata ->> %(label)s::text))
        AND NOT EXISTS (
            SELECT FROM jsonb_array_elements_text(e.result -> 'artifacts_refused') refused
            WHERE refused LIKE (e.metadata ->> %(label)s::text) || ': %%')"""
    wrong = [
        f"execution {id_} neither kept nor named what it left"
        for (id_,) in await reader.rows(unnamed, label=LEAVES)
    ]
    stored = await reader.rows(
        b"""SELECT tenant_id, object_key FROM artifacts
            UNION SELECT tenant_id, object_key FROM files"""
    )
    there = await _keys(settings, {tenant_id for tenant_id, _ in stored})
    return wrong + [f"the bytes of {key} are lost" for _, key in stored if key not in there]


async def _keys(settings: Settings, tenants: Iterable[UUID]) -> set[str]:
    """Return the keys of all objects of tenants, as a new process sees them.

    obstore's threads stay in the network namespace in which a process has used it first.
    """
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        return await loop.run_in_executor(apart, _listed, settings, [*tenants])


def _listed(settings: Settings, tenants: Iterable[UUID]) -> set[str]:
    async def listed() -> set[str]:
        objects = ObjectStore.open(settings)
        return {
            key for tenant_id in tenants async for some in objects.keys(tenant_id) for key in some
        }

    return asyncio.run(listed())


async def unproven(url: str, settings: Settings) -> list[str]:
    """Return what the ledger, the audit logs, the checkpoints and the receipts do not bear out."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        reader = _Reader(connection)
        wrong = [
            f"the ledger of tenant {tenant} does not add up: {figures}"
            for tenant, *figures in await reader.rows(_LEDGER)
        ]
        tenants = await reader.rows(b"SELECT DISTINCT tenant_id FROM audit_events")
        lacking = await reader.rows(_WITHOUT_RECEIPT, ended=[str(state) for state in ENDED])
        wrong += [f"execution {id_} has ended without a receipt" for (id_,) in lacking]
    keys = TrustedKeys(settings.state_dir).read()
    async with Database(SecretStr(url), max_size=2) as superuser:
        for (tenant,) in tenants:
            fault = (await verify_log(superuser, tenant, keys)).verdict.fault
            if fault is not None:
                wrong.append(f"the log of {tenant} does not hold: {fault.what}")
    return wrong


def processes(running: Stack) -> list[psutil.Process]:
    """Return every process of a deployment."""
    services = running.services
    parents = (running.api.pid, running.worker.pid, services.postgres.pid, services.redis.pid)
    return [
        each
        for pid in parents
        for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    ]


def left_behind(settings: Settings, processes: list[psutil.Process]) -> list[str]:
    """Return what a deployment that has ended left behind on this host."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    client = docker.APIClient(settings.docker_url, version="auto", timeout=30)
    try:
        label = f"runner.node={settings.node_id}"
        containers = client.containers(all=True, filters={"label": label})
    finally:
        client.close()
    sockets = list((settings.run_dir / "sandboxes").iterdir())
    return [
        *(f"process {each.pid} is left: {each.cmdline()}" for each in alive),
        *(f"container {each['Id'][:12]} is left" for each in containers),
        *(f"socket folder {each.name} is left" for each in sockets),
    ]
