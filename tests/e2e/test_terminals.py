"""Terminals of processes in sandboxes, by WebSocket: through the real API, node and supervisor."""

import base64
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from agent_runner import (
    Client,
    Conflict,
    Gone,
    NotAuthenticated,
    NotFound,
    OutputEvent,
    Process,
    Sandbox,
    Unavailable,
)
from runner.words.principal import Role
from tests.support import wire
from tests.support.deployment import Deployment
from tests.support.people import joined

SHELL: dict[str, Any] = {"terminal": {"rows": 30, "columns": 100}}
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("terminals")


@pytest.fixture(scope="module")
def sandbox(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox for tests that leave it well."""
    with api.sandboxes.create(size="small", timeout_s=None) as made:
        yield made


@pytest.fixture
def shell(sandbox: Sandbox) -> Iterator[Process]:
    """Return a shell on a terminal."""
    process = sandbox.start(["sh"], **SHELL)
    yield process
    process.kill()


def until(events: Iterator[OutputEvent], wanted: bytes) -> bytes:
    """Return what comes, up to these bytes."""
    got = b""
    for event in events:
        got += event.raw
        if wanted in got:
            return got
    raise AssertionError(got)


def opened(
    deployment: Deployment, process: Process, query: str = "", **headers: str
) -> ClientConnection:
    """Open a terminal by a WebSocket with these headers alone."""
    url = f"{deployment.url.replace('http', 'ws', 1)}{path_of(process)}{query}"
    return connect(url, additional_headers=headers, open_timeout=WITHIN_S, proxy=None)


def path_of(process: Process) -> str:
    """Return the path of a process's terminal."""
    return f"{process._path}/terminal"


def refused(deployment: Deployment, process: Process, query: str = "", **headers: str) -> int:
    """Return the status that refuses a WebSocket; every refusal is a problem of ours."""
    with pytest.raises(InvalidStatus) as why, opened(deployment, process, query, **headers):
        pass
    answer = why.value.response
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-Id"] in bytes(answer.body or b"").decode()
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    return answer.status_code


def closing_of(connection: ClientConnection) -> int | None:
    """Return the code by which a WebSocket is closed."""
    with suppress(ConnectionClosed):
        while True:
            connection.recv(WITHIN_S)
    return connection.close_code


def test_what_is_typed_goes_in_and_what_is_written_comes_out(shell: Process) -> None:
    """With the size that the window has now, and an exit code at the end."""
    with shell.terminal() as terminal:
        events = iter(terminal)
        terminal.send(b"stty size; echo a$((6 * 7))\n")
        assert b"30 100" in until(events, b"a42")
        terminal.resize(40, 120)
        terminal.send(
            b'until [ "$(stty size)" = "40 120" ]; do sleep 0.05; done; echo b$((6 * 7))\n'
        )
        until(events, b"b42")
        terminal.send(b"exit 7\n")
        *_, last = events
    assert (last.kind, last.exit_code, last.signal) == ("ended", 7, None)


def test_ctrl_c_interrupts_what_runs_there(shell: Process) -> None:
    with shell.terminal() as terminal:
        events = iter(terminal)
        # What says it is the one that sleeps: the shell gave it the terminal before it ran.
        terminal.send(b"sh -c 'echo a$((6 * 7)); exec sleep 600'\n")
        until(events, b"a42")
        terminal.send(b"\x03")
        terminal.send(b"echo b$((6 * 7))\n")
        until(events, b"b42")


def test_a_terminal_is_left_and_resumed_where_it_broke_off(shell: Process) -> None:
    """Whoever counts the bytes misses and repeats none."""
    with shell.terminal() as terminal:
        terminal.send(b"echo a$((6 * 7))\n")
        first = until(iter(terminal), b"a42\r\n")
    assert shell.refresh().state == "running"
    with shell.terminal(offset=terminal.offset) as again:
        again.send(b"echo b$((6 * 7))\n")
        second = until(iter(again), b"b42\r\n")
        again.send(b"exit\n")
        rest = b"".join(event.raw for event in again)
    kept = b"".join(event.raw for event in shell.output(offset=0))
    assert kept == first + second + rest


def test_what_is_kept_no_more_is_told(sandbox: Sandbox) -> None:
    process = sandbox.start("head -c 300000 /dev/zero; echo end", keep_kb=16, **SHELL)
    process.wait()
    with process.terminal() as terminal:
        gap, *rest, last = terminal
    assert (gap.kind, last.kind) == ("gap", "ended")
    assert gap.omitted_bytes + sum(len(each.raw) for each in rest) == last.next_offset


def test_much_is_written_to_a_client_that_reads_slowly(sandbox: Sandbox) -> None:
    """It waits in the sandbox, not in the API."""
    process = sandbox.start("head -c 30000000 /dev/zero; echo end", keep_kb=1024, **SHELL)
    count = 0
    with process.terminal() as terminal:
        for number, event in enumerate(terminal):
            count += len(event.raw) + event.omitted_bytes
            if number < 20:
                time.sleep(0.1)
    assert count == terminal.offset >= 30_000_000


def test_a_process_without_a_terminal_has_none_to_open(sandbox: Sandbox) -> None:
    process = sandbox.start(["sleep", "600"])
    with pytest.raises(Conflict, match="no terminal"):
        process.terminal()
    process.kill()
    with pytest.raises(NotFound):
        process.terminal()


def test_strangers_and_other_tenants_are_refused_before_anything_is_open(
    shared: Deployment, shell: Process
) -> None:
    """The refusal is a status, as on every route. Another tenant's sandbox counts as unknown."""
    key = shared.key("terminals")
    with opened(shared, shell, Authorization=f"Bearer {key}") as ours:
        assert ours.response is not None
        assert ours.response.headers["X-Request-Id"]
    assert refused(shared, shell) == 401
    assert refused(shared, shell, Authorization="Bearer rk_wrong") == 401
    theirs = shared.key("terminals-others")
    assert refused(shared, shell, Authorization=f"Bearer {theirs}") == 404
    viewer = shared.key("terminals", Role.VIEWER)
    assert refused(shared, shell, Authorization=f"Bearer {viewer}") == 403
    bearer = {"Authorization": f"Bearer {key}"}
    assert refused(shared, shell, "?offset=-1", **bearer) == 422
    assert refused(shared, shell, "?ofset=0", **bearer) == 422
    denied = "SELECT 1 FROM audit_events WHERE body LIKE %s"
    assert shared.sql(denied, '%/{process}/terminal"%')


def test_another_sites_page_cannot_ride_on_a_session(shared: Deployment, sandbox: Sandbox) -> None:
    """Controls: from a page of ours the same cookie opens it, and a plain GET is let in."""
    person = joined(shared, "terminals", "typist-of-terminals")
    process = sandbox.start(["sh"], **SHELL)
    cookie = "; ".join(f"{name}={value}" for name, value in person.http.cookies.items())
    ours, other = shared.url, shared.url.replace("http", "https")
    if cookie.startswith("__Host-"):
        ours, other = other, ours
    with opened(shared, process, Cookie=cookie, Origin=ours) as open_:
        open_.send(b"echo a$((6 * 7))\n")
        got = b""
        while b"a42" not in got:
            got += bytes(open_.recv(WITHIN_S, decode=False))
    for origin in ("https://elsewhere.example", "null", other):
        assert refused(shared, process, Cookie=cookie, Origin=origin) == 403
    assert refused(shared, process, Cookie=cookie) == 403
    # What reads only may come from anywhere: the pages of others see no answer.
    elsewhere = {"Cookie": cookie, "Origin": "https://elsewhere.example"}
    plain = httpx.get(f"{shared.url}{path_of(process)}", headers=elsewhere)
    assert plain.status_code == 426
    cross = {"Cookie": cookie, "Origin": ours, "Sec-Fetch-Site": "cross-site"}
    assert refused(shared, process, **cross) == 403
    process.kill()


def test_a_terminal_ends_with_the_right_that_opened_it(shared: Deployment, shell: Process) -> None:
    owner = shared.http("terminals")
    made = owner.post("/v1/keys", json={"name": "brief", "role": "developer"}).json()
    with (
        Client(shared.url, made["token"]) as brief,
        brief.sandboxes.get(shell._path.split("/")[3]).process(shell.number).terminal() as terminal,
    ):
        events = iter(terminal)
        terminal.send(b"echo a$((6 * 7))\n")
        until(events, b"a42")
        assert owner.delete(f"/v1/keys/{made['key']['id']}").is_success
        with pytest.raises(NotAuthenticated) as why:
            list(events)
    assert why.value.status == 401
    assert shell.refresh().state == "running"


def test_a_terminal_ends_with_its_sandbox(api: Client) -> None:
    """The code says so, or that it should be opened again; and that is then refused."""
    with api.sandboxes.create(size="nano") as brief, brief.terminal(["sh"]) as terminal:
        events = iter(terminal)
        terminal.send(b"echo a$((6 * 7))\n")
        until(events, b"a42")
        brief.kill()
        with pytest.raises((Gone, Conflict, Unavailable)):
            list(events)
        with pytest.raises(Gone):
            brief.terminal(["sh"])


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", 4400),
        ('{"resize": {"rows": 0, "columns": 80}}', 4400),
        ('{"resize": {"rows": 24, "columns": 80}, "rows": 1}', 4400),
        (json.dumps({"resize": "x" * 2000}), 4400),
        (b"x" * 70_000, 1009),
    ],
)
def test_what_is_no_message_closes_it(
    shared: Deployment, shell: Process, message: str | bytes, code: int
) -> None:
    key = shared.key("terminals")
    with opened(shared, shell, Authorization=f"Bearer {key}") as terminal:
        terminal.send(message)
        assert closing_of(terminal) == code


