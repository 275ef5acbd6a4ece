"""Inspect: a living sandbox for each sample of an evaluation.

    Task(dataset=…, solver=…, sandbox="agent-runner")

It finds the deployment by `RUNNER_URL` and `RUNNER_API_KEY`, and needs Inspect's default backend,
asyncio. `SandboxConfig`, or a JSON file like it, says what the sandboxes are like.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, overload

import anyio
from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
    sandboxenv,
)
from pydantic import BaseModel, ConfigDict

from agent_runner import (
    ApiError,
    AsyncClient,
    AsyncProcess,
    AsyncSandbox,
    Conflict,
    Gone,
    NotFound,
    Ran,
    Unavailable,
)
from agent_runner._async.sandbox_files import WORKSPACE
from agent_runner.integrations.refusals import kernel_errors

LIFE_S = 6 * 3600
"""Seconds after which a sandbox ends, also if the process that evaluates was killed."""
LABEL = "inspect_task"
LIVING = ("starting", "running", "pausing", "paused", "resuming")
NOT_FOUND = 127
"""A shell's code for a program that does not exist."""
MOST_KEPT_KB = 64 * 1024
MOST_LABEL = 512
USUAL = 0o644


class SandboxConfig(BaseModel, frozen=True):
    """The fields of `POST /v1/sandboxes`, such as `image`, `size`, `egress` and `timeout_s`."""

    model_config = ConfigDict(extra="allow")


@sandboxenv(name="agent-runner")
class RunnerSandboxEnvironment(SandboxEnvironment):
    """A sandbox that lives as long as its sample."""

    def __init__(self, sandbox: AsyncSandbox) -> None:
        super().__init__()
        self.sandbox = sandbox

    @classmethod
    async def sample_init(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        metadata: dict[str, str],  # noqa: ARG003 - the sample's, which say nothing of sandboxes
    ) -> dict[str, SandboxEnvironment]:
        """Make a sample's sandbox. Raises ApiError."""
        return {"default": cls(await AsyncSandbox.create(**_options(task_name, config)))}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,  # noqa: ARG003
        config: SandboxEnvironmentConfigType | None,  # noqa: ARG003
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,  # noqa: ARG003 - it takes little time: done in any case
    ) -> None:
        """End a sample's sandbox, also if the sample was cancelled."""
        with anyio.CancelScope(shield=True):
            for each in environments.values():
                async with each.as_type(cls).sandbox:
                    pass

    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:  # noqa: A002
        """End the sandbox of this id, or all that evaluations of this tenant have left."""
        async with AsyncClient() as api:
            if id is not None:
                await (await api.sandboxes.get(id)).kill()
                return
            more: str | None = ""
            while more is not None:
                page, more = await api.sandboxes.list(state=LIVING, cursor=more or None)
                for info in page:
                    if LABEL in info.metadata:
                        await (await api.sandboxes.get(info.id)).kill()

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        """Return the configuration that an evaluation's log holds."""
        return SandboxConfig(**config)

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,  # noqa: A002
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109 - the sandbox ends the command
        timeout_retry: bool = True,  # noqa: ARG002 - nothing is run twice
        concurrency: bool = True,  # noqa: ARG002 - nothing runs on this host
    ) -> ExecResult[str]:
        """Run a command. After `timeout` seconds it is killed, with its group."""
        if user is not None:
            raise SandboxUserUnsupportedError(
                f"a command cannot run as {user}: each sandbox has one user, who is not root"
            )
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        try:
            with kernel_errors(cmd[0]):
                process = await self.sandbox.start(
                    cmd,
                    cwd=cwd or WORKSPACE,
                    env=env,
                    keep_stdin_open=input is not None,
                    keep_kb=min(-(-limit // 1024), MOST_KEPT_KB),
                    timeout_s=timeout,
                )
        except FileNotFoundError as error:
            return ExecResult(False, NOT_FOUND, "", f"{error.filename}: {error.strerror}")
        except (Gone, Unavailable) as error:
            raise SandboxUnavailableError(str(error)) from error
        ran = await _finished(process, input, limit)
        if ran.timed_out:
            raise TimeoutError(f"{cmd[0]} was killed after {timeout} seconds")
        for stream in (ran.stdout, ran.stderr):
            if stream.truncated:
                text = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR
                raise OutputLimitExceededError(text, stream.raw.decode("utf-8", "replace"))
        return ExecResult(ran.ok, ran.status, ran.stdout.text, ran.stderr.text)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file, and make the folders that it is in. It keeps its mode."""
        mode = await self._mode(file)
        # To replace a file, its owner needs no permission to write to it: Inspect asks for one.
        if not mode & stat.S_IWUSR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)
        with kernel_errors(file):
            await self.sandbox.files.write(file, contents, mode=mode)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """Read a file, as UTF-8 or as bytes."""
        limit, raw = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE, bytearray()
        with kernel_errors(file):
            async with self.sandbox.files.open(file) as pieces:
                async for piece in pieces:
                    raw += piece
                    if len(raw) > limit:
                        told = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR
                        raise OutputLimitExceededError(told, None)
        return raw.decode() if text else bytes(raw)

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """Say how to open a shell in it."""
        if user is not None:
            raise NotImplementedError("each sandbox has one user")
        if (await self.sandbox.refresh()).ended:
            raise ConnectionError(f"sandbox {self.sandbox.id} has ended")
        command = f"runner sandbox shell {self.sandbox.id}"
        return SandboxConnection(type="agent-runner", command=command, container=self.sandbox.id)

    async def _mode(self, file: str) -> int:
        """Return the mode of a file; of one that does not exist yet, or is none, a usual one."""
        try:
            with kernel_errors(file):
                entry = await self.sandbox.files.stat(file)
        except OSError:
            return USUAL
        return int(entry.mode, 8) if entry.kind == "file" else USUAL


async def _finished(process: AsyncProcess, given: str | bytes | None, most: int) -> Ran:
    """Give a process its stdin, wait for its end, and return what it wrote."""
    try:
        if given is not None:
            raw = given.encode() if isinstance(given, str) else given
            # One that has closed its stdin, or has ended, wants no more input.
            with suppress(Conflict, NotFound):
                await process.write(raw, close=True)
        return await process.finish(None, None, most)
    finally:
        # If nobody waits any more, it is to end. If it has ended, its output still takes memory of
        # the sandbox. What goes wrong with either must not hide how the command ended.
        with anyio.CancelScope(shield=True), suppress(ApiError):
            await process.kill()


def _options(task_name: str, config: SandboxEnvironmentConfigType | None) -> dict[str, Any]:
    """Return the fields of the request for a sandbox."""
    match config:
        case None:
            given = SandboxConfig()
        case str():
            given = SandboxConfig.model_validate_json(Path(config).read_text())
        case SandboxConfig():
            given = config
        case _:
            raise TypeError(f"give a SandboxConfig, or the name of a JSON file, not {config!r}")
    fields = {"timeout_s": LIFE_S, **given.model_dump()}
    return {**fields, "metadata": {**fields.get("metadata", {}), LABEL: task_name[:MOST_LABEL]}}
