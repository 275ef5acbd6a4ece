"""Invariants of a deployment after a stress test: nothing lost, repeated or left behind."""

import asyncio
import time
from typing import Any

import docker
import psutil
import psycopg

from benchmarks.attacks import Book
from runner.base.settings import Settings
from runner.embedded.stack import Stack
from runner.words.states import ENDED

SETTLED_S = 240.0


async def broken(running: Stack, book: Book) -> list[str]:
    """Wait until everything accepted has ended; return what is not as it should be."""
    deadline = time.monotonic() + SETTLED_S
    url = running.services.postgres.url("postgres")
    ended = [str(state) for state in ENDED]
    wrong = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def rows(statement: bytes, *values: Any) -> list[tuple[Any, ...]]:
            return await (await connection.execute(statement, values)).fetchall()

        open_ = b"SELECT execution_id, state FROM executions WHERE NOT state = ANY(%s)"
        while (left := await rows(open_, ended)) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        wrong += [f"execution {id_} is still {state}" for id_, state in left[:5]]
        if len(left) > 5:  # noqa: PLR2004 - enough to look into
            wrong.append(f"and {len(left) - 5} more have not ended")
        known = {str(id_) for (id_,) in await rows(b"SELECT execution_id FROM executions")}
        wrong += [f"execution {id_} was accepted and is gone" for id_ in {*book.accepted} - known]
        twice = b"""SELECT resource_id, count(*) FROM audit_events
                    WHERE action = 'execution:end' GROUP BY 1 HAVING count(*) <> 1"""
        wrong += [f"execution {id_} ended {n} times" for id_, n in await rows(twice)]
        ends = (
            b"SELECT count(DISTINCT resource_id) FROM audit_events WHERE action = 'execution:end'"
        )
        ((count,),) = await rows(ends)
        if count != len(known) - len(left):
            wrong.append(f"{len(known) - len(left)} executions ended, {count} have a record of it")
    book.done["executions accepted and ended"] = len(known) - len(left)
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
