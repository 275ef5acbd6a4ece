"""Something else may answer at the API's address: a proxy, a login page, another server."""

import asyncio
import inspect
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio import client
from websockets.exceptions import InvalidStatus

import agent_runner
from agent_runner import ApiError, Client, Context, Execution, Process, Sandbox, Unavailable
from agent_runner._sync.contexts import Contexts
from agent_runner._sync.files import Files
from agent_runner._sync.keys import Keys
from agent_runner._sync.members import Members
from agent_runner._sync.ports import SandboxPorts
from agent_runner._sync.projects import Projects
from agent_runner._sync.sandbox_files import SandboxFiles
from agent_runner._sync.sandboxes import Sandboxes
from agent_runner._sync.snapshots import Snapshots
from agent_runner._sync.templates import Templates
from agent_runner.answers import EXECUTION
from agent_runner.living_answers import PROCESS, SANDBOX
from agent_runner.runs import CONTEXT
from tests.support.answering import SERVER, Request, reply, served
from tests.support.flavours import Connect, made

HERE = Path(__file__).parent
KEY = "rk_aaaaaaaaaaaa_" + "S" * 43
ID = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"

RUNNING: dict[str, Any] = {
    "id": ID, "state": "running", "attempt": 1, "created_at": "t", "started_at": None,
    "ended_at": None, "project": None, "metadata": {}, "image": "python", "size": "small",
    "queue_position": None, "estimated_start_s": None, "result": None,
}  # fmt: skip
LIVES: dict[str, Any] = {
    "id": ID, "state": "running", "reason": None, "detail": None, "created_at": "t",
    "started_at": "t", "ended_at": None, "expires_at": None, "timeout_s": None,
    "auto_resume": False, "on_shortage": "keep", "kept_as": None, "on_timeout": "kill",
    "lives_until": None, "project": None, "image": "python", "size": "nano",
    "limits": {"cpu": 1.0}, "isolation": "container", "egress": [], "egress_policy": None,
    "metadata": {},
}  # fmt: skip
STARTED: dict[str, Any] = {
    "process": 3, "state": "running", "command": ["cat"], "tag": None, "terminal": False,
    "stdin": False, "started_at": "t", "ended_at": None, "exit_code": None, "signal": None,
    "timed_out": False, "output_bytes": 0,
}  # fmt: skip

BEGUN = {"context": 1, "language": "python", "cwd": "/", "state": "idle", "created_at": "t"}


def drained(pieces: AbstractContextManager[Iterator[bytes]]) -> bytes:
    """Return all of a stream of bytes."""
    with pieces as chunks:
        return b"".join(chunks)


def running() -> Execution:
    """Return an execution that runs."""
    return EXECUTION.read(RUNNING)


def sandbox(api: Client) -> Sandbox:
    """Return a sandbox that runs."""
    return made(api, Sandbox, SANDBOX.read(LIVES))


def process(api: Client) -> Process:
    """Return a process that runs in a sandbox."""
    return made(api, Process, f"/v1/sandboxes/{ID}/processes", PROCESS.read(STARTED))


def context(api: Client) -> Context:
    """Return a code context in a sandbox."""
    return made(api, Context, f"/v1/sandboxes/{ID}/contexts", CONTEXT.read(BEGUN))


