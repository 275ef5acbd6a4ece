"""An environment of Google's Agent Development Kit: the tools of an agent, in a sandbox.

EnvironmentToolset(environment=RunnerEnvironment(size="small", timeout_s=3600))
"""

from pathlib import Path
from typing import Any

from google.adk.environment import BaseEnvironment, ExecutionResult

from agent_runner import AsyncSandbox
from agent_runner.integrations.commands import finished, text, write
from agent_runner.integrations.refusals import kernel_errors

WORKSPACE = Path("/workspace")


class RunnerEnvironment(BaseEnvironment):
    """A sandbox, made by `initialize` and killed by `close`.

    `url` and `api_key` are by default RUNNER_URL and RUNNER_API_KEY; `options` are those of
    `AsyncSandbox.create`, such as `image`, `size` and `timeout_s`.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, **options: Any) -> None:
        self._url = url
        self._api_key = api_key
        self._options = options
        self._sandbox: AsyncSandbox | None = None

    @property
    def sandbox(self) -> AsyncSandbox:
        """The sandbox. Raises RuntimeError before `initialize` and after `close`."""
        if self._sandbox is None:
            raise RuntimeError("the environment has no sandbox: call initialize() first")
        return self._sandbox

    @property
    def working_dir(self) -> Path:
        """The folder where commands start."""
        return WORKSPACE

    async def initialize(self) -> None:
        """Make the sandbox, unless there is one."""
        if self._sandbox is None:
            self._sandbox = await AsyncSandbox.create(self._url, self._api_key, **self._options)
        self.is_initialized = True

    async def close(self) -> None:
        """Kill the sandbox, if there is one."""
        sandbox, self._sandbox = self._sandbox, None
        self.is_initialized = False
        if sandbox is not None:
            try:
                await sandbox.kill()
            finally:
                await sandbox.aclose()

    async def execute(
        self,
        command: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the base's parameter
    ) -> ExecutionResult:
        """Run a line for a shell, and kill it if this is cancelled.

        At most 1 MiB of each output is kept; a last line says how much is missing.
        """
        ran = await finished(self.sandbox, command, timeout_s=timeout)
        return ExecutionResult(
            exit_code=ran.status,
            stdout=text(ran.stdout),
            stderr=text(ran.stderr),
            timed_out=ran.timed_out,
        )

    async def read_file(self, path: Path) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError, and other kinds of OSError."""
        name = Path(path).as_posix()
        with kernel_errors(name):
            return await self.sandbox.files.read(name)

    async def write_file(self, path: Path, content: str | bytes) -> None:
        """Write a file, and make the folders above it. It keeps its mode. Raises OSError."""
        name = Path(path).as_posix()
        with kernel_errors(name):
            await write(self.sandbox, name, content)
