"""Deep Agents Code: makes a sandbox for a session, and ends it afterwards.

    dcode --sandbox agent-runner

It finds the deployment by `RUNNER_URL` and `RUNNER_API_KEY`. `[sandboxes.providers]` in its
configuration may have the fields of `POST /v1/sandboxes` as parameters.
"""

from functools import cached_property
from typing import Any

from deepagents_code.integrations.sandbox_provider import (
    SandboxInstallHint,
    SandboxNotFoundError,
    SandboxProvider,
    SandboxProviderMetadata,
)

from agent_runner import Client, NotFound, Sandbox
from agent_runner.integrations.deepagents import RunnerSandbox

LIFE_S = 4 * 3600
"""Seconds after which a sandbox ends, if whoever made it has not ended it."""


class RunnerProvider(SandboxProvider):
    """The sandboxes of a tenant."""

    @property
    def metadata(self) -> SandboxProviderMetadata:
        """Facts about it for the command line."""
        return SandboxProviderMetadata(
            name="agent-runner",
            working_dir="/workspace",
            install=SandboxInstallHint(kind="package", name="agent-runner-sdk[deepagents]"),
            supports_snapshot_name=True,
        )

    def get_or_create(self, *, sandbox_id: str | None = None, **options: Any) -> RunnerSandbox:
        """Return a sandbox that lives, or make one; `options` are the API's fields.

        Raises SandboxNotFoundError if it does not live, and ApiError.
        """
        if sandbox_id is not None:
            return RunnerSandbox(self._living(sandbox_id))
        return RunnerSandbox(self._api.sandboxes.create(**{"timeout_s": LIFE_S, **options}))

    def delete(self, *, sandbox_id: str, **_: Any) -> None:
        """End a sandbox. Raises SandboxNotFoundError if it does not live, and ApiError."""
        self._living(sandbox_id).kill()

    @cached_property
    def _api(self) -> Client:
        # Deep Agents Code also makes providers only to ask for their metadata, without a key.
        return Client()

    def _living(self, sandbox_id: str) -> Sandbox:
        try:
            sandbox = self._api.sandboxes.get(sandbox_id)
        except NotFound as error:
            raise SandboxNotFoundError(sandbox_id) from error
        if sandbox.info.ended:
            raise SandboxNotFoundError(f"{sandbox_id} has ended: {sandbox.info.reason}")
        return sandbox
