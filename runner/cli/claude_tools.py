"""The tools of Claude's managed agents (`agent_toolset_20260401`), in a sandbox.

They take what Anthropic's own implementation takes, and answer as it does. The sandbox is made by
the first call. Paths are relative to its workspace or absolute: the sandbox itself is the boundary.
"""

import asyncio
import base64
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import Any

from anthropic.lib.environments import BetaAnyRunnableTool
from anthropic.lib.tools import (
    BetaFunctionToolResultType,
    ToolError,
    beta_async_tool,
)
from anthropic.types import beta as types
from pydantic import BaseModel

from agent_runner import ApiError, AsyncClient, AsyncContext, AsyncSandbox, Ran
from runner.words.sandbox import WORKSPACE
from runner.words.text import counted

AsyncTool = Callable[..., Coroutine[Any, Any, BetaFunctionToolResultType]]

OUTPUT_KB = 100
TEXT_BYTES = 256 * 1024
IMAGE_BYTES = 5 * 1024 * 1024 // 4 * 3
"""The API takes 5 MiB of base64."""
PDF_BYTES = 20 * 1024 * 1024
COMMAND_S = 120.0
"""Less than the 150 seconds after which Anthropic's worker ends a call."""
SEARCH_S = 30.0
SKILLS = f"{WORKSPACE}/skills"
IMAGES: Mapping[str, str] = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
GLOB = """
import itertools, pathlib, sys
pattern, root = sys.argv[1:]
found = list(itertools.islice(pathlib.Path(root).glob(pattern), 50_000))
found.sort(key=lambda path: path.lstat().st_mtime, reverse=True)
print(*found[:200], sep="\\n")
if len(found) > 200:
    print(f"[the newest 200 of {len(found)} files]")
"""


