"""Agents of Pydantic AI that work in sandboxes of ours."""

import os
import runpy

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.workspaces import WorkspaceOutputLimitError, WorkspaceRef, WorkspaceTimeoutError

from agent_runner import AsyncClient
from agent_runner.integrations.pydantic_ai import RunnerWorkspace

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Return what the SDK runs on."""
    return "asyncio"


def scripted(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """Ask the shell, and answer with what it says."""
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse(parts=[TextPart(f"{last.content}")])
    return ModelResponse(parts=[ToolCallPart("shell", {"command": "echo $((6 * 7))"})])


def test_the_example_of_our_page_works(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(os.environ["RUNNER_TEST_EXAMPLE"], {"MODEL": FunctionModel(scripted)})
    assert capsys.readouterr().out == "42\n[exit code 0]\n"


async def test_a_workspace_ends_its_sandbox_as_a_context_manager() -> None:
    async with AsyncClient() as api:
        async with RunnerWorkspace(api, size="nano") as workspace:
            assert (await workspace.run(["true"])).exit_code == 0
        assert workspace.ref is not None
        assert (await api.sandboxes.get(workspace.ref.id)).info.state in {"stopping", "ended"}
        async with RunnerWorkspace(api, size="nano") as unused:
            assert unused.ref is None


async def test_output_that_is_too_long_is_refused_with_its_beginning() -> None:
    async with AsyncClient() as api, RunnerWorkspace(api, size="nano") as workspace:
        with pytest.raises(WorkspaceOutputLimitError) as refused:
            await workspace.run(["sh", "-c", "yes | head -c 2000000"])
        assert refused.value.stdout.startswith("y\ny\n")
        assert len(refused.value.stdout) == refused.value.limit


async def test_a_written_file_keeps_its_mode() -> None:
    async with AsyncClient() as api, RunnerWorkspace(api, size="nano") as workspace:
        await workspace.run(["sh", "-c", "echo old > tool && chmod 750 tool"])
        await workspace.write_bytes("/workspace/tool", b"new")
        assert (await workspace.run(["sh", "-c", "stat -c %a tool"])).stdout == "750\n"


async def test_a_path_that_leads_nowhere_does_not_exist() -> None:
    async with AsyncClient() as api, RunnerWorkspace(api, size="nano") as workspace:
        await workspace.run(["sh", "-c", "touch file; ln -s b a; ln -s a b; ln -s gone broken"])
        for name in ("missing", "file/child", "a", "broken"):
            assert not await workspace.exists(f"/workspace/{name}")
        assert await workspace.exists("/workspace/file")


async def test_many_links_are_listed_as_what_they_lead_to() -> None:
    """More of them than a command may have arguments."""
    async with AsyncClient() as api, RunnerWorkspace(api, size="nano") as workspace:
        await workspace.run(["sh", "-c", "mkdir to; for n in $(seq 300); do ln -s to l$n; done"])
        assert [each.is_dir for each in await workspace.list_dir("/workspace")] == [True] * 301


async def test_the_shortest_time_limit_is_one() -> None:
    async with AsyncClient() as api, RunnerWorkspace(api, size="nano") as workspace:
        with pytest.raises(WorkspaceTimeoutError):
            await workspace.run(["sleep", "60"], timeout=0.001)


async def test_another_providers_workspace_is_refused() -> None:
    async with AsyncClient() as api:
        with pytest.raises(ValueError, match="'local' has made the workspace"):
            RunnerWorkspace(api, ref=WorkspaceRef(provider="local", id="/"))
