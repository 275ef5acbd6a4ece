"""The tools for models, by the protocol's official client, over both of its transports."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from agent_runner import Client as Api
from runner.api.mcp.tools import TOOLS
from tests.support.deployment import Deployment, eventually
from tests.support.mcp import create, over_http, over_stdio, pictures, said, with_headers
from tests.support.pages import ROOT, Block, blocks

PAGE = ROOT / "docs/integrations/mcp.md"
Connect = Callable[[], AbstractAsyncContextManager[Client]]
PLOT = """
import matplotlib.pyplot as plt
plt.plot([1, 2, 3])
plt.show()
"""
SAVE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('chart.png')\nprint('saved')"


@pytest.fixture(params=["http", "http, older protocol", "stdio"])
def connect(request: pytest.FixtureRequest, shared: Deployment) -> Iterator[Connect]:
    """Return a function that connects a client of this module's own tenant."""
    key = shared.key("mcp")
    match request.param:
        case "http":
            yield lambda: over_http(shared, key)
        case "http, older protocol":
            yield lambda: over_http(shared, key, mode="legacy")
        case _:
            yield lambda: over_stdio(shared, key)


async def test_a_model_works_in_a_sandbox_step_by_step(connect: Connect) -> None:
    async with connect() as client:
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert {"run_code", "create_sandbox", "run_command", "read_file"} <= set(tools)
        assert client.instructions is not None and "run_code" in client.instructions
        id_ = await create(client)
        here = {"sandbox_id": id_}
        first = await client.call_tool("run_code", {**here, "code": "x = 6\nprint('hello')\nx * 7"})
        assert [said(first), first.is_error] == ["ok\nstdout:\nhello\n42", False]
        again = await client.call_tool("run_code", {**here, "code": "x"})
        assert said(again) == "ok\n6"
        failed = await client.call_tool("run_code", {**here, "code": "1 / 0"})
        assert "ZeroDivisionError" in said(failed) and not failed.is_error
        afresh = await client.call_tool("run_code", {**here, "code": "x", "restart": True})
        assert "NameError" in said(afresh)
        wrote = await client.call_tool(
            "write_file", {**here, "path": "data/in.txt", "content": "one\ntwo\n"}
        )
        assert said(wrote) == "Wrote 8 bytes to /workspace/data/in.txt."
        counted = await client.call_tool("run_command", {**here, "command": "wc -l < data/in.txt"})
        assert said(counted) == "exit code: 0\nstdout:\n2"
        listed = await client.call_tool("list_files", {**here, "depth": 2})
        assert said(listed).splitlines() == [
            "/workspace/data/", "/workspace/data/in.txt (8 bytes)",
        ]  # fmt: skip
        read = await client.call_tool("read_file", {**here, "path": "data/in.txt"})
        assert said(read) == "one\ntwo\n"
        living = await client.call_tool("list_sandboxes")
        assert f"sandbox_id: {id_}; state: running" in said(living)
        killed = await client.call_tool("kill_sandbox", here)
        assert said(killed) == f"The sandbox {id_} is ended."
        gone = await client.call_tool("run_command", {**here, "command": "true"})
        assert gone.is_error
        assert "this sandbox has ended (killed)" in said(gone)
        assert "create_sandbox" in said(gone)


async def test_a_model_sees_pictures(connect: Connect) -> None:
    async with connect() as client:
        here = {"sandbox_id": await create(client, image="data")}
        shown = await client.call_tool("run_code", {**here, "code": PLOT})
        (picture,) = pictures(shown)
        assert picture.mime_type == "image/png"
        assert picture.data.startswith("iVBORw0KGgo")
        await client.call_tool("run_code", {**here, "code": SAVE})
        read = await client.call_tool("read_file", {**here, "path": "chart.png"})
        assert [each.mime_type for each in pictures(read)] == ["image/png"]
        await client.call_tool("kill_sandbox", here)


