"""The work that goes on while the faults of `benchmarks.chaos` happen: executions and sandboxes."""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from agent_runner import Client
from benchmarks.attacks import HOST, LEAVES, VISITED, Book, ask
from benchmarks.resident_work import Findings, SandboxWork
from runner.words.states import ENDED

CLIENTS = 3
SANDBOXES = 4
EVERY_S = 0.5
"""How often a sandbox is used."""
GIVE_UP_S = 90.0
PROGRAMS: tuple[dict[str, Any], ...] = (
    {"command": ["sh", "-c", "curl -s $0; sleep 1", VISITED], "egress": [VISITED]},
    {"code": "print(1)", "language": "python"},
    {
        "code": "open('a.txt', 'w').write('x' * 100000); print(1)", "language": "python",
        "metadata": {LEAVES: "a.txt"},
    },
    {"command": ["sh", "-c", "sleep 0.2; exit 3"]},
)  # fmt: skip
LONG = {"command": ["sleep", "600"], "on_worker_loss": "retry", "size": "nano"}


class Executions:
    """Clients that submit one execution after another, and repeat what was not answered."""

    def __init__(self, port: int, key: str, visited: int, book: Book) -> None:
        self.book = book
        self.over = asyncio.Event()
        self._port = port
        self._key = key
        self._visited = visited
        self._programs = itertools.cycle(PROGRAMS)
        self._waiting: dict[str, asyncio.Future[str]] = {}

    async def run(self) -> None:
        """Submit until it is over."""
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        while not self.over.is_set():
            await self.submit(self._program())

    def _program(self) -> dict[str, Any]:
        on_loss = random.choice(("fail", "retry"))  # noqa: S311 - no secret
        body = {**next(self._programs), "on_worker_loss": on_loss, "wait_s": 20}
        if body.get("egress"):
            site = f"http://{HOST}:{self._visited}"
            visit = f"{site}/{on_loss}/{uuid4()}"
            body["command"] = [each.replace(VISITED, visit) for each in body["command"]]
            body["egress"] = [site]
        return body

    async def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        """Submit until the answer has come that it is accepted; return that answer."""
        once = {"Idempotency_Key": str(uuid4())}
        while True:
            found = await self._asked("POST", "/v1/executions", body, **once)
            if found is not None:
                self.book.accepted.append(found["id"])
                self._tell("accepted", found["id"])
                if found["state"] in ENDED:
                    self._tell("ended", found["id"])
                return found

    async def read(self, id_: str) -> dict[str, Any]:
        """Return an execution, once the API answers."""
        while True:
            found = await self._asked("GET", f"/v1/executions/{id_}")
            if found is not None:
                return found

    async def accepted(self) -> str:
        """Return the next execution that is accepted."""
        return await self._next("accepted")

    async def ended(self) -> str:
        """Return the next execution whose end was told."""
        return await self._next("ended")

    async def poison(self) -> str:
        """Submit an execution that runs for long and asks to be tried again; return its id."""
        return str((await self.submit(dict(LONG)))["id"])

    async def _asked(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> dict[str, Any] | None:
        """Return the answer; None, after a moment, if there is none or it says to come again."""
        try:
            reply = await ask(self._port, method, path, self._key, body, **headers)
        except (OSError, EOFError, TimeoutError):
            self.book.done["no answer"] += 1
            await asyncio.sleep(0.2)
            return None
        self.book.note("clients", reply)
        if reply.status in {200, 202} and reply.complete:
            return reply.json()
        if reply.status < 500 and reply.status not in {200, 202, 409}:  # noqa: PLR2004 - HTTP's own
            self.book.wrong[f"{method} {path}: {reply.status} {reply.title}"] += 1
        await asyncio.sleep(min(reply.retry_after or 0.2, 1.0))
        return None

    def _next(self, what: str) -> "asyncio.Future[str]":
        loop = asyncio.get_running_loop()
        return self._waiting.setdefault(what, loop.create_future())

    def _tell(self, what: str, id_: str) -> None:
        if waiting := self._waiting.pop(what, None):
            waiting.set_result(id_)


class Sandboxes:
    """Sandboxes that live and work in threads of their own."""

    def __init__(self, clients: Sequence[Client], threads: ThreadPoolExecutor) -> None:
        self.findings = Findings()
        self._threads = threads
        self._over = threading.Event()
        self._works = [
            SandboxWork(
                clients[number % len(clients)], number, self.findings, self._over, every_s=EVERY_S
            )
            for number in range(SANDBOXES)
        ]
        self._going: list[asyncio.Future[None]] = []

    async def begin(self) -> None:
        """Make them, and let them work."""
        await self._each(SandboxWork.begin)
        for act in (SandboxWork.work, SandboxWork.follow):
            self._going.append(asyncio.ensure_future(self._each(act)))

    async def answer(self) -> None:
        """Return once each answers."""
        await self._each(self._await)

    def _await(self, work: SandboxWork) -> None:
        until = time.monotonic() + GIVE_UP_S
        while not work.answers():
            if time.monotonic() > until:
                self.findings.wrong.append(f"{work} does not answer any more")
                return
            time.sleep(0.1)

    async def end(self) -> None:
        """Let the work end, look whether anything is missing, and end them."""
        self._over.set()
        await self._going[0]
        await self._each(SandboxWork.settle)
        await self._going[1]
        await self._each(SandboxWork.end)

    async def _each(self, act: Callable[[SandboxWork], None]) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.run_in_executor(self._threads, act, each) for each in self._works)
        )
