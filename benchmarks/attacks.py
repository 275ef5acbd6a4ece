"""The stress test's attacks on a deployment, from a process of its own, until told to stop.

Every answer is written into a book. Requests are written to sockets by hand: a client library would
neither reset a connection at a random moment nor send what strangers send.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import string
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from uuid import uuid4

import redis.asyncio
from redis.exceptions import RedisError

ANSWERED_S = 100.0
HOST = "example.test"
"""The name by which sandboxes reach this host."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of zero: close(2) then sends a reset."""
SECRET_LINES = 910
"""Lines of 8 characters and a line end: three such secrets have 8 KB each."""

CHATTY = "import time\nfor n in range(200): print(n, flush=True); time.sleep(0.1)"
BYTEWISE = """
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_DIRECT)
for n in range(30000): os.write(1, b'abcdefgh'[n % 8:n % 8 + 1])
"""
LEAVES = "leaves"
"""The label of executions that leave a file; its value is the file's name."""
VISITED = "{visited}"
"""Stands for an address of each execution's own, where it is counted how often its program ran."""
FILES = 40
MIXED: tuple[dict[str, Any], ...] = (
    {
        "code": "open('a.txt', 'w').write('x' * 100000); print(1)", "language": "python",
        "metadata": {LEAVES: "a.txt"},
    },
    {"code": "import sys; sys.exit(3)", "language": "python"},
    {"command": ["sleep", "5"], "limits": {"timeout_s": 1}},
    {"code": "bytearray(10**9)", "language": "python", "size": "nano"},
    {"command": ["sh", "-c", "head -c 3M /dev/zero"]},
    *2 * ({"command": ["sh", "-c", "curl -s $0; sleep 3", VISITED], "egress": [VISITED]},),
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """The address for requests, and the keys for each purpose."""

    port: int
    redis_url: str
    keys: Mapping[str, str]
    visited: int
    """Port of the server that counts visits."""


@dataclass
class Book:
    """Everybody's answers."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    """Answers of 5xx other than 503 with `Retry-After`, and connections that broke."""
    accepted: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def note(self, who: str, reply: "Reply") -> None:
        """Record one answer."""
        self.answers[who, reply.status] += 1
        if reply.status == 503 and reply.retry_after is not None:  # noqa: PLR2004 - HTTP's own
            return
        if who == "strangers" and reply.status == 501:  # noqa: PLR2004 - as above
            return  # An unknown method gets this answer (RFC 9110 §9.1).
        if reply.status >= 500:  # noqa: PLR2004 - as above
            self.wrong[f"{who}: {reply.status} {reply.title}"] += 1

    def add(self, other: "Book") -> None:
        """Add the pages of another book."""
        self.answers += other.answers
        self.wrong += other.wrong
        self.accepted += other.accepted
        self.done += other.done


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """The time after which to come back, in seconds."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isdigit() else None

    @property
    def complete(self) -> bool:
        """Whether the whole body arrived: a server that fails in the middle hangs up."""
        return len(self.body) == int(self.headers.get("content-length", len(self.body)))

    @property
    def title(self) -> str:
        """The title of a problem document; otherwise, the beginning of the body."""
        try:
            return str(self.json()["title"])
        except (ValueError, KeyError, TypeError):
            return repr(self.body[:60])

    def json(self) -> dict[str, Any]:
        """Return the body's object."""
        found: dict[str, Any] = json.loads(self.body)
        return found


def head(method: str, path: str, key: str = "", **headers: str) -> bytes:
    """Return a request's head."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    headers = {"Connection": "close", **headers}
    if key:
        lines.append(f"Authorization: Bearer {key}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def exchange(port: int, said: bytes, source: str = "127.0.0.1") -> Reply:
    """Send something on a connection of its own and return the answer.

    Raises OSError or EOFError if the other end hangs up first, and TimeoutError if it is silent.
    """
    async with asyncio.timeout(ANSWERED_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        try:
            writer.write(said)
            top = await reader.readuntil(b"\r\n\r\n")
            first, *lines = top.decode("latin-1").strip().split("\r\n")
            if not first.startswith("HTTP/"):
                raise EOFError(f"no answer but {top[:60]!r}")
            named = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in named}
            # Without a length, the body ends with the connection.
            length = int(headers.get("content-length", -1))
            body = b""
            while len(body) != length and (piece := await reader.read(2**16)):
                body += piece
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return Reply(int(first.split()[1]), headers, body)


async def ask(
    port: int, method: str, path: str, key: str, content: object = None, **headers: str
) -> Reply:
    """Return the answer to a valid request."""
    body = b"" if content is None else json.dumps(content).encode()
    if body:
        headers |= {"Content_Type": "application/json", "Content_Length": str(len(body))}
    return await exchange(port, head(method, path, key, **headers) + body)


async def submit(book: Book, target: Target, who: str, body: Mapping[str, Any]) -> str | None:
    """Submit as this tenant; return the id of the accepted execution."""
    name = {"Idempotency_Key": str(uuid4())}
    reply = await ask(target.port, "POST", "/v1/executions", target.keys[who], body, **name)
    book.note(who, reply)
    if reply.status not in {200, 202}:
        await asyncio.sleep(reply.retry_after or 1)
        return None
    id_ = str(reply.json()["id"])
    book.accepted.append(id_)
    return id_


async def resets(book: Book, target: Target) -> None:
    """Open a viewer's event stream and reset it at a random moment."""
    id_ = await submit(book, target, "viewed", {"code": CHATTY, "language": "python"})
    until = time.monotonic() + 15
    while id_ and time.monotonic() < until:
        said = head("GET", f"/v1/executions/{id_}/events", target.keys["viewer"])
        await asyncio.gather(*(_reset(book, target.port, said) for _ in range(3)))


async def _reset(book: Book, port: int, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.write(said)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(random.uniform(0, 0.5)):  # noqa: S311 - no secret
            first = await reader.readline()
            if first.startswith(b"HTTP/1.1 5"):
                rest = await reader.read()
                top, _, body = (first + rest).partition(b"\r\n\r\n")
                names = [line.partition(b":")[0].strip().lower() for line in top.split(b"\r\n")]
                retry = {"retry-after": "1"} if b"retry-after" in names else {}
                book.note("viewer", Reply(int(first.split()[1]), retry, body))
            await reader.read()
    writer.transport.abort()
    book.done["streams reset"] += 1


async def secrets(book: Book, target: Target) -> None:
    """Run a program with the secrets that cost most to mask, written byte by byte."""
    body = {
        "code": BYTEWISE, "language": "python", "limits": {"timeout_s": 8}, "wait_s": 30,
        "secret_env": {"A": "a", "B": "b", "C": "c"},
    }  # fmt: skip
    if await submit(book, target, "secrets", body):
        book.done["runs with the worst secrets"] += 1


async def store_secrets(book: Book, target: Target) -> None:
    """Store the worst secrets."""
    for name in ("a", "b", "c"):
        lines = ("".join(random.choices(string.ascii_letters, k=8)) for _ in range(SECRET_LINES))  # noqa: S311
        value = {"value": "\n".join(lines)}
        reply = await ask(target.port, "PUT", f"/v1/secrets/{name}", target.keys["secrets"], value)
        book.note("secrets", reply)
        if reply.status != 200:  # noqa: PLR2004 - HTTP's own
            raise RuntimeError(f"a secret was not stored: {reply}")


async def forged(book: Book, target: Target) -> None:
    """Put forged jobs into Redis."""
    async with redis.asyncio.Redis.from_url(target.redis_url, socket_timeout=10) as connection:
        with contextlib.suppress(RedisError):
            for _ in range(50):
                id_ = f"forged-{uuid4()}"
                job: dict[Any, Any] = {
                    "created_at": "2026-01-01T00:00:00.000000Z", "origin": "executions",
                    "status": "queued", "data": b'["os.system", null, ["true"], {}]',
                }  # fmt: skip
                await connection.hset(f"rq:job:{id_}", mapping=job)
                await connection.lpush("rq:queue:executions", id_)
                book.done["forged jobs"] += 1
    await asyncio.sleep(5)


async def strangers(book: Book, target: Target) -> None:
    """Send invalid requests: invented methods, odd headers and paths, made-up keys."""
    word = "".join(random.choices(string.ascii_uppercase, k=random.choice((5, 500, 28_000))))  # noqa: S311
    said = random.choice((  # noqa: S311
        head(word, "/v1/executions"),
        head("GET", f"/v1/{word[:2000]}"),
        head("GET", "/v1/executions%0a"),
        head("POST", "/v1/executions", "not-a-key", Content_Length="2") + b"{}",
        head("POST", "/v1/executions", X_A=word[:4000], Content_Length="2",
             Content_Type="application/json\r\nContent-Type: text/plain") + b"{}",
        head("GET", "/metrics"),
        head("GET", "/readyz"),
        word.encode() + b"\r\n\r\n",
    ))  # fmt: skip
    source = f"127.{random.randrange(1, 250)}.0.1"  # noqa: S311
    with contextlib.suppress(EOFError, ConnectionError):
        book.note("strangers", await exchange(target.port, said, source))
    book.done["strangers' requests"] += 1
    await asyncio.sleep(0.02)


async def work(book: Book, target: Target) -> None:
    """Do what tenants do: artifacts, failures, limits, requests to the outside."""
    body = random.choice(MIXED)  # noqa: S311
    on_loss = random.choice(("fail", "retry"))  # noqa: S311
    if body.get("egress"):
        site = f"http://{HOST}:{target.visited}"
        command = [each.replace(VISITED, f"{site}/{on_loss}/{uuid4()}") for each in body["command"]]
        body = {"command": command, "egress": [site]}
    if await submit(book, target, "busy", {**body, "on_worker_loss": on_loss, "wait_s": 20}):
        book.done["runs of a busy tenant"] += 1


async def files(book: Book, target: Target) -> None:
    """Write a file, and read it back: what was accepted is there, byte for byte."""
    content = random.randbytes(random.choice((100, 100_000, 300_000)))  # noqa: S311
    path, key = f"/v1/files/stress-{random.randrange(FILES)}", target.keys["busy"]  # noqa: S311
    # A server that refuses a body may hang up on whoever asked it to, before the answer is read.
    length = {
        "Content_Type": "application/octet-stream", "Content_Length": str(len(content)),
        "Connection": "keep-alive",
    }  # fmt: skip
    reply = await exchange(target.port, head("PUT", path, key, **length) + content)
    book.note("files", reply)
    if reply.status in {200, 201}:
        book.done["files written"] += 1
        reply = await exchange(target.port, head("GET", path, key))
        book.note("files", reply)
        if reply.complete and reply.status == 200:  # noqa: PLR2004 - HTTP's own
            book.done["files read back"] += 1
            if reply.body != content:
                book.wrong[f"files: {path} is not what was written"] += 1
    await asyncio.sleep(reply.retry_after or 3)


ATTACKS: tuple[Callable[[Book, Target], Awaitable[None]], ...] = (
    resets, secrets, forged, strangers, strangers, work, files,
)  # fmt: skip
"""Three of them have an execution running at a time. One more would take the last of a small host's
four slots, and the quiet tenant would wait for a slot, which would be load and not an attack."""


async def _attack(target: Target, told: Connection) -> Book:
    book = Book()
    await store_secrets(book, target)
    over = asyncio.Event()

    async def again(attack: Callable[[Book, Target], Awaitable[None]]) -> None:
        while not over.is_set():
            try:
                await attack(book, target)
            except (OSError, EOFError, TimeoutError) as error:
                # A part may be stopped for seconds, but the API itself never goes away.
                book.wrong[f"{attack.__name__}: {type(error).__name__}: {error}"] += 1
                await asyncio.sleep(1)

    told.send("ready")
    asyncio.get_running_loop().add_reader(told.fileno(), over.set)
    await asyncio.gather(*map(again, ATTACKS))
    return book


def attacker(target: Target, told: Connection) -> None:
    """Attack until a message arrives, then send the book. The main function of a process."""
    os.nice(5)  # Attackers have a lower priority than the parts that they attack.
    told.send(asyncio.run(_attack(target, told)))