class SandboxTools:
    """The tools of one session, and the sandbox that they run in."""

    def __init__(self, api: AsyncClient, options: Mapping[str, Any], skills: Path) -> None:
        self._api = api
        self._options = options
        self._skills = skills
        self._made: AsyncSandbox | None = None
        self._shell: AsyncContext | None = None
        self._making = asyncio.Lock()
        self._renewed = 0.0

    def all_of_them(self) -> list[BetaAnyRunnableTool]:
        """Return the tools. What calls them closes them, which kills the sandbox."""
        given: list[tuple[AsyncTool, type[BaseModel]]] = [
            (self.bash, types.BetaManagedAgentsAgentToolset20260401BashInput),
            (self.read, types.BetaManagedAgentsAgentToolset20260401ReadInput),
            (self.write, types.BetaManagedAgentsAgentToolset20260401WriteInput),
            (self.edit, types.BetaManagedAgentsAgentToolset20260401EditInput),
            (self.glob, types.BetaManagedAgentsAgentToolset20260401GlobInput),
            (self.grep, types.BetaManagedAgentsAgentToolset20260401GrepInput),
        ]
        tools = [beta_async_tool(method, input_schema=schema) for method, schema in given]
        tools[0].close = self.close
        return list(tools)

    async def close(self) -> None:
        """Kill the sandbox, if there is one."""
        async with self._making:
            if self._made is not None:
                await self._made.kill()

    async def bash(
        self,
        command: str | None = None,
        restart: bool | None = None,  # noqa: FBT001 - as the agent names it
        timeout_ms: int | None = None,
    ) -> str:
        """Run a command in a shell that keeps its variables and its folder."""
        sandbox = await self._sandbox()
        try:
            if restart and self._shell is not None:
                await self._shell.restart()
            if self._shell is None or self._shell.ended:
                self._shell = await sandbox.contexts.create("bash", cwd=WORKSPACE)
            if restart:
                return "bash session restarted"
            if not command:
                raise ToolError("bash: command is required")
            within_s = timeout_ms / 1000 if timeout_ms else COMMAND_S
            ran = await self._shell.run(command, timeout_s=within_s, output_kb=OUTPUT_KB)
        except ApiError as error:
            raise _failure("bash", error) from error
        said = [ran.stdout, ran.stderr]
        if ran.omitted_bytes:
            said.append(f"[output truncated: {counted(ran.omitted_bytes, 'byte')} left out]")
        if ran.timed_out:
            said.append(f"bash: the command took more than {within_s:g} s and was ended")
        text = "\n".join(line for each in said if (line := each.rstrip("\n")))
        if not ran.ok:
            raise ToolError(text or f"bash: exit code {ran.exit_code}")
        return text

    async def read(
        self, file_path: str, view_range: list[int] | None = None
    ) -> BetaFunctionToolResultType:
        """Read a file: text, a picture, or a PDF."""
        suffix = PurePosixPath(file_path).suffix.lower()
        if suffix in IMAGES:
            raw = await self._bytes("read", file_path, IMAGE_BYTES)
            data = base64.b64encode(raw).decode()
            source: Any = {"type": "base64", "media_type": IMAGES[suffix], "data": data}
            return [{"type": "image", "source": source}]
        if suffix == ".pdf":
            raw = await self._bytes("read", file_path, PDF_BYTES)
            data = base64.b64encode(raw).decode()
            source = {"type": "base64", "media_type": "application/pdf", "data": data}
            return [{"type": "document", "source": source}]
        if view_range is None:
            return await self._text("read", file_path)
        if len(view_range) != 2:  # noqa: PLR2004 - a first and a last line
            raise ToolError("read: view_range must be [start_line, end_line]")
        first, last = max(view_range[0], 1), view_range[1]
        lines = f"{first},{last if last > 0 else '$'}p"
        return _said(await self._ran("read", ["sed", "-n", lines, "--", file_path]))

    async def write(self, file_path: str, content: str) -> str:
        """Write a file; folders above it are made."""
        sandbox = await self._sandbox()
        try:
            await sandbox.files.write(file_path, content)
        except ApiError as error:
            raise _failure(f"write: {file_path}", error) from error
        return f"wrote {counted(len(content.encode()), 'byte')} to {file_path}"

    async def edit(
        self,
        file_path: str,
        old_string: str,
        new_string: str,
        replace_all: bool | None = None,  # noqa: FBT001 - as the agent names it
    ) -> str:
        """Replace text in a file by exact match."""
        text = await self._text("edit", file_path)
        count = text.count(old_string) if old_string else 0
        if count == 0:
            raise ToolError(f"edit: old_string not found in {file_path}")
        if not replace_all and count > 1:
            raise ToolError(f"edit: old_string appears {count} times in {file_path}")
        # An agent may ask for what no memory holds: each letter replaced by a book.
        if len(text) + count * (len(new_string) - len(old_string)) > TEXT_BYTES:
            raise ToolError(f"edit: {file_path} would be above {TEXT_BYTES} bytes")
        await self.write(file_path, text.replace(old_string, new_string))
        return f"edited {file_path} ({count} replacement(s))"

    async def glob(self, pattern: str, path: str | None = None) -> str:
        """List files whose names match a pattern, newest first."""
        ran = await self._ran("glob", ["python3", "-c", GLOB, pattern, path or WORKSPACE])
        return _said(ran).strip("\n") or "no matches"

    async def grep(self, pattern: str, path: str | None = None) -> str:
        """Search files for a regular expression."""
        skipped = [f"--exclude-dir={name}" for name in (".git", "node_modules")]
        ran = await self._ran(
            "grep", ["grep", "-rnIP", *skipped, "-e", pattern, "--", path or WORKSPACE], fine=1
        )
        return _said(ran).strip("\n") or "no matches"

    async def _ran(self, name: str, command: list[str], *, fine: int = 0) -> Ran:
        """Run a program to its end. Raises ToolError if its exit code is above `fine`."""
        sandbox = await self._sandbox()
        try:
            ran = await sandbox.run(command, cwd=WORKSPACE, timeout_s=SEARCH_S, output_kb=OUTPUT_KB)
        except ApiError as error:
            raise _failure(name, error) from error
        if ran.timed_out:
            raise ToolError(f"{name}: it took more than {SEARCH_S:g} s and was ended")
        if ran.exit_code is None or ran.exit_code > fine:
            raise ToolError(f"{name}: {ran.stderr.text.strip() or 'it was killed'}")
        return ran

    async def _text(self, name: str, file_path: str) -> str:
        try:
            return (await self._bytes(name, file_path, TEXT_BYTES)).decode()
        except UnicodeDecodeError:
            raise ToolError(f"{name}: {file_path}: not text in UTF-8") from None

    async def _bytes(self, name: str, file_path: str, most: int) -> bytes:
        """Return a file's bytes, of which a program may make more at any moment."""
        sandbox = await self._sandbox()
        raw = bytearray()
        try:
            async with sandbox.files.open(file_path) as pieces:
                async for piece in pieces:
                    raw += piece
                    if len(raw) > most:
                        raise ToolError(
                            f"{name}: {file_path} is above {most} bytes; use view_range for text"
                        )
        except ApiError as error:
            raise _failure(f"{name}: {file_path}", error) from error
        return bytes(raw)

    async def _sandbox(self) -> AsyncSandbox:
        """Return the session's sandbox, which lives on for as long as it is used."""
        async with self._making:
            try:
                if self._made is None:
                    self._made = await self._api.sandboxes.create(
                        **self._options, metadata={"made-by": "claude-managed-agents"}
                    )
                    if self._skills.is_dir():
                        await self._made.files.upload_folder(self._skills, SKILLS)
                    self._renewed = monotonic()
                elif monotonic() - self._renewed > self._options["timeout_s"] / 4:
                    await self._made.update(timeout_s=self._options["timeout_s"])
                    self._renewed = monotonic()
            except ApiError as error:
                raise _failure("sandbox", error) from error
            return self._made


def _said(ran: Ran) -> str:
    cut = f"\n[output truncated at {OUTPUT_KB} KiB]" if ran.stdout.truncated else ""
    return f"{ran.stdout.text}{cut}"


def _failure(what: str, error: ApiError) -> ToolError:
    return ToolError(f"{what}: {error.detail}")
