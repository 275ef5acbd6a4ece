"""Inspect's own suite for sandboxes, with ours."""

from collections.abc import AsyncIterator

import pytest_asyncio
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.self_check import *  # noqa: F403 - as the suite says

from agent_runner.integrations.inspect import RunnerSandboxEnvironment, SandboxConfig


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox_env() -> AsyncIterator[SandboxEnvironment]:
    """Return a sandbox that all tests share, as a sample gets it."""
    config = SandboxConfig.model_validate({"size": "medium"})
    made = await RunnerSandboxEnvironment.sample_init("self_check", config, {})
    try:
        yield made["default"]
    finally:
        await RunnerSandboxEnvironment.sample_cleanup("self_check", config, made, interrupted=False)