async def test_code_that_runs_once_leaves_files_that_a_model_sees(shared: Deployment) -> None:
    async with over_http(shared, shared.key("mcp")) as client:
        ran = await client.call_tool("run_code", {"code": "print(6 * 7)"})
        assert "state: succeeded" in said(ran)
        assert said(ran).endswith("stdout:\n42")
        wrote = await client.call_tool(
            "run_code", {"code": "open('a.txt', 'w').write('left'); 1 / 0", "timeout_s": 20}
        )
        assert "state: failed" in said(wrote) and "ZeroDivisionError" in said(wrote)
        assert "  a.txt (4 bytes)" in said(wrote)
        id_ = said(wrote).splitlines()[0].removeprefix("execution_id: ")
        read = await client.call_tool("read_artifact", {"execution_id": id_, "path": "a.txt"})
        assert said(read) == "left"
        shown = await client.call_tool("get_execution", {"execution_id": id_})
        assert said(shown) == said(wrote)


async def test_a_long_call_reports_progress(connect: Connect) -> None:
    """Each report has the seconds so far, those it may take, and the last line of output."""
    told: list[tuple[float, float | None, str | None]] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async with connect() as client:
        here = {"sandbox_id": await create(client)}
        wait = "for n in 1 2 3 4; do echo step $n; sleep 1; done"
        ran = await client.call_tool(
            "run_command", {**here, "command": wait, "timeout_s": 300}, progress_callback=listen
        )
        assert said(ran).startswith("exit code: 0\nstdout:\nstep 1")
        await client.call_tool("kill_sandbox", here)
    assert len(told) >= 2
    assert [each for each, _, _ in told] == sorted({each for each, _, _ in told})
    assert {total for _, total, _ in told} == {300}
    assert any((message or "").startswith("step ") for _, _, message in told)


async def test_results_are_short_and_say_what_was_left_out(shared: Deployment) -> None:
    async with over_http(shared, shared.key("mcp")) as client:
        here = {"sandbox_id": await create(client)}
        loud = "print('first'); print('x' * 1_000_000); print('last')"
        for tool, asked in (
            ("run_code", {"code": loud}),
            ("run_command", {"command": f'python3 -c "{loud}"'}),
        ):
            ran = await client.call_tool(tool, {**here, **asked})
            assert len(said(ran)) < 20_000
            assert "stdout:\nfirst\n" in said(ran) and said(ran).endswith("last")
            assert "of 1,000,012 bytes left out here" in said(ran)
        late = await client.call_tool(
            "run_command", {**here, "command": "sleep 60", "timeout_s": 1}
        )
        assert said(late).startswith("Killed: it took longer than 1 s.")
        many = "import os\nos.makedirs('d')\nfor n in range(30): open(f'd/{n}', 'w')"
        await client.call_tool("run_code", {**here, "code": many})
        listed = await client.call_tool("list_files", {**here, "path": "d", "limit": 10})
        assert said(listed).splitlines()[10:] == ["[only 10 are shown: list a folder below it]"]
        text = "é" * 40_000
        await client.call_tool("write_file", {**here, "path": "long.txt", "content": text})
        first = await client.call_tool("read_file", {**here, "path": "long.txt", "length": 50_001})
        assert said(first) == "é" * 25_000 + (
            "\n[bytes 0 to 50000 of 80000; read on with offset 50000]"
        )
        rest = await client.call_tool("read_file", {**here, "path": "long.txt", "offset": 50_000})
        assert said(rest) == "é" * 15_000 + "\n[bytes 50000 to 80000 of 80000; the end]"
        make = "head -c 700000 /dev/urandom > n; (printf '\\x89PNG\\r\\n\\x1a\\n'; cat n) > big.png"
        await client.call_tool("run_command", {**here, "command": make})
        big = await client.call_tool("read_file", {**here, "path": "big.png"})
        assert pictures(big) == []
        assert said(big).startswith("[image/png of 700,008 bytes left out")
        binary = await client.call_tool("read_file", {**here, "path": "n"})
        assert said(binary).startswith("[a binary file of 700,000 bytes")
        await client.call_tool("kill_sandbox", here)