def test_a_message_of_too_many_pieces_closes_it(shared: Deployment, shell: Process) -> None:
    """Empty ones, too, which no bound on the size of a message counts."""
    with opened(shared, shell, Authorization=f"Bearer {shared.key('terminals')}") as terminal:
        with suppress(ConnectionClosed):
            terminal.send(b"" for _ in range(10_000))
        # Without a word, if more pieces were still under way.
        assert closing_of(terminal) in {1006, 1009}


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": "h2c"},
        {"Connection": "close"},
        {"Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Protocol": "chat"},
        {"X-Long": "x" * 9000},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_faulty_handshake_is_a_plain_request(
    shared: Deployment, shell: Process, changed: dict[str, str]
) -> None:
    """It passes every check, and is told what this path is for."""
    head = {
        "Host": "here", "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Authorization": f"Bearer {shared.key('terminals')}",
    }  # fmt: skip
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**head, **changed}.items())
    answer = wire.exchange(shared.url, f"GET {path_of(shell)} HTTP/1.1\r\n{lines}\r\n".encode())
    assert answer[0] == 426
    assert answer[1]["upgrade"] == "websocket"


def test_elsewhere_an_upgrade_is_ignored(shared: Deployment) -> None:
    """The same request, as if it did not ask for one (RFC 9110 7.8)."""
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }  # fmt: skip
    assert httpx.get(f"{shared.url}/healthz", headers=upgrade).status_code == 200
    assert httpx.get(f"{shared.url}/v1/executions", headers=upgrade).status_code == 401
