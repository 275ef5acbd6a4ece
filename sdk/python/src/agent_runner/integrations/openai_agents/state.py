"""The options of a session of the OpenAI Agents SDK, and the state by which to come back to it."""

from typing import Any, Literal

from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

BACKEND: Literal["agent-runner"] = "agent-runner"
OURS = frozenset({"type", "exposed_ports", "pause_on_exit"})
"""Fields that say nothing to the API."""


class RunnerSandboxClientOptions(BaseSandboxClientOptions):
    """The options of a sandbox to make, in the fields of the API.

    `exposed_ports` are those that others may reach. With `pause_on_exit`, the sandbox is paused at
    the end of its session, not killed.
    """

    type: Literal["agent-runner"] = BACKEND
    exposed_ports: tuple[int, ...] = ()
    pause_on_exit: bool = False
    image: str | None = None
    size: str | None = None
    isolation: str | None = None
    timeout_s: float | None = None
    on_timeout: Literal["kill", "pause"] | None = None
    auto_resume: bool | None = None
    max_life_s: float | None = None
    egress: list[dict[str, Any]] | None = None
    egress_policy: str | None = None
    env: dict[str, str] | None = None
    secret_env: dict[str, str] | None = None
    metadata: dict[str, str] | None = None
    project: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return what `client.sandboxes.create` takes."""
        given = self.model_dump(exclude_none=True)
        return {name: value for name, value in given.items() if name not in OURS}


class RunnerSandboxSessionState(SandboxSessionState):
    """The state by which to come back to a sandbox, or to make another one like it."""

    type: Literal["agent-runner"] = BACKEND
    sandbox_id: str
    options: RunnerSandboxClientOptions
