"""A sandbox client of the OpenAI Agents SDK: give it to the agent's `SandboxRunConfig`.

client      makes, resumes and deletes the sandboxes of sessions
session     a session: commands, files, ports and the workspace as an archive
terminals   processes that go on between the calls of an agent's tools
state       what a session is made from, and what it takes to come back to it
"""

from agent_runner.integrations.openai_agents.client import RunnerSandboxClient
from agent_runner.integrations.openai_agents.session import RunnerSandboxSession
from agent_runner.integrations.openai_agents.state import (
    RunnerSandboxClientOptions,
    RunnerSandboxSessionState,
)

__all__ = [
    "RunnerSandboxClient",
    "RunnerSandboxClientOptions",
    "RunnerSandboxSession",
    "RunnerSandboxSessionState",
]