Use = Callable[[Client], Any]
USES: dict[str, Use] = {
    "submit": lambda api: api.submit(code="1", language="python"),
    "run": lambda api: api.run(code="1", language="python"),
    "wait": lambda api: api.wait(running()),
    "get": lambda api: api.get(ID),
    "list": lambda api: api.list(),
    "cancel": lambda api: api.cancel(ID),
    "events": lambda api: list(api.events(ID)),
    "artifacts": lambda api: api.artifacts(ID),
    "download": lambda api: drained(api.download(ID, "a")),
    "audit": lambda api: api.audit(),
    "receipt": lambda api: api.receipt(ID),
    "explain": lambda api: api.explain(ID),
    "signing_keys": lambda api: api.signing_keys(),
    "egress_policies": lambda api: api.egress_policies(),
    "me": lambda api: api.me(),
    "egress_policy": lambda api: api.egress_policy("a"),
    "put_egress_policy": lambda api: api.put_egress_policy("a", []),
    "delete_egress_policy": lambda api: api.delete_egress_policy("a"),
    "secrets": lambda api: api.secrets(),
    "put_secret": lambda api: api.put_secret("a", "12345678"),
    "delete_secret": lambda api: api.delete_secret("a"),
    "usage": lambda api: api.usage(),
    "verify_audit": lambda api: api.verify_audit(),
    "export_audit": lambda api: drained(api.export_audit()),
    "audit_webhook": lambda api: api.audit_webhook(),
    "put_audit_webhook": lambda api: api.put_audit_webhook("https://a.example"),
    "delete_audit_webhook": lambda api: api.delete_audit_webhook(),
    "files.put": lambda api: api.files.put("a", b"a"),
    "files.open": lambda api: drained(api.files.open("a")),
    "files.read": lambda api: api.files.read("a"),
    "files.list": lambda api: list(api.files.list()),
    "files.delete": lambda api: api.files.delete("a"),
    "keys.list": lambda api: list(api.keys.list()),
    "keys.get": lambda api: api.keys.get(ID),
    "keys.create": lambda api: api.keys.create("ci", "viewer", expires_at=datetime.now(UTC)),
    "keys.rotate": lambda api: api.keys.rotate(ID),
    "keys.revoke": lambda api: api.keys.revoke(ID),
    "members.list": lambda api: api.members.list(),
    "members.invite": lambda api: api.members.invite("ada@example.com", "viewer"),
    "members.change_role": lambda api: api.members.change_role(ID, "viewer"),
    "members.remove": lambda api: api.members.remove(ID),
    "projects.list": lambda api: list(api.projects.list()),
    "projects.get": lambda api: api.projects.get("a"),
    "projects.create": lambda api: api.projects.create("a"),
    "projects.put": lambda api: api.projects.put("a", description="b"),
    "projects.delete": lambda api: api.projects.delete("a"),
    "sandboxes.create": lambda api: api.sandboxes.create(size="nano"),
    "sandboxes.get": lambda api: api.sandboxes.get(ID),
    "sandboxes.list": lambda api: api.sandboxes.list(),
    "sandboxes.explain": lambda api: api.sandboxes.explain(ID),
    "sandboxes.receipt": lambda api: api.sandboxes.receipt(ID),
    "snapshots.get": lambda api: api.snapshots.get(ID),
    "snapshots.list": lambda api: api.snapshots.list(),
    "snapshots.delete": lambda api: api.snapshots.delete(ID),
    "templates.build": lambda api: api.templates.build("a", [{"run": "true"}]),
    "templates.wait": lambda api: api.templates.wait(ID),
    "templates.get": lambda api: api.templates.get(ID),
    "templates.list": lambda api: api.templates.list(),
    "templates.logs": lambda api: api.templates.logs(ID),
    "templates.tags": lambda api: api.templates.tags(ID),
    "templates.tag": lambda api: api.templates.tag(ID, ["v1"]),
    "templates.untag": lambda api: api.templates.untag(ID, "v1"),
    "templates.delete": lambda api: api.templates.delete(ID),
    "sandbox.run": lambda api: sandbox(api).run("true"),
    "sandbox.run_code": lambda api: sandbox(api).run_code("1"),
    "sandbox.start": lambda api: sandbox(api).start("true"),
    "sandbox.terminal": lambda api: sandbox(api).terminal(),
    "sandbox.processes": lambda api: sandbox(api).processes(),
    "sandbox.process": lambda api: sandbox(api).process(3),
    "sandbox.refresh": lambda api: sandbox(api).refresh(),
    "sandbox.metrics": lambda api: sandbox(api).metrics(),
    "sandbox.metrics_series": lambda api: sandbox(api).metrics_series(),
    "sandbox.events": lambda api: list(sandbox(api).events()),
    "sandbox.update": lambda api: sandbox(api).update(timeout_s=60),
    "sandbox.pause": lambda api: sandbox(api).pause(),
    "sandbox.resume": lambda api: sandbox(api).resume(),
    "sandbox.snapshot": lambda api: sandbox(api).snapshot("a"),
    "sandbox.fork": lambda api: sandbox(api).fork(),
    "sandbox.kill": lambda api: sandbox(api).kill(),
    "sandbox.files.write": lambda api: sandbox(api).files.write("a", b"a"),
    "sandbox.files.open": lambda api: drained(sandbox(api).files.open("a")),
    "sandbox.files.read": lambda api: sandbox(api).files.read("a"),
    "sandbox.files.signed_url": lambda api: sandbox(api).files.signed_url("a"),
    "sandbox.files.list": lambda api: sandbox(api).files.list(),
    "sandbox.files.stat": lambda api: sandbox(api).files.stat("a"),
    "sandbox.files.exists": lambda api: sandbox(api).files.exists("a"),
    "sandbox.files.make_folder": lambda api: sandbox(api).files.make_folder("a"),
    "sandbox.files.move": lambda api: sandbox(api).files.move("a", "b"),
    "sandbox.files.remove": lambda api: sandbox(api).files.remove("a"),
    "sandbox.files.watch": lambda api: list(sandbox(api).files.watch()),
    "sandbox.files.open_archive": lambda api: drained(sandbox(api).files.open_archive("a")),
    "sandbox.files.write_archive": lambda api: sandbox(api).files.write_archive("a", b"a"),
    "sandbox.files.download_folder": lambda api: sandbox(api).files.download_folder("a", "/none/b"),
    "sandbox.files.upload_folder": lambda api: sandbox(api).files.upload_folder(HERE, "a"),
    "sandbox.ports.open": lambda api: sandbox(api).ports.open(8000),
    "sandbox.ports.list": lambda api: sandbox(api).ports.list(),
    "sandbox.ports.close": lambda api: sandbox(api).ports.close(8000),
    "sandbox.contexts.create": lambda api: sandbox(api).contexts.create(),
    "sandbox.contexts.get": lambda api: sandbox(api).contexts.get(1),
    "sandbox.contexts.list": lambda api: sandbox(api).contexts.list(),
    "context.run": lambda api: context(api).run("1"),
    "context.events": lambda api: list(context(api).events("1")),
    "context.interrupt": lambda api: context(api).interrupt(),
    "context.restart": lambda api: context(api).restart(),
    "context.refresh": lambda api: context(api).refresh(),
    "context.remove": lambda api: context(api).remove(),
    "process.refresh": lambda api: process(api).refresh(),
    "process.output": lambda api: list(process(api).output()),
    "process.terminal": lambda api: process(api).terminal(),
    "process.wait": lambda api: process(api).wait(),
    "process.write": lambda api: process(api).write(b"a"),
    "process.close_stdin": lambda api: process(api).close_stdin(),
    "process.signal": lambda api: process(api).signal("SIGINT"),
    "process.resize": lambda api: process(api).resize(24, 80),
    "process.kill": lambda api: process(api).kill(),
    "process.finish": lambda api: process(api).finish(None, None, 1),
}
PARTS = {
    "": Client,
    "files.": Files,
    "keys.": Keys,
    "members.": Members,
    "projects.": Projects,
    "sandboxes.": Sandboxes,
    "snapshots.": Snapshots,
    "templates.": Templates,
}
IN_SANDBOXES = {
    "sandbox.": Sandbox,
    "sandbox.files.": SandboxFiles,
    "sandbox.ports.": SandboxPorts,
    "sandbox.contexts.": Contexts,
    "context.": Context,
    "process.": Process,
}
NO_REQUEST = {"close", "sandbox.close", "sandbox.ports.url"}
WHEN_USED = {"sandbox.ports.forward"}
"""Methods that ask nothing of the API before somebody uses their result."""

