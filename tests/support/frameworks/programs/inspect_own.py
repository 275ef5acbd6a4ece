"""Requests to a sandbox that Inspect's suite does not make."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from inspect_ai.tool._sandbox_tools_utils.sandbox import SandboxInjectionError
from inspect_ai.util import (
    OutputLimitExceededError,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
)
from inspect_ai.util._sandbox.events import SandboxEnvironmentProxy
from inspect_ai.util._sandbox.limits import override_max_exec_output_size
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv

from agent_runner import AsyncClient, Invalid
from agent_runner.integrations.inspect import RunnerSandboxEnvironment, SandboxConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def sample(**fields: object) -> AsyncIterator[RunnerSandboxEnvironment]:
    """Yield a sample's sandbox."""
    config = SandboxConfig.model_validate(fields)
    made = await RunnerSandboxEnvironment.sample_init("own", config, {})
    try:
        yield made["default"].as_type(RunnerSandboxEnvironment)
    finally:
        await RunnerSandboxEnvironment.sample_cleanup("own", config, made, interrupted=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[RunnerSandboxEnvironment]:
    """Return a sandbox that tests share."""
    async with sample(size="medium") as made:
        yield made


async def test_inspect_finds_it_by_its_name() -> None:
    assert registry_find_sandboxenv("agent-runner") is RunnerSandboxEnvironment


async def test_a_sample_has_a_sandbox_until_it_ends() -> None:
    async with AsyncClient() as api:
        async with sample(size="nano", metadata={"mine": "too"}) as made:
            info = (await api.sandboxes.get(made.sandbox.id)).info
            assert info.size == "nano"
            assert info.metadata == {"mine": "too", "inspect_task": "own"}
            assert info.timeout_s is not None, "it ends even if nobody does"
        assert (await api.sandboxes.get(made.sandbox.id)).info.ended


async def test_a_configuration_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.json"
    file.write_text('{"size": "nano"}')
    made = await RunnerSandboxEnvironment.sample_init("own", str(file), {})
    try:
        assert made["default"].as_type(RunnerSandboxEnvironment).sandbox.info.size == "nano"
    finally:
        await RunnerSandboxEnvironment.sample_cleanup("own", None, made, interrupted=True)


async def test_a_field_that_the_api_does_not_have_is_an_error() -> None:
    with pytest.raises(Invalid, match="sise"):
        async with sample(sise="nano"):
            pass


async def test_nobody_is_another_user(sandbox: RunnerSandboxEnvironment) -> None:
    with pytest.raises(SandboxUserUnsupportedError, match="root"):
        await sandbox.exec(["true"], user="root")


async def test_a_program_that_does_not_exist_fails_as_in_a_shell(
    sandbox: RunnerSandboxEnvironment,
) -> None:
    ran = await sandbox.exec(["no-such-program"])
    assert (ran.success, ran.returncode) == (False, 127)
    assert "no-such-program" in ran.stderr


async def test_too_much_output_is_an_error(sandbox: RunnerSandboxEnvironment) -> None:
    many = ["sh", "-c", "yes | head -c 3000000"]
    assert len((await sandbox.exec(many)).stdout) == 3_000_000
    with override_max_exec_output_size(2048), pytest.raises(OutputLimitExceededError) as error:
        await sandbox.exec(many)
    assert error.value.truncated_output == "y\n" * 1024


async def test_a_program_need_not_read_its_input(sandbox: RunnerSandboxEnvironment) -> None:
    ran = await sandbox.exec(["sh", "-c", "exit 3"], input="x" * 1_000_000)
    assert ran.returncode == 3


async def test_a_file_keeps_its_mode(sandbox: RunnerSandboxEnvironment) -> None:
    await sandbox.write_file("script", "#!/bin/sh\necho one\n")
    await sandbox.exec(["chmod", "+x", "script"])
    await sandbox.write_file("script", "#!/bin/sh\necho two\n")
    assert (await sandbox.exec(["./script"])).stdout == "two\n"


async def test_a_command_that_nobody_waits_for_is_killed(sandbox: RunnerSandboxEnvironment) -> None:
    waiting = asyncio.create_task(sandbox.exec(["sleep", "987"]))
    await eventually(sandbox, runs=True)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(sandbox, runs=False)


async def eventually(sandbox: RunnerSandboxEnvironment, *, runs: bool) -> None:
    """Wait until `sleep 987` runs in a sandbox, or does not."""
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    for _ in range(100):
        if ("sleep 987" in (await sandbox.exec(["sh", "-c", look])).stdout) == runs:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"it still {'does not run' if runs else 'runs'}")


async def test_inspects_own_tools_are_refused_with_a_reason(
    sandbox: RunnerSandboxEnvironment,
) -> None:
    """They are to be installed in a folder that nobody may write to."""
    inside = SandboxEnvironmentProxy(sandbox)  # what tools are given during an evaluation
    with pytest.raises(SandboxInjectionError, match="var/tmp"):
        await inside.exec_remote(["true"], stream=False)


async def test_a_person_may_open_a_shell(sandbox: RunnerSandboxEnvironment) -> None:
    told = await sandbox.connection()
    assert told.command == f"runner sandbox shell {sandbox.sandbox.id}"
    with pytest.raises(NotImplementedError):
        await sandbox.connection(user="root")


async def test_a_sandbox_that_has_ended_is_no_result_of_a_command() -> None:
    async with sample(size="nano") as made:
        await made.sandbox.kill()
        with pytest.raises(SandboxUnavailableError, match="killed"):
            await made.exec(["true"])
        with pytest.raises(ConnectionError):
            await made.connection()


async def test_what_an_evaluation_has_left_is_cleaned_up() -> None:
    async with (
        AsyncClient() as api,
        await api.sandboxes.create(size="nano") as own,
        sample(size="nano") as left,
        sample(size="nano") as other,
    ):
        await RunnerSandboxEnvironment.cli_cleanup(other.sandbox.id)
        assert (await other.sandbox.refresh()).ended
        assert not (await left.sandbox.refresh()).ended
        await RunnerSandboxEnvironment.cli_cleanup(None)
        assert (await left.sandbox.refresh()).ended
        assert not (await own.refresh()).ended
