"""Both halves of the SDK against a deployment: the same tests, awaited or not."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from agent_runner import Client, Gone, NotFound, Sandbox, SandboxInfo, Unavailable
from tests.support.deployment import PATIENCE_S, Deployment, eventually
from tests.support.flavours import FLAVOURS, Half, half
from tests.support.people import Person

SERVER = (
    "import http.server, os; os.makedirs('site'); os.chdir('site'); open('page', 'w').write('it');"
    "http.server.HTTPServer(('127.0.0.1', 8000), http.server.SimpleHTTPRequestHandler)"
    ".serve_forever()"
)


@pytest.fixture(scope="module", params=FLAVOURS)
def sdk(request: pytest.FixtureRequest) -> Iterator[Half]:
    """Return one half of the SDK."""
    with half(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def key(shared: Deployment) -> str:
    """Return a key of a tenant of this module's own."""
    return shared.key("sdk")


@pytest.fixture(scope="module")
def api(sdk: Half, shared: Deployment, key: str) -> Iterator[Client]:
    """Return a client."""
    with sdk.client(shared.url, key) as made:
        yield made


@pytest.fixture(scope="module")
def sandbox(sdk: Half, shared: Deployment, key: str) -> Iterator[Sandbox]:
    """Return a sandbox with a connection of its own, for tests that leave it well."""
    with sdk.sandbox(shared.url, key, size="small", timeout_s=None) as made:
        yield made


def test_a_sandbox_ends_with_its_context(
    sdk: Half, api: Client, shared: Deployment, key: str
) -> None:
    """Its connection is its own, and ends with it."""
    with sdk.sandbox(shared.url, key, size="nano") as sandbox:
        assert sandbox.run(["echo", "hello"]).stdout.text == "hello\n"
        assert sandbox.run("exit 3").exit_code == 3
    ended = api.sandboxes.get(sandbox.id)
    assert (ended.info.ended, ended.info.reason) == (True, "killed")
    with pytest.raises(Gone):
        ended.run("true")
    with pytest.raises(RuntimeError, match="closed"):
        sandbox.refresh()


def test_what_the_environment_says_is_the_address(
    sdk: Half, shared: Deployment, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNNER_URL", raising=False)
    monkeypatch.setenv("RUNNER_API_KEY", key)
    with pytest.raises(ValueError, match="set RUNNER_URL"):
        sdk.sandbox()
    monkeypatch.setenv("RUNNER_URL", shared.url)
    with sdk.sandbox(size="nano") as sandbox:
        assert sandbox.run("true").ok


def test_a_process_is_fed_followed_and_ended(sandbox: Sandbox) -> None:
    process = sandbox.start("cat; echo done >&2; exec sleep 600", keep_stdin_open=True, tag="fed")
    process.write(iter([b"one\n", b"two\n"]))
    process.write(b"three\n", close=True)
    got = {"stdout": b"", "stderr": b""}
    for event in process.output():
        if event.kind in got:
            got[event.kind] += event.raw
        if got["stderr"] == b"done\n":
            break
    assert got == {"stdout": b"one\ntwo\nthree\n", "stderr": b"done\n"}
    assert [each.tag for each in sandbox.processes() if not each.ended] == ["fed"]
    process.signal("SIGTERM")
    assert process.wait().signal == "SIGTERM"
    process.kill()


def test_files_go_in_and_come_out(sandbox: Sandbox, tmp_path: Path) -> None:
    """They go as bytes, text, pieces, from a file and as folders. A watch reports them."""
    raw = os.urandom(700_000)
    (tmp_path / "raw").write_bytes(raw)
    with sandbox.files.watch() as watch:
        sandbox.files.write("a/text", "text")
        assert any("a" in change["path"] for change in next(watch).changes)
    with (tmp_path / "raw").open("rb") as file:
        assert sandbox.files.write("a/raw", file, mode=0o600).size == len(raw)
    sandbox.files.write("a/pieces", iter([raw[:10], raw[10:]]))
    assert sandbox.files.read("a/raw") == sandbox.files.read("a/pieces") == raw
    with sandbox.files.open("a/text") as pieces:
        assert b"".join(pieces) == b"text"
    entries, more = sandbox.files.list("a")
    assert (sorted(each.path.rpartition("/")[2] for each in entries), more) == (
        ["pieces", "raw", "text"],
        False,
    )
    sandbox.files.download_folder("a", tmp_path / "down")
    assert (tmp_path / "down" / "pieces").read_bytes() == raw
    sandbox.files.upload_folder(tmp_path / "down", "b")
    assert sandbox.files.read("b/raw") == raw
    sandbox.files.move("b/raw", "c")
    assert sandbox.files.exists("c")
    assert not sandbox.files.exists("b/raw")
    for path in ("a", "b", "c"):
        sandbox.files.remove(path, recursive=True)


def test_a_terminal_takes_what_is_typed(sandbox: Sandbox) -> None:
    with sandbox.terminal("sh", rows=30, columns=100) as terminal:
        terminal.resize(40, 120)
        terminal.send(b'until [ "$(stty size)" = "40 120" ]; do sleep 0.05; done; exit 7\n')
        last = list(terminal)[-1]
    assert (last.kind, last.exit_code) == ("ended", 7)


def test_a_local_port_leads_to_a_server_inside(sandbox: Sandbox) -> None:
    """Many connections at once are carried; a port without a server is told."""
    server = sandbox.start(["python3", "-c", SERVER])
    with sandbox.ports.forward(8000) as forward:
        url = f"http://127.0.0.1:{forward.port}/page"

        def answers() -> bool:
            try:
                return httpx.get(url, timeout=PATIENCE_S).text == "it"
            except httpx.TransportError:
                return False

        eventually(answers)
        with httpx.Client(timeout=PATIENCE_S) as http:
            assert {http.get(url).text for _ in range(5)} == {"it"}
        server.kill()
        with pytest.raises(httpx.TransportError):
            httpx.get(url, timeout=PATIENCE_S)
        eventually(lambda: forward.failure is not None)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=PATIENCE_S)


