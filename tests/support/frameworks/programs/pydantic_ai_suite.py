"""Pydantic AI's own suite for workspaces, run against a workspace in a sandbox of ours."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from pydantic_ai.workspaces import WorkspaceBackend, WorkspaceRef
from pydantic_ai.workspaces.conformance import WorkspaceBackendSuite

from agent_runner import AsyncClient, Gone
from agent_runner.integrations.pydantic_ai import RunnerWorkspace

Make = Callable[[WorkspaceRef | None], RunnerWorkspace]


@pytest.fixture(scope="class")
def anyio_backend() -> str:
    """Return what the SDK runs on."""
    return "asyncio"


@pytest.fixture(scope="class")
async def make() -> AsyncIterator[Make]:
    """Return a function that makes a workspace; kill the sandboxes of all of them at the end."""
    made: list[RunnerWorkspace] = []
    async with AsyncClient() as client:

        def make(ref: WorkspaceRef | None = None) -> RunnerWorkspace:
            made.append(RunnerWorkspace(client, ref=ref, size="nano", timeout_s=900))
            return made[-1]

        yield make
        for sandbox_id in {each.ref.id for each in made if each.ref is not None}:
            with suppress(Gone):
                await (await client.sandboxes.get(sandbox_id)).kill()


class TestRunnerWorkspace(WorkspaceBackendSuite):
    """The suite's tests, with all that they can be given."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, make: Make) -> WorkspaceBackend:
        """Return a workspace that the tests share: each works in a folder of its own."""
        return make(None)

    @pytest.fixture
    def fresh_backend(self, make: Make) -> Callable[[], WorkspaceBackend]:
        """Return a function that makes a workspace without a sandbox yet."""
        return lambda: make(None)

    @pytest.fixture
    def attach_backend(self, make: Make) -> Callable[[WorkspaceRef], WorkspaceBackend]:
        """Return a function that makes a workspace of a sandbox that is there."""
        return make

    @pytest.fixture
    async def destroy_environment(self) -> Callable[[WorkspaceBackend], Awaitable[None]]:
        """Return a function that kills a workspace's sandbox."""

        async def destroy(backend: WorkspaceBackend) -> None:
            assert backend.ref is not None
            async with AsyncClient() as client:
                await (await client.sandboxes.get(backend.ref.id)).kill()

        return destroy