STRANGERS: dict[str, tuple[int, str, bytes]] = {
    "a page": (200, "text/html", b"<p>Sign in"),
    "nothing": (200, "application/json", b""),
    "an object": (200, "application/json", b'{"status": "ok"}'),
    "an empty object": (200, "application/json", b"{}"),
    "a list": (200, "application/json", b"[]"),
    "a text": (200, "application/json", b'"items"'),
    "null": (200, "application/json", b"null"),
    "items that are none": (200, "application/json", b'{"items": {}, "next_cursor": null}'),
    "other items": (200, "application/json", b'{"items": [{"a": 1}], "next_cursor": null}'),
    "items in items": (200, "application/json", b'{"items": [[]], "next_cursor": null}'),
    "bytes that are no text": (200, "application/json", b"\xff\xfe\x00"),
    "a login elsewhere": (302, "text/html", b""),
}


def test_every_method_is_tried() -> None:
    """Add new methods to the list above."""
    methods = {
        f"{prefix}{name}"
        for prefix, part in {**PARTS, **IN_SANDBOXES}.items()
        for name, _ in inspect.getmembers(part, inspect.isfunction)
        if not name.startswith("_") and f"{prefix}{name}" not in NO_REQUEST | WHEN_USED
    }
    assert methods == set(USES)
    parts = inspect.getmembers(Client, lambda each: isinstance(each, property))
    assert {"", *(f"{name}." for name, _ in parts)} == set(PARTS)


def test_both_halves_have_the_same_methods_with_the_same_arguments() -> None:
    """Only those that close have another name, as is the custom."""

    def shape(kind: type) -> dict[str, list[str]]:
        return {
            name.replace("aclose", "close"): list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isroutine)
            if not name.startswith("_")
        }

    twins = [name for name in agent_runner.__all__ if f"Async{name}" in agent_runner.__all__]
    assert {"Client", "Sandbox", "Process", "Terminal", "Context", "Forward"} <= set(twins)
    for name in twins:
        twin = getattr(agent_runner, f"Async{name}")
        assert shape(twin) == shape(getattr(agent_runner, name)), name


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_a_stranger_answers_is_our_own_error(connect: Connect, stranger: str) -> None:
    """For every method, the error names the server, its answer, and what was expected."""
    status, kind, body = STRANGERS[stranger]
    with (
        served(lambda request: reply(request, status, body, kind)) as url,
        connect(url, KEY) as api,
    ):
        for name, use in USES.items():
            with pytest.raises(ApiError) as failed:
                use(api)
            said = str(failed.value)
            assert said.startswith(f"{url}/v1/"), name
            assert f"(server {SERVER!r}) answered {status} " in said, name
            assert "is the address right" in said, name
            assert KEY not in said
            if status == 200:
                assert isinstance(failed.value, Unavailable), name
                assert "where this API answers with " in said, name