def test_a_context_keeps_its_variables(sandbox: Sandbox) -> None:
    seen: list[str] = []
    assert sandbox.run_code("x = 6; print('hello')\nx * 7", on_stdout=seen.append).text == "42"
    assert "".join(seen) == "hello\n"
    assert sandbox.run_code("x").text == "6"
    with sandbox.contexts.create("bash") as context:
        assert context.run("echo $((6 * 7))").stdout == "42\n"
        number = context.number
    with pytest.raises(NotFound):
        sandbox.contexts.get(number)


def test_a_sandbox_is_paused_kept_and_copied(api: Client, sandbox: Sandbox) -> None:
    def reaches(change: Callable[[], SandboxInfo], state: str) -> bool:
        with suppress(Unavailable):  # Docker was late under load: the API says to try again.
            return change().state == state
        return False

    sandbox.files.write("kept", "kept")
    eventually(lambda: reaches(sandbox.pause, "paused"))
    eventually(lambda: reaches(sandbox.resume, "running"))
    kept = sandbox.snapshot("mine")
    (copy,) = sandbox.fork()
    with copy, api.sandboxes.create(snapshot=kept.id) as again:
        assert again.files.read("kept") == copy.files.read("kept") == b"kept"
    api.snapshots.delete(kept.id)
    kinds = [event.kind for event in copy.events()]
    assert kinds[0] == kinds[-1] == "life"
    assert "cpu_s" in sandbox.metrics()


def test_an_execution_is_followed_and_its_files_come_back(api: Client, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"b\na\n")
    with (tmp_path / "in").open("rb") as file:
        stored = api.files.put("sdk/in", file)
    begun = api.submit(command="sort in | tee out", files={"in": stored})
    output = b"".join(event.raw for event in api.events(begun.id))
    ended = api.wait(begun)
    assert (ended.state, output) == ("succeeded", b"a\nb\n")
    with api.download(ended.id, "out") as pieces:
        assert b"".join(pieces) == b"a\nb\n"
    assert "sdk/in" in [each.path for each in api.files.list("sdk/")]
    api.files.delete("sdk/in")
    with api.export_audit() as lines:
        assert b"execution" in b"".join(lines)


def test_the_tenant_is_looked_after(api: Client, shared: Deployment) -> None:
    """Projects, members, keys, secrets, policies and usage are what the API says they are."""
    assert (api.me()["tenant"], api.me()["role"]) == ("sdk", "owner")
    rules = ["https://example.com"]
    assert api.put_egress_policy("web", rules) == api.egress_policy("web")
    made = api.projects.create("reports", egress_policy="web")
    assert api.projects.get("reports") == made
    assert api.projects.put("reports", description="Nightly").egress_policy is None
    assert [each.name for each in api.projects.list()] == ["reports"]
    api.projects.delete("reports")
    api.delete_egress_policy("web")
    invited = api.members.invite("ada@example.com", "viewer")
    assert invited.token not in repr(invited)
    assert [each.status for each in api.members.list()] == ["invited"]
    assert Person(shared, "ada@example.com").accept(invited.token).is_success
    (member,) = api.members.list()
    assert (member.email, member.status) == ("ada@example.com", "active")
    assert api.members.change_role(member.id, "developer").role == "developer"
    api.members.remove(member.id)
    assert api.members.list() == []
    new = api.keys.create("ci", "developer")
    assert new.key in list(api.keys.list())
    api.keys.revoke(new.key.id)
    api.put_secret("sdk-token", "a value of eight bytes or more")
    assert [each["name"] for each in api.secrets()] == ["sdk-token"]
    api.delete_secret("sdk-token")
    assert api.usage()["tier"]
    assert api.verify_audit()["valid"]
