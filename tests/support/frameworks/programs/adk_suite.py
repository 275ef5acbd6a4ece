"""Google's Agent Development Kit with an environment in a sandbox of ours."""

import asyncio
import os
import runpy
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.environment import EnvironmentToolset
from google.genai import types

from agent_runner import AsyncClient
from agent_runner.integrations.adk import RunnerEnvironment

pytestmark = pytest.mark.anyio


class Scripted(BaseLlm):
    """A model that says what it was given, one part for each of its turns."""

    parts: list[types.Part]

    async def generate_content_async(
        self,
        llm_request: LlmRequest,  # noqa: ARG002 - the base's signature
        stream: bool = False,  # noqa: ARG002, FBT002
    ) -> AsyncGenerator[LlmResponse, None]:
        """Yield the next part."""
        yield LlmResponse(content=types.Content(role="model", parts=[self.parts.pop(0)]))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Return what the SDK runs on."""
    return "asyncio"


@pytest.fixture(scope="module")
async def environment() -> AsyncIterator[RunnerEnvironment]:
    """Return an environment that is ready."""
    made = RunnerEnvironment(size="nano", timeout_s=600)
    await made.initialize()
    yield made
    await made.close()


def call(name: str, **args: Any) -> types.Part:
    return types.Part(function_call=types.FunctionCall(name=name, args=args))


async def living() -> set[str]:
    async with AsyncClient() as client:
        return {each.id for each in (await client.sandboxes.list(state=["running"]))[0]}


async def test_a_command_has_its_output_and_its_exit_code(environment: RunnerEnvironment) -> None:
    ran = await environment.execute("pwd; echo err >&2; exit 7")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (7, "/workspace\n", "err\n")
    assert not ran.timed_out


async def test_a_command_that_takes_too_long_is_killed(environment: RunnerEnvironment) -> None:
    ran = await environment.execute("echo begun; sleep 600.25", timeout=1)
    assert (ran.timed_out, ran.stdout, ran.exit_code) == (True, "begun\n", 137)
    assert (await environment.execute("pgrep -f 'sleep 600[.]25'")).exit_code == 1


async def test_a_command_that_is_cancelled_is_killed(environment: RunnerEnvironment) -> None:
    """It is killed even if it is cancelled while it is being started."""
    for delay_s in (0.0, 0.02, 0.5):
        running = asyncio.ensure_future(environment.execute("sleep 600.75"))
        await asyncio.sleep(delay_s)
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
    assert (await environment.execute("pgrep -f 'sleep 600[.]75'")).exit_code == 1


async def test_output_that_is_too_long_says_so(environment: RunnerEnvironment) -> None:
    ran = await environment.execute("head -c 2000000 /dev/zero")
    assert ran.stdout.endswith("\n[… 951,424 bytes left out …]\n")


async def test_files_go_in_and_come_out(environment: RunnerEnvironment) -> None:
    await environment.write_file(Path("a/b.txt"), "text")
    assert await environment.read_file(environment.working_dir / "a/b.txt") == b"text"
    await environment.execute("chmod 750 a/b.txt")
    await environment.write_file(Path("a/b.txt"), b"more")
    assert (await environment.execute("stat -c %a a/b.txt; cat a/b.txt")).stdout == "750\nmore"
    with pytest.raises(FileNotFoundError):
        await environment.read_file(Path("missing.txt"))
    with pytest.raises(IsADirectoryError):
        await environment.read_file(Path("a"))


async def test_without_a_sandbox_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="initialize"):
        await RunnerEnvironment().execute("true")


async def test_an_agent_works_in_a_sandbox_that_ends_with_its_runner() -> None:
    before = await living()
    toolset = EnvironmentToolset(environment=RunnerEnvironment(size="nano", timeout_s=600))
    script = [
        call("WriteFile", path="numbers.txt", content="3\n1\n"),
        call("Execute", command="sort numbers.txt"),
        types.Part(text="done"),
    ]
    agent = LlmAgent(name="worker", model=Scripted(model="scripted", parts=script), tools=[toolset])
    runner = InMemoryRunner(agent=agent)
    events = await runner.run_debug("Sort.", quiet=True)
    during = await living()
    await runner.close()
    answers = [each.response for event in events for each in event.get_function_responses()]
    assert answers[1] == {"status": "ok", "stdout": "1\n3\n"}
    assert (len(during - before), await living()) == (1, before)


def test_the_example_of_our_page_works(capsys: pytest.CaptureFixture[str]) -> None:
    script = [call("Execute", command="echo $((6 * 7))"), types.Part(text="It is 42.")]
    runpy.run_path(
        os.environ["RUNNER_TEST_EXAMPLE"], {"MODEL": Scripted(model="scripted", parts=script)}
    )
    assert "It is 42." in capsys.readouterr().out
