"""A failure of the node that passes by itself is a 503, not an internal error."""

import asyncio
import errno
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from runner.api import problems
from runner.api.middleware import LastResort, RequestId
from runner.base.tracing import NoTracer
from runner.door.client import Door
from runner.node.measures import Measures
from runner.node.residents.door import open_door
from runner.node.residents.journal import Journal
from runner.node.starvation import starved
from runner.sandbox.guest import patience
from runner.sandbox.guest.patience import Patience
from runner.store.db import Database
from runner.words.errors import LaunchFailed, ProtocolViolation, SandboxLate
from runner.words.execution import Program
from tests.support.housed import house
from tests.unit.node.test_door import KNOCK, nobody

PASSES = {
    "no memory": (MemoryError(), "node_starved"),
    "no thread": (RuntimeError("can't start new thread"), "node_starved"),
    **{
        name: (OSError(getattr(errno, name), os.strerror(getattr(errno, name))), "node_starved")
        for name in ("EAGAIN", "ENOMEM", "EMFILE", "ENFILE", "ENOSPC")
    },
    "no container": (LaunchFailed("Docker refused: no space left"), "start_failed"),
    "no time": (SandboxLate("the sandbox did not start a program in time"), "late"),
}
STAYS = {
    "defect": ValueError("what nobody foresaw"),
    "no permission": PermissionError(errno.EACCES, "Permission denied"),
    "other loop": RuntimeError("the event loop is closed"),
    "broken protocol": ProtocolViolation("the sandbox sent nonsense"),
}


@asynccontextmanager
async def through_the_door(tmp_path: Path, error: Exception) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a route that knocks at the door of a node on which this fails."""

    async def fails(*_: object) -> None:
        raise error

    residents = nobody()
    setattr(residents, "create", fails)  # noqa: B010 - a method: mypy forbids the assignment
    app = FastAPI()
    problems.install(app)
    app.add_middleware(LastResort)
    app.add_middleware(RequestId)

    @app.post("/makes")
    async def makes() -> None:
        await Door(tmp_path / "door").create(KNOCK)

    journal = Journal(Database.__new__(Database))
    transport = httpx.ASGITransport(app=app)
    async with (
        open_door(
            tmp_path / "door",
            residents=residents,
            journal=journal,
            measures=Measures(),
            tracer=NoTracer(),
            node="n",
        ),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@pytest.mark.parametrize("name", PASSES)
async def test_what_passes_by_itself_is_told_with_a_time_and_a_reason(
    name: str, tmp_path: Path
) -> None:
    error, reason = PASSES[name]
    async with through_the_door(tmp_path, error) as client:
        answer = await client.post("/makes")
    assert (answer.status_code, answer.json().get("reason")) == (503, reason)
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("name", STAYS)
async def test_a_defect_stays_an_internal_error(name: str, tmp_path: Path) -> None:
    """Otherwise a client would try again for ever, and the operator would never hear of it."""
    async with through_the_door(tmp_path, STAYS[name]) as client:
        answer = await client.post("/makes")
    assert answer.status_code == 500
    assert "retry-after" not in answer.headers


def of_descriptors() -> None:
    """Open sockets until the kernel refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 8, hard)
    )
    try:
        while True:
            held.append(socket.socket(socket.AF_UNIX))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in held:
            each.close()


def of_memory() -> None:
    """Ask for more memory than any process may have."""
    bytearray(2**62)


def of_space() -> None:
    """Write to a device that is always full."""
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")


@pytest.mark.parametrize("run_short", [of_descriptors, of_memory, of_space])
def test_what_the_kernel_and_python_say_for_want_of_something_is_known(
    run_short: Callable[[], None],
) -> None:
    with pytest.raises((OSError, MemoryError)) as caught:
        run_short()
    assert starved(caught.value) is not None


async def test_a_process_that_is_not_started_in_time_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped supervisor is what a host without time for it looks like. Nothing runs later."""
    monkeypatch.setattr(patience, "START_S", 0.2)
    async with house(tmp_path) as home:
        home.waits = Patience(1)
        living = await home.start()
        assert home.process is not None
        touch = Program(("touch", "late"), {"PATH": os.environ["PATH"]}, cwd=".")
        home.process.send_signal(signal.SIGSTOP)
        with pytest.raises(SandboxLate, match="did not start a program in time"):
            await living.start(touch)
        home.process.send_signal(signal.SIGCONT)
        monkeypatch.setattr(patience, "START_S", 60.0)
        again = await living.start(Program(("true",), {"PATH": os.environ["PATH"]}, cwd="."))
        assert (await asyncio.wait_for(again.exited, 60)).exit_code == 0
        assert living.processes == [again]
        assert [each.process for each in await living.list_processes()] == [again.number]
