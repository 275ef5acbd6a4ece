"""Sessions of the OpenAI Agents SDK in sandboxes of ours.

`RUNNER_TEST_CLIENT` says by which client: `ours`, or `e2b`, the framework's own client of E2B.
"""

import asyncio
import io
import os
import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from agents import RunConfig, Runner
from agents.extensions.sandbox.e2b import E2BSandboxClient, E2BSandboxClientOptions
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.entries import File
from agents.sandbox.errors import ExecTimeoutError, InvalidManifestPathError, SandboxError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.snapshot import LocalSnapshotSpec
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tracing import set_tracing_disabled
from openai.types.responses import ResponseCustomToolCall

from agent_runner import AsyncClient
from agent_runner.integrations.openai_agents import RunnerSandboxClient, RunnerSandboxClientOptions

Client: TypeAlias = BaseSandboxClient[Any]

pytestmark = pytest.mark.anyio
OURS = os.environ["RUNNER_TEST_CLIENT"] == "ours"
OPTIONS = (
    RunnerSandboxClientOptions(size="nano", timeout_s=600)
    if OURS
    else E2BSandboxClientOptions(sandbox_type="e2b", timeout=600)
)
ROOT = "/workspace" if OURS else "/home/user/work"
"""The framework empties the root before it unpacks a snapshot, which must then be no link."""
set_tracing_disabled(True)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Return what the SDK runs on."""
    return "asyncio"


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[AsyncClient]:
    """Return a client of our API."""
    async with AsyncClient() as client:
        yield client


@pytest.fixture(scope="module")
def client(api: AsyncClient) -> Client:
    """Return the client that is tried."""
    return RunnerSandboxClient(api) if OURS else E2BSandboxClient()


@pytest.fixture(scope="module")
async def session(client: Client) -> AsyncIterator[BaseSandboxSession]:
    """Return a session with a file from its manifest, and end it afterwards."""
    manifest = Manifest(entries={"notes/first.txt": File(content=b"one\n")})
    made = await client.create(manifest=manifest, options=OPTIONS)
    async with made:
        yield made
    await client.delete(made)
    assert not await made.running()


async def test_a_command_has_its_output_and_its_exit_code(session: BaseSandboxSession) -> None:
    ran = await session.exec("echo out; echo err >&2; exit 7")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (7, b"out\n", b"err\n")
    assert (await session.exec("test . -ef /workspace")).ok()


async def test_a_command_that_takes_too_long_is_killed(session: BaseSandboxSession) -> None:
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep 600.25", timeout=1)
    assert (await session.exec("pgrep -f 'sleep 600[.]25'")).exit_code == 1


async def test_the_manifest_is_in_the_workspace(session: BaseSandboxSession) -> None:
    assert (await session.read(Path("notes/first.txt"))).read() == b"one\n"
    assert [Path(each.path).name for each in await session.ls("notes")] == ["first.txt"]


async def test_files_go_in_and_come_out(session: BaseSandboxSession) -> None:
    data = bytes(range(256)) * 4096
    await session.write(Path("data.bin"), io.BytesIO(data))
    assert (await session.read(Path("data.bin"))).read() == data
    await session.exec("chmod 750 data.bin")
    await session.write(Path("data.bin"), io.BytesIO(data))
    assert (await session.exec("stat -c %a data.bin")).stdout == b"750\n"
    assert await session.read_bounded(Path("data.bin"), max_bytes=10) == data[:10]
    await session.rm("data.bin")
    with pytest.raises(SandboxError, match=r"not found|failed to read"):
        await session.read(Path("data.bin"))


async def test_a_link_out_of_the_workspace_is_not_followed(session: BaseSandboxSession) -> None:
    await session.exec("ln -s /etc/passwd out")
    with pytest.raises(InvalidManifestPathError):
        await session.read(Path("out"))
    await session.exec("rm out")


async def test_a_process_goes_on_between_calls(session: BaseSandboxSession) -> None:
    """It is written to on its terminal, and its end is told."""
    begun = await session.pty_exec_start(
        'read name; echo "hello $name"', tty=True, yield_time_s=0.3
    )
    assert (begun.exit_code, begun.process_id is not None) == (None, True)
    told = await session.pty_write_stdin(
        session_id=begun.process_id or 0, chars="you\n", yield_time_s=10
    )
    said = told.output
    if told.process_id is not None:
        told = await session.pty_write_stdin(session_id=told.process_id, chars="", yield_time_s=10)
        said += told.output
    assert b"hello you" in said


async def test_one_without_a_terminal_tells_its_exit_code(session: BaseSandboxSession) -> None:
    told = await session.pty_exec_start("echo a; exit 3", yield_time_s=20)
    assert (told.exit_code, told.process_id) == (3, None)
    assert told.output.decode().strip() == "a"


async def test_a_session_comes_back_with_its_workspace(client: Client, tmp_path: Path) -> None:
    """From its state as JSON, in another sandbox, since the first one has ended."""
    snapshot = LocalSnapshotSpec(base_path=tmp_path)
    manifest = Manifest(root=ROOT)
    first = await client.create(snapshot=snapshot, manifest=manifest, options=OPTIONS)
    async with first:
        await first.write(Path("kept.txt"), io.BytesIO(b"kept"))
        await first.exec("ln -s kept.txt link; mkdir empty; chmod +x kept.txt")
    await client.delete(first)
    state = client.deserialize_session_state(client.serialize_session_state(first.state))
    second = await client.resume(state)
    async with second:
        assert (await second.read(Path("link"))).read() == b"kept"
        assert (await second.exec("test -x kept.txt && test -d empty")).ok()
    await client.delete(second)


async def test_a_session_comes_back_to_a_sandbox_that_lives(client: Client) -> None:
    first = await client.create(manifest=Manifest(), options=OPTIONS)
    await first.start()
    await first.write(Path("here.txt"), io.BytesIO(b"here"))
    state = client.deserialize_session_state(client.serialize_session_state(first.state))
    second = await client.resume(state)
    async with second:
        assert (await second.read(Path("here.txt"))).read() == b"here"
    assert not await first.running()


async def test_an_agent_works_in_a_sandbox(client: Client, api: AsyncClient) -> None:
    """Its model runs a command, patches a file and looks at the result; no sandbox stays."""
    patch = "*** Begin Patch\n*** Add File: a.txt\n+patched\n*** End Patch"
    patching = ResponseCustomToolCall(
        call_id="2", name="apply_patch", input=patch, type="custom_tool_call"
    )
    model = ScriptedModel(
        [
            [function_call("exec_command", {"cmd": "echo $((6 * 7))"}, call_id="1")],
            [patching],
            [function_call("exec_command", {"cmd": "cat a.txt"}, call_id="3")],
            [assistant_message("done")],
        ]
    )
    agent = SandboxAgent(name="worker", instructions="Work.", model=model)
    config = RunConfig(sandbox=SandboxRunConfig(client=client, options=OPTIONS))
    before, _ = await api.sandboxes.list(state=["running"])
    result = await Runner.run(agent, "Compute.", run_config=config)
    after, _ = await api.sandboxes.list(state=["running"])
    said = [f"{each.output}" for each in result.new_items if each.type == "tool_call_output_item"]
    assert result.final_output == "done"
    assert "42" in said[0], said
    assert "patched" in said[2], said
    assert {each.id for each in after} == {each.id for each in before}


if OURS:

    async def test_what_a_process_writes_between_calls_is_bounded(
        session: BaseSandboxSession,
    ) -> None:
        """Otherwise a program that writes without end would fill the memory of its agent."""
        begun = await session.pty_exec_start("yes | head -c 40000000; sleep 600", yield_time_s=0.25)
        assert begun.process_id is not None
        await asyncio.sleep(5)
        told = await session.pty_write_stdin(session_id=begun.process_id, chars="", yield_time_s=5)
        assert len(told.output) < 3 * 2**20
        assert b"bytes left out" in told.output

    async def test_a_signal_is_told_as_a_shell_tells_it(session: BaseSandboxSession) -> None:
        assert (await session.exec("kill -9 $$")).exit_code == 137

    async def test_output_is_whole_or_refused(session: BaseSandboxSession) -> None:
        """More than 1 MiB of output is an error that says what to do."""
        with pytest.raises(SandboxError, match="write to a file"):
            await session.exec("head -c 2000000 /dev/zero")

    async def test_a_session_may_pause_its_sandbox(client: Client) -> None:
        options = RunnerSandboxClientOptions(size="nano", timeout_s=600, pause_on_exit=True)
        first = await client.create(manifest=Manifest(), options=options)
        async with first:
            await first.exec("sleep 600.5 & echo begun")
        state = client.deserialize_session_state(client.serialize_session_state(first.state))
        second = await client.resume(state)
        await second.start()
        assert (await second.exec("pgrep -f 'sleep 600[.]5'")).ok()
        await client.delete(second)

    async def test_others_reach_a_port_by_its_own_name(client: Client) -> None:
        options = RunnerSandboxClientOptions(size="nano", timeout_s=600, exposed_ports=(8000,))
        made = await client.create(manifest=Manifest(), options=options)
        async with made:
            told = await made.resolve_exposed_port(8000)
        await client.delete(made)
        assert told.host.startswith("8000-")
        assert told.query.startswith("runner_token=")

    def test_the_example_of_our_page_works(capsys: pytest.CaptureFixture[str]) -> None:
        step = function_call("exec_command", {"cmd": "echo $((6 * 7))"}, call_id="1")
        runpy.run_path(
            os.environ["RUNNER_TEST_EXAMPLE"],
            {"MODEL": ScriptedModel([[step], [assistant_message("It is 42.")]])},
        )
        assert capsys.readouterr().out == "It is 42.\n"
