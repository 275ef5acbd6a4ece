"""Requests of clients: strict types, limits on everything, unknown fields refused."""

import json
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from runner.api.contents import Content, FileContent, TextOrContent, TextOrFileContent
from runner.api.fields import (
    EnvName,
    FilePath,
    FilePrefix,
    ImageName,
    Label,
    Name,
    SecretName,
    Strict,
    Text,
)
from runner.api.rules import EgressEntry, entries
from runner.executions.order import CODE_FILES, ByKey, Order
from runner.quotas.sizes import DEFAULT_SIZE
from runner.words.resources import OutputKeep
from runner.words.sandbox import Isolation

MAX_CODE = 1024 * 1024
MAX_ARGV = 256
MAX_START_BYTES = 192 * 1024
"""Less than one control frame to a sandbox's supervisor may hold."""
MAX_FILES = 256
MAX_ARTIFACT_NAMES = 64
MAX_ARTIFACT_BYTES = 8192
"""Bytes of all patterns together: each name in the workspace is compared with every one."""
MAX_ENV = 64
MAX_SECRET_ENV = 16


def _shell_line(given: object) -> object:
    match given:
        case str() if given:
            return ["bash", "-c", "--", given]  # A line may begin with a dash.
        case list() if given:
            return given
    raise ValueError(
        "must be a list, of a program and its arguments, or a string, a line for `bash -c`; "
        "neither may be empty"
    )


Argument = Annotated[Text, StringConstraints(max_length=MAX_START_BYTES)]
Command = Annotated[
    Annotated[list[Argument], Field(min_length=1, max_length=MAX_ARGV)],
    BeforeValidator(
        _shell_line,
        json_schema_input_type=Annotated[str, Field(min_length=1, max_length=MAX_START_BYTES)]
        | Annotated[list[Argument], Field(min_length=1, max_length=MAX_ARGV)],
    ),
]


def _few_bytes(patterns: list[str]) -> list[str]:
    size = sum(len(each.encode()) for each in patterns)
    if size > MAX_ARTIFACT_BYTES:
        raise ValueError(f"are {size} bytes together and must not exceed {MAX_ARTIFACT_BYTES}")
    return patterns


class ResourceOverrides(Strict):
    """Resources that differ from the size's, up to the tenant's maximum."""

    cpu: float | None = Field(default=None, ge=0.05, le=64, description="Processors.")
    memory_mb: int | None = Field(default=None, ge=32, le=262_144, description="MiB, without swap.")
    pids: int | None = Field(default=None, ge=1, le=32_768, description="Processes and threads.")
    disk_mb: int | None = Field(default=None, ge=1, le=262_144, description="MiB of workspace.")


class LimitOverrides(ResourceOverrides):
    """Limits that differ from the size's, up to the tenant's maximum."""

    timeout_s: float | None = Field(
        default=None, ge=0.1, le=86_400, description="Seconds of wall-clock time."
    )
    output_kb: int | None = Field(
        default=None, ge=1, le=65_536, description="KiB kept of stdout and of stderr."
    )


