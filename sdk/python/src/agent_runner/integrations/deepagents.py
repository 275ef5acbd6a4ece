"""LangChain's deepagents: a living sandbox as the backend of an agent.

    with Sandbox.create(timeout_s=3600) as sandbox:
        agent = create_deep_agent(model="…", backend=RunnerSandbox(sandbox))

The framework lists, reads, edits and searches files with commands of its own, which need `python3`
and `grep` in the image.
"""

import errno

from deepagents.backends.protocol import (
    ExecuteResponse,
    FileDownloadResponse,
    FileOperationError,
    FileUploadResponse,
)
from deepagents.backends.sandbox import BaseSandbox

from agent_runner import Sandbox
from agent_runner._sync.sandbox_files import WORKSPACE
from agent_runner.integrations.refusals import kernel_errors

COMMAND_S = 30 * 60
"""How long a command may take if its caller sets no limit."""
MOST_KB = 1024
TIMED_OUT = 124
"""The exit code of timeout(1)."""
SHORT = 16_000
"""How many characters of a line fit into an argument, whatever they are (execve(2))."""
WORDS: dict[int | None, FileOperationError] = {
    errno.ENOENT: "file_not_found",
    errno.EISDIR: "is_directory",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOTDIR: "invalid_path",
    errno.ENAMETOOLONG: "invalid_path",
    errno.ELOOP: "invalid_path",
}


class RunnerSandbox(BaseSandbox):
    """The backend of an agent that works in this sandbox. Whoever made the sandbox ends it.

    If the sandbox has ended or the API stays away, every method raises ApiError.
    """

    def __init__(self, sandbox: Sandbox, *, timeout_s: int = COMMAND_S) -> None:
        self.sandbox = sandbox
        self._timeout_s = timeout_s

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self.sandbox.id

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a line of bash in `/workspace`.

        After `timeout` seconds it is killed, with its group; 0 means that it may take as long as
        the sandbox lives. The first MiB of its output is kept.
        """
        limit = self._timeout_s if timeout is None else timeout
        if limit < 0:
            raise ValueError(f"timeout must not be negative, but is {limit}")
        argv, stdin = _line(command)
        ran = self.sandbox.run(
            argv, stdin=stdin, cwd=WORKSPACE, timeout_s=limit or None, output_kb=MOST_KB
        )
        output, status = ran.stdout.text, ran.status
        if ran.timed_out:
            output, status = f"{output}\nThe command was killed after {limit} seconds.", TIMED_OUT
        return ExecuteResponse(output, status, ran.stdout.truncated)

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files, and make the folders that they are in."""
        return [FileUploadResponse(path, self._write(path, content)) for path, content in files]

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files."""
        return [self._read(path) for path in paths]

    def _write(self, path: str, content: bytes) -> str | None:
        if not _valid(path):
            return "invalid_path"
        try:
            with kernel_errors(path):
                self.sandbox.files.write(path, content)
        except OSError as error:
            return _word(error)
        return None

    def _read(self, path: str) -> FileDownloadResponse:
        if not _valid(path):
            return FileDownloadResponse(path, error="invalid_path")
        try:
            with kernel_errors(path):
                return FileDownloadResponse(path, self.sandbox.files.read(path))
        except OSError as error:
            return FileDownloadResponse(path, error=_word(error))


def _line(command: str) -> tuple[tuple[str, ...], str | None]:
    """Return what runs a line of bash, whose errors stand between its output, and its stdin.

    A short line is an argument, which saves a request and a process. A long one comes on stdin.
    """
    if len(command) <= SHORT:
        return ("bash", "-c", 'exec 2>&1; eval "$1"', "bash", command), None
    return ("bash", "-c", 'exec 2>&1; eval "$(cat)"'), command


def _valid(path: str) -> bool:
    return path.startswith("/") and "\0" not in path


def _word(error: OSError) -> str:
    return WORDS.get(error.errno) or str(error)
