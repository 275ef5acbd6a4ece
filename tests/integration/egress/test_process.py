"""The egress proxy's process: what it is, and what it can no longer do."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import runner.egress.gateway
from runner.base.settings import project_root
from runner.egress.control import Control
from runner.egress.gateway import EgressGateway
from runner.egress.session import NOTHING, Decision
from runner.network.roots import read_roots
from runner.words.errors import SetupError
from tests.support.interruption import AGAIN, cancelled_everywhere
from tests.support.proxying import policy, way_out

PROFILES = project_root() / "profiles"
FOREVER_S = 3600.0
ENDS_S = 120.0
"""Longer than anything takes here, and much shorter than for ever."""

TRIES = """
import json, os, socket, sys, threading
from pathlib import Path
from runner.egress.confine import confine
target, confined = sys.argv[1], sys.argv[2] == "confined"
"x".encode("idna")
listener = socket.create_server(("127.0.0.1", 0))
def family(kind): return lambda: socket.socket(*kind).close()
def write():
    with open(target, "w") as file: file.write("x")
def fork():
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitpid(child, 0)
def thread():
    worker = threading.Thread(target=lambda: None); worker.start(); worker.join()
def connect(): socket.create_connection(listener.getsockname(), 1).close()
tries = {
    "unix socket": family((socket.AF_UNIX, socket.SOCK_STREAM)),
    "netlink socket": family((socket.AF_NETLINK, socket.SOCK_RAW)),
    "file for writing": write,
    "new process": fork,
    "program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "directory": lambda: os.mkdir(target + ".d"),
    "signal to another": lambda: os.kill(os.getppid(), 0),
    "thread": thread,
    "connection": connect,
    "file for reading": lambda: open("/etc/hosts").close(),
    "lookup": lambda: socket.getaddrinfo("localhost", None),
}
tries["lookup"]()
if confined: confine(int(sys.argv[3]), Path(sys.argv[4]))
found = {}
for name, action in tries.items():
    try: action(); found[name] = True
    except OSError: found[name] = False
print(json.dumps(found))
"""
FORBIDDEN = {
    "unix socket", "netlink socket", "file for writing", "new process", "program", "directory",
    "signal to another",
}  # fmt: skip


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[EgressGateway]:
    """Return a running proxy."""
    async with EgressGateway.open(
        uid=10002,
        trusted_networks=(),
        hosts={},
        roots="",
        profiles_dir=PROFILES,
        state_dir=tmp_path,
    ) as made:
        yield made


async def test_it_is_a_process_without_rights(gateway: EgressGateway) -> None:
    """A user of its own, no group, no capability, filtered, unreadable, no core dumps, no files."""
    process = Path("/proc") / str(gateway.pid)
    lines = (process / "status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == status["Gid"] == ["10002"] * 4
    assert status["Groups"] == []
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name][0], 16) == 0, name
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]
    assert (process / "mem").stat().st_uid == 0, "dumpable: its own user could read it"
    limits = (process / "limits").read_text()
    assert "Max core file size        0 " in limits
    assert "Max open files            4096 " in limits


async def test_it_holds_no_socket_of_dockers(gateway: EgressGateway) -> None:
    """Only its control channel leads to the worker, and that channel has no name."""
    held = sockets_of(gateway.pid)
    assert held
    assert not held & docker_sockets()


def sockets_of(pid: int | None) -> set[str]:
    """Return the inodes of a process's sockets."""
    links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def docker_sockets() -> set[str]:
    """Return the inodes of the sockets that have Docker's name."""
    rows = Path("/proc/net/unix").read_text().splitlines()
    return {row.split()[6] for row in rows if "docker" in row}


