"""LangChain's own suite for sandboxes, with its package for E2B, which is not ours."""

from collections.abc import Iterator

import e2b
import pytest
from deepagents.backends.protocol import SandboxBackendProtocol
from langchain_e2b import E2BSandbox
from langchain_tests.integration_tests import SandboxIntegrationTests


class TestE2BSandbox(SandboxIntegrationTests):
    """All of it."""

    @pytest.fixture(scope="class")
    def sandbox(self) -> Iterator[SandboxBackendProtocol]:
        """Return a sandbox that all tests share."""
        made = e2b.Sandbox.create(timeout=900)
        try:
            yield E2BSandbox(sandbox=made)
        finally:
            made.kill()
