"""Arguments of a model: strict types, with bounds on everything, as on `/v1`."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from runner.api.context_requests import MAX_CODE
from runner.api.fields import ImageName, Name, Strict, Text
from runner.api.sandbox_requests import MAX_CODE as MAX_COMMAND
from runner.api.sandbox_requests import SandboxPath
from runner.words.paths import MAX_BYTES
from runner.words.sandbox import WORKSPACE

RUN_S = 120.0
MAX_RUN_S = 1800.0
LIFE_S = 1800.0
MAX_LIFE_S = 86_400.0
MAX_READ = 64 * 1024
MAX_LISTED = 500
MAX_REQUEST = 4 * 2**20
"""Bytes of a request. The SDK parses it in one step, in which nobody else is served."""

SandboxRef = Annotated[
    str, StringConstraints(max_length=64), Field(description="The sandbox's id.")
]
ExecutionRef = Annotated[str, StringConstraints(max_length=64)]
RunSeconds = Annotated[float, Field(ge=1, le=MAX_RUN_S)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Path = Annotated[SandboxPath, Field(description=f"Absolute, or relative to {WORKSPACE}.")]


class NoArguments(Strict):
    """No arguments."""


class RunCodeArguments(Strict):
    """Code to run."""

    code: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_CODE)]
    language: Literal["python", "javascript", "bash"] = "python"
    sandbox_id: SandboxRef | None = Field(
        default=None,
        description="A sandbox in which variables stay from one call to the next. Without it, the "
        "code runs once in a fresh container that is then gone.",
    )
    timeout_s: RunSeconds | None = Field(
        default=None, description=f"In a sandbox, {RUN_S:g} by default."
    )
    restart: bool = Field(
        default=False,
        description="Begin with a new interpreter: variables are lost. Only in a sandbox.",
    )


class RunCommandArguments(Strict):
    """A command to run."""

    sandbox_id: SandboxRef
    command: Annotated[
        Text,
        StringConstraints(min_length=1, max_length=MAX_COMMAND),
        Field(description="A line for bash."),
    ]
    cwd: SandboxPath | None = Field(
        default=None, description=f"By default {WORKSPACE}, or its template's."
    )
    timeout_s: RunSeconds = Field(default=RUN_S, description="After it, the command is killed.")
    background: bool = Field(
        default=False,
        description="Return at once and let it run, without a time limit. Redirect its output to a "
        "file in order to read it later.",
    )


class CreateSandboxArguments(Strict):
    """A sandbox to make."""

    image: ImageName | None = Field(
        default=None,
        description="An image, or a template by its name; by default the deployment's first image.",
    )
    size: Slug | None = Field(default=None, description="nano, small, medium, large, …")
    timeout_s: Annotated[float, Field(ge=1, le=MAX_LIFE_S)] = Field(
        default=LIFE_S, description="How many seconds it lives."
    )
    egress: Annotated[
        list[Annotated[Text, StringConstraints(min_length=1, max_length=300)]],
        Field(max_length=64),
    ] = Field(
        default_factory=list,
        description="Host names that it may reach by HTTPS, such as files.example.com. None by "
        "default.",
    )
    egress_policy: Name | None = Field(
        default=None, description="A named egress policy of the tenant, in addition."
    )


class SandboxArguments(Strict):
    """One sandbox."""

    sandbox_id: SandboxRef


class ReadFileArguments(Strict):
    """A file to read."""

    sandbox_id: SandboxRef
    path: Path
    offset: int = Field(default=0, ge=0, le=2**53, description="From which byte on.")
    length: int = Field(default=MAX_READ // 2, ge=1, le=MAX_READ, description="How many bytes.")


class WriteFileArguments(Strict):
    """A file to write."""

    sandbox_id: SandboxRef
    path: Path
    content: Annotated[Text, StringConstraints(max_length=MAX_REQUEST)]
    encoding: Literal["utf-8", "base64"] = "utf-8"


class ListFilesArguments(Strict):
    """A folder to list."""

    sandbox_id: SandboxRef
    path: Path = WORKSPACE
    depth: int = Field(default=1, ge=1, le=16, description="How many levels of folders.")
    limit: int = Field(default=200, ge=1, le=MAX_LISTED)


class ExecutionArguments(Strict):
    """One execution."""

    execution_id: ExecutionRef


class ReadArtifactArguments(Strict):
    """A file that code left."""

    execution_id: ExecutionRef
    path: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_BYTES)]