class Submission(Strict):
    """A program to run: `code` in a `language`, or a `command`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "language": "python",
                    "code": "print(6 * 7)",
                    "wait_s": 10,
                },
                {
                    "command": ["python3", "-c", "print(open('in.csv').read())"],
                    "files": {"in.csv": "a,b\n1,2\n"},
                    "size": "small",
                    "limits": {"timeout_s": 5},
                    "metadata": {"agent": "analyst-7"},
                },
            ]
        }
    )

    code: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_CODE)] | None = Field(
        default=None,
        description="Source text, placed as `main.py`, `main.sh`, `main.js` or `main.ts` and run.",
    )
    language: Literal["python", "bash", "javascript", "typescript"] | None = Field(
        default=None,
        description="What `code` is written in. Every image runs Python and Bash; those of this "
        "product also run JavaScript and TypeScript, whose types are not checked. Of a template, "
        "nobody checks that it has the language.",
    )
    command: Command | None = Field(
        default=None,
        description="A list is a program and its arguments, started without a shell. A string is "
        "a line for `bash -c`.",
        examples=[["python3", "-V"], "sort in.csv | uniq -c"],
    )
    stdin: TextOrContent | None = Field(
        default=None, description="Standard input: text, or an object with `text` or `base64`."
    )
    files: dict[FilePath, TextOrFileContent] = Field(
        default_factory=dict,
        max_length=MAX_FILES,
        description="Files placed in the workspace before the start, by relative path. Each is "
        "text, or an object with `text`, `base64` or `key`.",
    )
    artifacts: Annotated[list[FilePath], AfterValidator(_few_bytes)] = Field(
        default_factory=list,
        max_length=MAX_ARTIFACT_NAMES,
        description="Which files to keep: paths below the workspace, of at most 8192 bytes "
        "together. `*` and `?` stand for parts of a name, `**` for any folders. "
        "`artifacts_refused` names the patterns that no file matches. By default, every file "
        "except those that tools keep for themselves, such as installed packages and `.git`.",
        examples=[["result.csv", "out/**"]],
    )
    artifacts_to: FilePrefix | None = Field(
        default=None,
        description="Also store the artifacts as files of the tenant, with names that begin with "
        "this. `{execution_id}` stands for the execution's id.",
        examples=["results/{execution_id}/"],
    )
    env: dict[EnvName, Annotated[Text, StringConstraints(max_length=8192)]] = Field(
        default_factory=dict, max_length=MAX_ENV, description="Environment variables."
    )
    secret_env: dict[EnvName, SecretName] = Field(
        default_factory=dict,
        max_length=MAX_SECRET_ENV,
        description="Environment variables, each with the name of the secret that is its value. "
        "The program can read these values; where possible, let the egress proxy set them instead "
        "(`inject` in `egress`). They are masked in output and artifacts.",
        examples=[{"SERVICE_TOKEN": "example-token"}],
    )
    size: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = Field(
        default=DEFAULT_SIZE, description="A size of limits: nano, small, medium, large, …"
    )
    limits: LimitOverrides = Field(
        default=LimitOverrides(), description="Limits that override the size's."
    )
    output_keep: OutputKeep = Field(
        default="head",
        description="Which part of stdout and of stderr to keep if it is longer than `output_kb`. "
        "`head`: the beginning. `head_and_tail`: the first half and the last half, of which the "
        "last is at most 1 MiB; the last half is sent when the program has ended. `omitted_bytes` "
        "and `omitted_at` in the result say how much is missing, and where.",
    )
    image: ImageName | None = Field(
        default=None,
        description="The sandbox image, or a template by `name`, `name:tag` or `name@id`; "
        "by default the deployment's first image.",
    )
    isolation: Annotated[Isolation, Field(strict=False)] | None = Field(
        default=None,
        description="`container`: a hardened container. `gvisor`: its system calls are served by "
        "gVisor instead of the host's kernel. By default, what the tenant or the "
        "deployment has set.",
    )
    interpreter: Literal["loaded", "fresh"] = Field(
        default="loaded",
        description="For `python`: `loaded` runs `code` within milliseconds, in a fork of an "
        "interpreter that has imported what the image lists. `fresh` starts a new interpreter.",
    )
    reuse: Literal["never", "tenant"] = Field(
        default="never",
        description="`tenant`: may run in a sandbox that an earlier execution of the same tenant "
        "used, emptied and checked in between. Faster, but isolation between your own executions "
        "is weaker. A sandbox is never shared between tenants. The tenant's terms must permit it.",
    )
    egress: list[EgressEntry] = Field(
        default_factory=list,
        max_length=64,
        description="What the program may reach through the egress proxy, which its environment "
        "names. Each entry is a rule, or `host` or `host:port` for HTTPS. An empty list permits "
        "nothing.",
        examples=[["files.example.com", {"host": "*.example.org", "methods": ["GET"]}]],
    )
    egress_policy: Name | None = Field(
        default=None, description="A named egress policy of the tenant; its rules are added."
    )
    project: Name | None = Field(
        default=None, description="The project of this execution.", examples=["reports"]
    )
    metadata: dict[Label, Annotated[Text, StringConstraints(max_length=512)]] = Field(
        default_factory=dict, max_length=32, description="Your own labels, returned as they are."
    )
    on_worker_loss: Literal["fail", "retry"] = Field(
        default="fail",
        description="Whether the program may run again if its worker dies while it runs.",
    )
    wait_s: float = Field(
        default=0, ge=0, le=60, description="Wait this long for the result before answering 202."
    )

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.code is None) == (self.command is None):
            raise ValueError("give exactly one of code and command")
        if (self.code is None) != (self.language is None):
            raise ValueError("give language with code, and only with code")
        if len(json.dumps([self.command, self.env]).encode()) > MAX_START_BYTES:
            raise ValueError(f"command and env together exceed {MAX_START_BYTES} bytes as JSON")
        if self.command and not self.command[0]:
            raise ValueError("command is empty")
        if both := self.env.keys() & self.secret_env.keys():
            raise ValueError(f"{min(both)} is in both env and secret_env")
        names = set(self.files)
        if self.language and CODE_FILES[self.language][0] in names:
            raise ValueError(
                f"files must not hold {CODE_FILES[self.language][0]}: code is placed there"
            )
        for name in names:
            parts = name.split("/")
            if any("/".join(parts[:n]) in names for n in range(1, len(parts))):
                raise ValueError("a path is both a file and a folder")
        return self

    def order(self) -> Order:
        """Return the order that this body describes."""
        return Order(
            code=self.code,
            language=self.language,
            command=tuple(self.command or ()),
            stdin=self._stdin(),
            files={path: _content(each) for path, each in self.files.items()},
            artifacts=tuple(self.artifacts),
            artifacts_to=self.artifacts_to,
            env=self.env,
            secret_env=self.secret_env,
            # A template may have resources of its own, unless a size is asked for.
            size=self.size if "size" in self.model_fields_set else None,
            limits=self.limits.model_dump(exclude_none=True),
            output_keep=self.output_keep,
            image=self.image,
            isolation=self.isolation,
            loaded=self.interpreter == "loaded",
            reuse=self.reuse == "tenant",
            egress=entries(self.egress),
            egress_policy=self.egress_policy,
            project=self.project,
            metadata=self.metadata,
            on_worker_loss=self.on_worker_loss,
        )

    def _stdin(self) -> bytes:
        match self.stdin:
            case None:
                return b""
            case str(text):
                return text.encode()
            case Content() as content:
                return content.decoded()


def _content(given: FileContent) -> bytes | ByKey:
    return given.decoded() if given.key is None else ByKey(given.key)
