"""The sandboxes of the OpenAI Agents SDK's sessions: made, resumed and deleted."""

import uuid

from agents.sandbox.manifest import Manifest
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, resolve_snapshot

from agent_runner import ApiError, AsyncClient, AsyncSandbox
from agent_runner.integrations.openai_agents.session import RunnerSandboxSession
from agent_runner.integrations.openai_agents.state import (
    BACKEND,
    RunnerSandboxClientOptions,
    RunnerSandboxSessionState,
)
from agent_runner.integrations.refusals import is_gone


class RunnerSandboxClient(BaseSandboxClient[RunnerSandboxClientOptions]):
    """Makes, resumes and deletes the sandboxes of agents."""

    backend_id = BACKEND
    supports_default_options = True

    def __init__(
        self,
        client: AsyncClient,
        *,
        instrumentation: Instrumentation | None = None,
        dependencies: Dependencies | None = None,
    ) -> None:
        self._client = client
        self._instrumentation = instrumentation or Instrumentation()
        self._dependencies = dependencies

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: RunnerSandboxClientOptions | None = None,
    ) -> SandboxSession:
        """Make a sandbox, and a session in it."""
        manifest = self._validate_manifest_for_create(manifest or Manifest())
        options = options or RunnerSandboxClientOptions()
        sandbox = await self._made(options)
        session_id = uuid.uuid4()
        state = RunnerSandboxSessionState(
            session_id=session_id,
            manifest=manifest,
            snapshot=resolve_snapshot(snapshot, str(session_id)),
            sandbox_id=sandbox.id,
            options=options,
            exposed_ports=options.exposed_ports,
        )
        return self._session(state, sandbox)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Kill a session's sandbox."""
        inner = session._inner  # noqa: SLF001 - as the SDK's own clients do
        if not isinstance(inner, RunnerSandboxSession):
            raise TypeError(f"{type(inner).__name__} is not a session of {type(self).__name__}")
        await inner.sandbox.kill()
        return session

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Go on in a session's sandbox; if it has ended, in another one made like it."""
        if not isinstance(state, RunnerSandboxSessionState):
            raise TypeError(f"{type(state).__name__} is not a state of {type(self).__name__}")
        state.assert_path_grants_rebound()
        sandbox = await self._kept(state.sandbox_id)
        kept = sandbox is not None
        if sandbox is None:
            sandbox = await self._made(state.options)
            state.sandbox_id = sandbox.id
            state.workspace_root_ready = False
        return self._session(state, sandbox, kept=kept)

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Return the state that `serialize_session_state` has written."""
        return self._deserialize_session_state_payload(payload, RunnerSandboxSessionState)

    async def _made(self, options: RunnerSandboxClientOptions) -> AsyncSandbox:
        return await self._client.sandboxes.create(**options.fields())

    async def _kept(self, sandbox_id: str) -> AsyncSandbox | None:
        """Return a sandbox that lives, paused or not."""
        try:
            sandbox = await self._client.sandboxes.get(sandbox_id)
            if sandbox.info.state in {"pausing", "paused"}:
                await sandbox.resume()
        except ApiError as error:
            if not is_gone(error):
                raise
            return None
        return None if sandbox.info.state in {"stopping", "ended"} else sandbox

    def _session(
        self, state: RunnerSandboxSessionState, sandbox: AsyncSandbox, *, kept: bool = False
    ) -> SandboxSession:
        inner = RunnerSandboxSession(state, sandbox)
        inner._set_start_state_preserved(kept)  # noqa: SLF001 - as the SDK's own clients do
        return self._wrap_session(inner, instrumentation=self._instrumentation)