@pytest.mark.parametrize("how", ["http", "http, older protocol", "stdio"])
async def test_what_runs_ends_with_its_client(shared: Deployment, how: str) -> None:
    """A command is killed, code in a context is interrupted, and code that runs once cancelled."""
    key, api = shared.key("mcp-gone"), shared.client("mcp-gone")
    connected = {
        "http": over_http(shared, key),
        "http, older protocol": over_http(shared, key, mode="legacy"),
        "stdio": over_stdio(shared, key),
    }[how]
    with api.sandboxes.create(size="small", timeout_s=900) as sandbox:
        begun = sandbox.contexts.create("python")
        leaving = asyncio.create_task(_busy(connected, sandbox.id))
        await _until(lambda: _runs(api, sandbox.id), leaving)
        await _until(lambda: begun.refresh().state == "running", leaving)
        await _until(lambda: api.list(state=["running"])[0], leaving)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        await asyncio.to_thread(eventually, lambda: not _runs(api, sandbox.id))
        await asyncio.to_thread(eventually, lambda: begun.refresh().state == "idle")
        await asyncio.to_thread(eventually, lambda: not api.list(state=["running"])[0])
        assert [each.state for each in api.list(limit=1)[0]] == ["cancelled"]
        # The control: what nobody waits for from the beginning goes on.
        async with over_http(shared, key) as client:
            await client.call_tool(
                "run_command",
                {"sandbox_id": sandbox.id, "command": "sleep 600", "background": True},
            )
        assert _runs(api, sandbox.id)


async def _busy(connected: AbstractAsyncContextManager[Client], id_: str) -> None:
    """Have a client wait for a command, for code in a sandbox, and for code that runs once."""
    sleep = "import time; time.sleep(600)"
    async with connected as client, asyncio.TaskGroup() as calls:
        for tool, asked in (
            ("run_command", {"sandbox_id": id_, "command": "sleep 600", "timeout_s": 900}),
            ("run_code", {"sandbox_id": id_, "code": sleep, "timeout_s": 900}),
            ("run_code", {"code": sleep, "timeout_s": 120}),
        ):
            calls.create_task(client.call_tool(tool, asked))


def _runs(api: Api, id_: str) -> bool:
    """Return whether a command of a model runs in the sandbox."""
    found = api.sandboxes.get(id_).processes()
    return any(each.state == "running" and each.tag == "mcp" for each in found)


async def _until(holds: Callable[[], object], client: "asyncio.Task[None]") -> None:
    """Wait until it holds, while the client stays connected."""
    looking = asyncio.create_task(asyncio.to_thread(eventually, holds))
    await asyncio.wait({looking, client}, return_when=asyncio.FIRST_COMPLETED)
    if not looking.done():
        await client
    await looking


@pytest.mark.parametrize("block", list(blocks("json", PAGE)), ids=str)
async def test_a_configuration_on_the_page_leads_to_the_tools(
    shared: Deployment, block: Block
) -> None:
    """Each is used as its client would, with this deployment's address and key in it."""
    key = shared.key("mcp-page")
    text = block.text.replace("https://runner.example.com", shared.url).replace("rk_…", key)
    (servers,) = json.loads(text).values()
    given = servers["agent-runner"]
    connecting: AbstractAsyncContextManager[Client]
    if "command" in given:
        started = StdioServerParameters(
            command=str(Path(sys.executable).with_name(given["command"])),
            args=given["args"],
            env={**os.environ, **given["env"]},
        )
        connecting = Client(started)
    else:
        connecting = with_headers(given["url"], given["headers"])
    async with connecting as client:
        assert "run_code" in {each.name for each in (await client.list_tools()).tools}


def test_the_pages_program_prints_what_it_computes(shared: Deployment) -> None:
    (program,) = blocks("python", PAGE)
    reached = {"RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("mcp-page")}
    ran = subprocess.run(
        [sys.executable, "-c", program.text],
        env={**os.environ, **reached}, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert ran.stdout.endswith("stdout:\n42\n")


def test_a_wrong_key_ends_the_command_with_the_reason(shared: Deployment) -> None:
    """A client shows its user what the command wrote to stderr; nothing is on stdout."""
    ran = subprocess.run(
        [sys.executable, "-m", "runner", "mcp"],
        env={**os.environ, "RUNNER_URL": shared.url, "RUNNER_API_KEY": "rk_wrong"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: a valid API key is needed")


def test_the_page_lists_every_tool() -> None:
    listed = re.findall(r"^\| `(\w+)` \| .* \| `([a-z:]+)`", PAGE.read_text(), re.MULTILINE)
    assert listed == [(each.name, each.permission.value) for each in TOOLS.values()]
