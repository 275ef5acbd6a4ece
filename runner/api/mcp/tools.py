"""The table of tools."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from runner.api.edge.groups import Group
from runner.api.mcp import arguments as asked
from runner.api.mcp import code, commands, files, lives
from runner.api.mcp.tool import Tool
from runner.auth.permissions import Permission, may, stopped
from runner.words.principal import Principal

INSTRUCTIONS = """\
Runs code that nobody has read, in hardened containers. For one calculation, call run_code with no \
sandbox. To work in steps, call create_sandbox, use its id with the other tools, and kill_sandbox \
at the end. A sandbox reaches no network unless it was created with egress. Long output is cut in \
its middle, and says so."""

_RUN_CODE = """\
Run code and return what it prints, its last value, and its pictures. With sandbox_id, variables, \
imports and files stay from one call to the next, as in a notebook. Without it, the code runs once \
in a fresh container; files that it leaves can be read with read_artifact."""

_TABLE: tuple[Tool[Any], ...] = (
    Tool(
        name="run_code",
        title="Run code",
        description=_RUN_CODE,
        arguments=asked.RunCodeArguments,
        permission=Permission.SANDBOX_USE,
        run=code.run_code,
        destroys=True,
    ),
    Tool(
        name="create_sandbox",
        title="Create a sandbox",
        description="Create a sandbox that lives until its time is up or it is killed. Return its "
        "sandbox_id, which the other tools take.",
        arguments=asked.CreateSandboxArguments,
        permission=Permission.SANDBOX_CREATE,
        run=lives.create_sandbox,
        group=Group.SUBMIT,
    ),
    Tool(
        name="list_sandboxes",
        title="List sandboxes",
        description="List the sandboxes that live, with what they may reach.",
        arguments=asked.NoArguments,
        permission=Permission.SANDBOX_READ,
        run=lives.list_sandboxes,
        group=Group.READ,
        reads=True,
    ),
    Tool(
        name="kill_sandbox",
        title="Kill a sandbox",
        description="End a sandbox with all files and processes in it.",
        arguments=asked.SandboxArguments,
        permission=Permission.SANDBOX_DELETE,
        run=lives.kill_sandbox,
        group=Group.STOP,
        destroys=True,
    ),
    Tool(
        name="run_command",
        title="Run a command",
        description="Run a line of bash in a sandbox, and return its exit code and output.",
        arguments=asked.RunCommandArguments,
        permission=Permission.SANDBOX_USE,
        run=commands.run_command,
        destroys=True,
    ),
    Tool(
        name="read_file",
        title="Read a file",
        description="Read a file in a sandbox: text, or a picture (PNG, JPEG, GIF, WebP), which "
        "you see.",
        arguments=asked.ReadFileArguments,
        permission=Permission.SANDBOX_USE,
        run=files.read_file,
        reads=True,
    ),
    Tool(
        name="write_file",
        title="Write a file",
        description="Write a file in a sandbox, in place of one that is there. Folders above it "
        "are made.",
        arguments=asked.WriteFileArguments,
        permission=Permission.SANDBOX_USE,
        run=files.write_file,
        destroys=True,
    ),
    Tool(
        name="list_files",
        title="List files",
        description="List a folder in a sandbox, with sizes.",
        arguments=asked.ListFilesArguments,
        permission=Permission.SANDBOX_USE,
        run=files.list_files,
        reads=True,
    ),
    Tool(
        name="get_execution",
        title="Show an execution",
        description="Show how code that ran once ended: its output, and the files that it left.",
        arguments=asked.ExecutionArguments,
        permission=Permission.EXECUTION_READ,
        run=code.get_execution,
        group=Group.READ,
        reads=True,
    ),
    Tool(
        name="read_artifact",
        title="Read an artifact",
        description="Read a file that code which ran once has left: text, or a picture, which you "
        "see.",
        arguments=asked.ReadArtifactArguments,
        permission=Permission.ARTIFACT_READ,
        run=files.read_artifact,
        group=Group.READ,
        reads=True,
    ),
)

TOOLS: Mapping[str, Tool[Any]] = MappingProxyType({each.name: each for each in _TABLE})
"""Every tool by its name, in the order in which models see them."""


def visible(principal: Principal) -> list[Tool[Any]]:
    """Return the tools that the principal may call now."""
    return [
        each
        for each in TOOLS.values()
        if may(principal, each.permission) and not stopped(principal, each.permission)
    ]
