"""A session of the OpenAI Agents SDK in a sandbox."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    ExposedPortUnavailableError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceStartError,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.mount_lifecycle import with_ephemeral_mounts_removed
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.runtime_helpers import (
    RESOLVE_WORKSPACE_PATH_HELPER,
    RuntimeHelperScript,
)
from agents.sandbox.session.workspace_payloads import coerce_write_payload
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User
from agents.sandbox.util.tar_utils import (
    UnsafeTarMemberError,
    should_skip_tar_member,
    validate_tar_bytes,
)

from agent_runner import ApiError, AsyncSandbox
from agent_runner.integrations.commands import finished, is_whole, not_started, write
from agent_runner.integrations.openai_agents.state import RunnerSandboxSessionState
from agent_runner.integrations.openai_agents.terminals import Terminals
from agent_runner.integrations.refusals import is_gone
from agent_runner.transport import params

WINDOW = {"rows": 24, "columns": 80}
PORTS = {"https": 443, "http": 80}


class RunnerSandboxSession(BaseSandboxSession):
    """A session of an agent in a sandbox."""

    state: RunnerSandboxSessionState

    def __init__(self, state: RunnerSandboxSessionState, sandbox: AsyncSandbox) -> None:
        self.state = state
        self.sandbox = sandbox
        self._terminals = Terminals()
        self._root_is_there = state.workspace_root_ready

    async def running(self) -> bool:
        """Return whether the sandbox takes commands."""
        try:
            return self._root_is_there and (await self.sandbox.refresh()).state == "running"
        except ApiError as error:
            if is_gone(error):
                return False
            raise

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        """Return a file's content."""
        if user is not None:
            await self._check_read_with_exec(path, user=user)
        return io.BytesIO(await self._content(path))

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file, and make the folders above it. It keeps its mode."""
        if user is not None:
            await self._check_write_with_exec(path, user=user)
        payload = coerce_write_payload(path=path, data=data)
        target = await self._validate_path_access(path, for_write=True)
        with _writing(path):
            await write(self.sandbox, target.as_posix(), payload.stream)

    async def persist_workspace(self) -> io.IOBase:
        """Return the workspace as a tar archive, without what is not to be kept."""
        root = self._workspace_root_path()
        return await with_ephemeral_mounts_removed(
            self,
            self._archive,
            error_path=root,
            error_cls=WorkspaceArchiveReadError,
            operation_error_context_key="persist_error",
        )

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Unpack a tar archive into the workspace."""
        root = self._workspace_root_path()
        raw = coerce_write_payload(path=root, data=data).stream.read()
        try:
            validate_tar_bytes(raw, allow_external_symlink_targets=False)
        except UnsafeTarMemberError as error:
            context = {"reason": "unsafe_or_invalid_tar", "member": error.member}
            raise WorkspaceArchiveWriteError(path=root, context=context, cause=error) from error
        with _writing(root):
            await self.sandbox.files.write_archive(root.as_posix(), raw)

    def supports_pty(self) -> bool:
        """Return whether processes go on between an agent's calls."""
        return True

    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,  # noqa: ASYNC109 - the base's parameter
        shell: bool | list[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Start a process, and return what it writes at first."""
        argv = self._prepare_exec_command(*command, shell=shell, user=user)
        options = params(terminal=WINDOW if tty else None, timeout_s=timeout)
        with _commanding(argv):
            env = await self._environment()
            process = await self.sandbox.start(argv, cwd=self._cwd(), env=env, **options)
            return await self._terminals.begun(process, yield_time_s, max_output_tokens)

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Write to a process, and return what it writes."""
        with _commanding([f"process {session_id}"]):
            return await self._terminals.wrote(session_id, chars, yield_time_s, max_output_tokens)

    async def pty_terminate_all(self) -> None:
        """Kill the processes that `pty_exec_start` has started."""
        await self._terminals.end()

    async def _exec_internal(
        self,
        *command: str | Path,
        timeout: float | None = None,  # noqa: ASYNC109 - the base's parameter
    ) -> ExecResult:
        argv = [str(each) for each in command]
        with _commanding(argv):
            ran = await finished(
                self.sandbox,
                argv,
                cwd=self._cwd(),
                env=await self._environment(),
                timeout_s=timeout,
            )
        if ran.timed_out:
            raise ExecTimeoutError(command=argv, timeout_s=timeout)
        if not is_whole(ran):
            why = "the command wrote more than 1 MiB: let it write to a file, and read that"
            raise ExecTransportError(command=argv, message=why, retryable=False)
        return ExecResult(stdout=ran.stdout.raw, stderr=ran.stderr.raw, exit_code=ran.status)

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        return await self._validate_remote_path_access(path, for_write=for_write)

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    def _current_runtime_helper_cache_key(self) -> object | None:
        return self.state.sandbox_id

    def _mark_workspace_root_ready_from_probe(self) -> None:
        super()._mark_workspace_root_ready_from_probe()
        self._root_is_there = True

    async def _prepare_backend_workspace(self) -> None:
        root = self._workspace_root_path()
        try:
            await self.sandbox.files.make_folder(root.as_posix())
        except ApiError as error:
            raise WorkspaceStartError(path=root, cause=error) from error
        self._root_is_there = True

    async def _shutdown_backend(self) -> None:
        if self.state.options.pause_on_exit:
            await self.sandbox.pause()
        else:
            await self.sandbox.kill()

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        try:
            opened = await self.sandbox.ports.open(port)
        except ApiError as error:
            raise self._unreachable(port, str(error)) from error
        url = urlsplit(opened.url)
        if url.path.strip("/") or url.hostname is None:
            raise self._unreachable(port, "ports have no host names: set RUNNER_PORTS_DOMAIN")
        return ExposedPortEndpoint(
            host=url.hostname,
            port=url.port or PORTS[url.scheme],
            tls=url.scheme == "https",
            query=f"runner_token={opened.token}",
        )

    def _unreachable(self, port: int, why: str) -> ExposedPortUnavailableError:
        return ExposedPortUnavailableError(
            port=port,
            exposed_ports=self.state.exposed_ports,
            reason="backend_unavailable",
            context={"detail": why},
        )

    async def _read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        return await self._content(path, max_bytes)

    async def _content(self, path: Path, most: int | None = None) -> bytes:
        """Return a file's bytes, or the first of them."""
        target = await self._validate_path_access(path)
        found = bytearray()
        with _reading(path):
            async with self.sandbox.files.open(target.as_posix()) as pieces:
                async for each in pieces:
                    found += each
                    if most is not None and len(found) >= most:
                        break
        return bytes(found[:most])

    async def _archive(self) -> io.IOBase:
        root = self._workspace_root_path()
        with _reading(root):
            async with self.sandbox.files.open_archive(root.as_posix()) as pieces:
                whole = io.BytesIO(b"".join([each async for each in pieces]))
        skipped = self._persist_workspace_skip_relpaths()
        return _without(whole, skipped) if skipped else whole

    def _cwd(self) -> str | None:
        return self.state.manifest.root if self._root_is_there else None

    async def _environment(self) -> dict[str, str]:
        return await self.state.manifest.environment.resolve()


def _without(archive: io.BytesIO, skipped: set[Path]) -> io.BytesIO:
    """Return a tar archive without what is at or below these paths."""
    kept = io.BytesIO()
    with tarfile.open(fileobj=archive) as old, tarfile.open(fileobj=kept, mode="w") as new:
        for member in old:
            if not should_skip_tar_member(member.name, skip_rel_paths=skipped, root_name=None):
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    kept.seek(0)
    return kept


@contextmanager
def _commanding(argv: list[str]) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        code = not_started(error)
        context = {"exit_code": code} if code else {}
        raise ExecTransportError(
            command=argv, message=str(error), context=context, cause=error,
            retryable=False if code or is_gone(error) else None,
        ) from error  # fmt: skip


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.reason == "ENOENT":
            raise WorkspaceReadNotFoundError(path=path, cause=error) from error
        raise WorkspaceArchiveReadError(path=path, cause=error) from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        raise WorkspaceArchiveWriteError(path=path, cause=error) from error