def test_no_redirect_is_followed_with_the_key_or_without(connect: Connect) -> None:
    """Neither by a request nor by a WebSocket: elsewhere, nobody is asked."""
    asked: list[str] = []

    def elsewhere(request: Request) -> None:
        asked.append(request.path)
        reply(request, 200, b"{}", "application/json")

    with served(elsewhere) as there:
        target = there.replace("http", "ws", 1)

        def leading_away(request: Request) -> None:
            asked_for = request.headers.get("Upgrade")
            reply(request, 302, b"", "text/html", Location=target if asked_for else there)

        with served(leading_away) as url, connect(url, KEY) as api:
            for use in (lambda: process(api).terminal(), lambda: api.get(ID)):
                with pytest.raises(ApiError, match="answered 302 Found"):
                    use()
            assert asked == []
            asyncio.run(followed(url.replace("http", "ws", 1)))
            assert asked == ["/"], "the control: one who follows is led there"


async def followed(url: str) -> None:
    """Open a WebSocket as the library does by itself."""
    with pytest.raises(InvalidStatus):
        await client.connect(url)


def test_what_is_missing_is_named(connect: Connect) -> None:
    """The error also names what is there instead."""
    with served(lambda request: reply(request, 200, b'{"tier": "pro"}', "application/json")) as url:
        with connect(url, KEY) as api, pytest.raises(Unavailable) as failed:
            api.usage()
        assert "JSON without 'max_size', where this API answers with a usage report" in str(
            failed.value
        )
    with served(lambda request: reply(request, 200, b"<p>", "text/html; charset=x")) as url:
        with connect(url, KEY) as api, pytest.raises(Unavailable) as failed:
            api.secrets()
        assert "with 'text/html', where this API answers with a list of secrets' names" in str(
            failed.value
        )


EVENTS: dict[str, Use] = {
    "an execution's": USES["events"],
    "a process's output": USES["process.output"],
    "a sandbox's": USES["sandbox.events"],
    "changes to files": USES["sandbox.files.watch"],
}


@pytest.mark.parametrize("use", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize(
    "event",
    [
        b"id: x\ndata: {}\n\n",
        b"id: 1\ndata: <p>\n\n",
        b"id: 1\ndata: []\n\n",
        b'id: 1\ndata: {"content": 1}\n\n',
        b'id: 1\ndata: {"content": "a", "encoding": "base64"}\n\n',
        b"id: 1\nevent: state\ndata: null\n\n",
    ],
)  # fmt: skip
def test_a_strangers_events_are_our_own_error(connect: Connect, use: Use, event: bytes) -> None:
    with (
        served(lambda request: reply(request, 200, event, "text/event-stream")) as url,
        connect(url, KEY) as api,
        pytest.raises(Unavailable, match="an event of another form"),
    ):
        use(api)


@pytest.mark.parametrize(
    "problem",
    [
        {"errors": ["a"]},
        {"errors": [{"pointer": "#/a"}]},
        {"errors": {"a": "b"}},
        {"errors": [{"field": 1, "message": None}]},
        {"errors": None, "detail": None, "type": 7, "quota": "x"},
        {"status": "400"},
        [["detail", "x"]],
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [400, 418, 500, 503])
def test_a_problem_document_of_another_make_is_our_own_error(
    connect: Connect, problem: object, status: int
) -> None:
    """Fields of another form are left out."""
    body = json.dumps(problem).encode()
    with (
        served(lambda request: reply(request, status, body, "application/problem+json")) as url,
        connect(url, KEY) as api,
        pytest.raises(ApiError) as failed,
    ):
        api.usage()
    assert (failed.value.status, failed.value.errors) == (status, [])
    assert f"{url}/v1/usage" in failed.value.detail


def test_fields_that_a_newer_api_adds_are_left_out(connect: Connect) -> None:
    """A newer release of the API is acceptable."""
    artifact = {"path": "a", "size": 1, "sha256": "x", "media_type": "y", "new": True}
    body = json.dumps({"items": [artifact], "new": 1}).encode()
    with (
        served(lambda request: reply(request, 200, body, "application/json")) as url,
        connect(url, KEY) as api,
    ):
        (found,) = api.artifacts(ID)
    assert found.path == "a"
    assert of_names(EXECUTION.read({**RUNNING, "new": 1})) == of_names(running())


def of_names(execution: Execution) -> Iterable[str]:
    """Return an execution's attributes."""
    return [f"{name}={getattr(execution, name)}" for name in Execution.__slots__]