@pytest.mark.parametrize("confined", [True, False])
def test_what_it_gave_up_is_gone_and_what_it_needs_is_left(tmp_path: Path, confined: bool) -> None:
    """One process confines itself in the same way, and another one does not."""
    ran = subprocess.run(
        [sys.executable, "-c", TRIES, str(tmp_path / "file"),
         "confined" if confined else "free", "10002", str(PROFILES)],
        env={"PYTHONPATH": str(project_root()), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert {name for name, worked in found.items() if not worked} == (
        FORBIDDEN if confined else set()
    )


async def test_a_filter_that_does_not_compile_stops_the_start(tmp_path: Path) -> None:
    """The error names the file, and no proxy runs without the filter."""
    profiles = tmp_path / "profiles"
    (profiles / "seccomp").mkdir(parents=True)
    (profiles / "seccomp" / "egress.json").write_text("{}")
    with pytest.raises(SetupError, match=r"egress\.json is not valid"):
        async with EgressGateway.open(
            uid=10002,
            trusted_networks=(),
            hosts={},
            roots="",
            profiles_dir=profiles,
            state_dir=tmp_path,
        ):
            pass


async def test_a_slow_host_waits_longer_for_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that is too short for it is long enough with more patience."""
    monkeypatch.setattr(runner.egress.gateway, "READY_S", 0.01)
    given: dict[str, Any] = {
        "uid": 10002, "trusted_networks": (), "hosts": {}, "roots": "",
        "profiles_dir": PROFILES, "state_dir": tmp_path,
    }  # fmt: skip
    with pytest.raises(SetupError, match="did not start"):
        async with EgressGateway.open(**given):
            pass
    async with EgressGateway.open(**given, patience=1000):
        pass


async def test_settings_of_any_size_reach_it(tmp_path: Path) -> None:
    """The system's own bundle as further roots, and more names than fit into one packet."""
    bundle = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    hosts = {f"a{number}.example.test": "127.0.0.1" for number in range(10_000)}
    async with EgressGateway.open(
        uid=10002,
        trusted_networks=(),
        hosts=hosts,
        roots=read_roots(bundle),
        profiles_dir=PROFILES,
        state_dir=tmp_path,
    ) as made:
        assert made.pid is not None


async def test_a_policy_of_any_size_reaches_it(gateway: EgressGateway, tmp_path: Path) -> None:
    """The proxy answers by the last of its rules."""
    rules = [{"host": f"{'a' * 60}.{number}.test", "path_prefix": "/" + "p" * 500}
             for number in range(1000)]  # fmt: skip
    async with way_out(gateway, tmp_path, *rules, "tcp://127.0.0.1:9") as way:
        heard = await way.say(b"CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"not a public address" in heard


async def test_a_sandbox_that_does_not_connect_holds_up_nobody(
    gateway: EgressGateway, tmp_path: Path
) -> None:
    """The proxy waits for all of them at once, and the first one is served in the end."""
    ask = b"CONNECT nowhere.test:443 HTTP/1.1\r\nHost: x\r\n\r\n"
    async with way_out(gateway, tmp_path, "a.test") as idle:
        await asyncio.sleep(0.2)
        async with way_out(gateway, tmp_path, "a.test") as other:
            for way in (other, idle, other):
                assert (await way.say(ask)).startswith(b"HTTP/1.1 403")


def descriptors() -> int:
    """Return how many descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_message_that_was_broken_off_is_forgotten() -> None:
    """The next one arrives complete, with its descriptor, and nothing stays open."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near, far = Control(ours), Control(theirs)
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        before = descriptors()
        sending = asyncio.create_task(near.send({"text": "x" * 2**22}, first.fileno()))
        await asyncio.sleep(0.05)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        receiving = asyncio.create_task(far.receive_with_descriptor())
        await near.send({"text": "whole"}, second.fileno())
        message, beside = await asyncio.wait_for(receiving, 5)
        assert message == {"text": "whole"}
        assert beside is not None
        assert os.fstat(beside).st_ino == os.fstat(second.fileno()).st_ino
        os.close(beside)
        assert descriptors() == before
    near.close()
    far.close()


async def test_a_descriptor_that_nobody_asked_for_is_closed() -> None:
    """This holds however many a broken proxy sends, beside every piece of a message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far = Control(theirs)
    with tempfile.TemporaryFile() as sent:
        before = descriptors()
        for text in (b"\x01{", b"\x00", b"\x02}"):
            socket.send_fds(ours, [text], [sent.fileno()])
        assert await asyncio.wait_for(far.receive(), 5) == {}
        assert descriptors() == before
    ours.close()
    far.close()


async def test_a_session_is_closed_wherever_its_opening_or_its_end_is_cancelled(
    gateway: EgressGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its socket stays open, here and in the proxy, and nobody knows of it any more."""
    send = Control._send_piece

    async def full_at_first(control: Control, piece: bytes, descriptors: list[int]) -> None:
        await asyncio.sleep(0)
        await send(control, piece, descriptors)

    monkeypatch.setattr(Control, "_send_piece", full_at_first)
    # The proxy answers at once, also about a session that it never heard of.
    monkeypatch.setattr(runner.egress.gateway, "CLOSE_S", FOREVER_S)
    numbers, listeners = iter(range(10_000)), list[socket.socket]()

    async def work() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listeners.append(listener)
        number = next(numbers)
        listener.bind(str(tmp_path / f"{number}.sock"))
        listener.listen()
        opening = gateway.open_session(
            f"s{number}", "tenant", policy("https://example.test:443"), listener, {}, ignored
        )
        await (await opening).close()

    async def whole() -> None:
        assert gateway._sessions == {}
        assert listeners[-1].fileno() == -1, "closed"

    before = len(sockets_of(gateway.pid))
    async with asyncio.timeout(ENDS_S):
        assert await cancelled_everywhere(work, whole, AGAIN["once"]) > 0
    async with asyncio.timeout(20):
        while len(sockets_of(gateway.pid)) > before:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("asked", ["close", "count"])
async def test_a_proxy_that_dies_keeps_nobody_waiting(
    gateway: EgressGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """With it, all its connections are cut: what was asked of it is answered with what is known."""
    monkeypatch.setattr(runner.egress.gateway, "CLOSE_S", FOREVER_S)
    monkeypatch.setattr(runner.egress.gateway, "COUNT_S", FOREVER_S)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "way.sock"))
    listener.listen()
    rules = policy("https://example.test:443")
    session = await gateway.open_session("s", "tenant", rules, listener, {}, ignored)
    assert await session.count() == NOTHING
    assert gateway.pid is not None
    os.kill(gateway.pid, signal.SIGSTOP)
    asking = asyncio.create_task(session.close() if asked == "close" else session.count())
    assert not (await asyncio.wait({asking}, timeout=0.2))[0]
    os.kill(gateway.pid, signal.SIGKILL)
    async with asyncio.timeout(ENDS_S):
        assert await asking == NOTHING
    if asked == "count":
        await session.close()


def ignored(_: Decision) -> None:
    """Take a decision that no test asks for."""
