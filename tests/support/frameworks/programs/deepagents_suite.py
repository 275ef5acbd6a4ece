"""LangChain's own suite for sandboxes, with ours."""

from collections.abc import Iterator

import pytest
from deepagents.backends.protocol import SandboxBackendProtocol
from langchain_tests.integration_tests import SandboxIntegrationTests

from agent_runner import Sandbox
from agent_runner.integrations.deepagents import RunnerSandbox


class TestRunnerSandbox(SandboxIntegrationTests):
    """All of it."""

    @pytest.fixture(scope="class")
    def sandbox(self) -> Iterator[SandboxBackendProtocol]:
        """Return a sandbox that all tests share."""
        with Sandbox.create(size="small", timeout_s=900) as sandbox:
            yield RunnerSandbox(sandbox)
