"""What a client may ask for: strict types, bounds on everything, unknown fields refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from runner.api.contents import Content, FileContent, TextOrContent
from runner.api.fields import (
    EnvName,
    FilePrefix,
    Label,
    Name,
    RelativePath,
    SecretName,
    Strict,
    Text,
)
from runner.api.rules import EgressEntry, egress_rules
from runner.egress.policy import (
    Policy,
    Rule,
    rule_to_json,
)
from runner.quotas.sizes import DEFAULT_SIZE, resolve_limits
from runner.words.errors import Invalid
from runner.words.execution import ExecutionRequest, InputFile, Program, RunSpec, StoredObject
from runner.words.resources import Limits
from runner.words.sandbox import Isolation, SandboxSpec

MAX_CODE = 1024 * 1024
MAX_ARGV = 256
MAX_START_BYTES = 192 * 1024
"""Below what one control frame to a sandbox's supervisor may hold."""
MAX_FILES = 256
MAX_ENV = 64
MAX_SECRET_ENV = 16

CODE_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "python": ("main.py", ("python3", "main.py")),
    "bash": ("main.sh", ("bash", "main.sh")),
}


@dataclass(frozen=True, slots=True)
class Offer:
    """What this deployment has, and what this tenant may have of it."""

    sizes: Mapping[str, Limits]
    images: tuple[str, ...]
    isolations: tuple[Isolation, ...]
    max_limits: Limits
    required_isolation: Isolation | None
    egress_ceilings: tuple[Policy, ...]
    """The deployment's, and the tenant's own if it has one: a rule must be within each."""
    egress_policy: tuple[Rule, ...] | None = None
    """The rules of the policy that the request names; None if the tenant has none of that name."""
    reuse: bool = False
    """Whether the tenant may have sandboxes that serve it again."""
    stored: Mapping[str, StoredObject] = field(default_factory=dict)
    """Of the stored files that the request names, those that the tenant has."""


class LimitOverrides(Strict):
    """Limits that differ from the size's, up to the tenant's maximum."""

    cpu: float | None = Field(default=None, ge=0.05, le=64, description="Processors.")
    memory_mb: int | None = Field(default=None, ge=32, le=262_144, description="MiB, no swap.")
    pids: int | None = Field(default=None, ge=1, le=32_768, description="Processes and threads.")
    disk_mb: int | None = Field(default=None, ge=1, le=262_144, description="MiB of workspace.")
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
                    "files": {"in.csv": {"text": "a,b\n1,2\n"}},
                    "size": "small",
                    "limits": {"timeout_s": 5},
                    "metadata": {"agent": "analyst-7"},
                },
            ]
        }
    )

    code: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_CODE)] | None = Field(
        default=None, description="Source text, placed as `main.py` or `main.sh` and run."
    )
    language: Literal["python", "bash"] | None = Field(
        default=None, description="What `code` is written in."
    )
    command: list[Annotated[Text, StringConstraints(max_length=MAX_START_BYTES)]] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_ARGV,
        description="Program and arguments; no shell is involved.",
    )
    stdin: TextOrContent | None = Field(
        default=None, description="Standard input: text, or an object with `text` or `base64`."
    )
    files: dict[RelativePath, FileContent] = Field(
        default_factory=dict,
        max_length=MAX_FILES,
        description="Files placed in the workspace before the start, by relative path.",
    )
    artifacts_to: FilePrefix | None = Field(
        default=None,
        description="Make the artifacts files of the tenant, too: what their names begin with. "
        "`{execution_id}` in it becomes the execution's id.",
        examples=["results/{execution_id}/"],
    )
    env: dict[EnvName, Annotated[Text, StringConstraints(max_length=8192)]] = Field(
        default_factory=dict, max_length=MAX_ENV, description="Environment variables."
    )
    secret_env: dict[EnvName, SecretName] = Field(
        default_factory=dict,
        max_length=MAX_SECRET_ENV,
        description="Environment variables whose values are secrets of the tenant, by name. The "
        "program then holds them: where it can, let the egress proxy set them (`egress`, "
        "`inject`) instead. They are masked in output and artifacts.",
        examples=[{"SERVICE_TOKEN": "example-token"}],
    )
    size: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = Field(
        default=DEFAULT_SIZE, description="A size of limits: nano, small, medium, large, …"
    )
    limits: LimitOverrides = Field(default=LimitOverrides(), description="Overrides of the size.")
    image: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")] | None = Field(
        default=None, description="The sandbox image; the deployment's first one if left out."
    )
    isolation: Annotated[Isolation, Field(strict=False)] | None = Field(
        default=None,
        description="`container`: a hardened container. `gvisor`: its system calls are served by "
        "gVisor instead of the host's kernel. Left out: what the tenant or the deployment has set.",
    )
    interpreter: Literal["loaded", "fresh"] = Field(
        default="loaded",
        description="For `python`: `loaded` runs `code` in a fork of an interpreter that has "
        "imported what the image lists, in milliseconds; `fresh` starts a new one.",
    )
    reuse: Literal["never", "tenant"] = Field(
        default="never",
        description="`tenant`: a sandbox may serve it that has served this tenant before, emptied "
        "and checked in between, if the tenant's terms permit that. Faster, and a weaker wall "
        "between the tenant's own executions; never one between tenants.",
    )
    egress: list[EgressEntry] = Field(
        default_factory=list,
        max_length=64,
        description="What the program may reach, by the proxy that its environment names: rules, "
        "or `host` and `host:port` for HTTPS. Nothing, if empty.",
        examples=[["files.example.com", {"host": "*.example.org", "methods": ["GET"]}]],
    )
    egress_policy: Name | None = Field(
        default=None, description="A named policy of the tenant, whose rules are added."
    )
    project: Name | None = Field(
        default=None, description="The project that it belongs to.", examples=["reports"]
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
            raise ValueError("code and language go together")
        if len(json.dumps([self.command, self.env]).encode()) > MAX_START_BYTES:
            raise ValueError(f"command and env are above {MAX_START_BYTES} bytes together, as JSON")
        if self.command and not self.command[0]:
            raise ValueError("command starts with an empty name")
        if both := self.env.keys() & self.secret_env.keys():
            raise ValueError(f"{min(both)} is in env and in secret_env")
        names = set(self.files)
        if self.language and CODE_FILES[self.language][0] in names:
            raise ValueError(f"files must not hold {CODE_FILES[self.language][0]}: code goes there")
        for name in names:
            parts = name.split("/")
            if any("/".join(parts[:n]) in names for n in range(1, len(parts))):
                raise ValueError("a path is both a file and a folder")
        return self

    def resolve(self, offer: Offer) -> ExecutionRequest:
        """Return the request with numbers for names. Raises Invalid naming the field."""
        sizes, images = offer.sizes, offer.images
        if self.size not in sizes:
            raise Invalid(f"there is no size {self.size!r}; there are {_list(sizes)}", "size")
        image = self.image or images[0]
        if image not in images:
            raise Invalid(f"there is no image {image!r}; there are {_list(images)}", "image")
        overrides = self.limits.model_dump(exclude_none=True)
        limits = resolve_limits(sizes[self.size], overrides, offer.max_limits)
        files = [
            InputFile(path, _bytes(path, content, offer)) for path, content in self.files.items()
        ]
        argv = tuple(self.command or ())
        env: dict[str, str] = dict(self.env)
        if self.code is not None and self.language is not None:
            name, argv = CODE_FILES[self.language]
            files.append(InputFile(name, self.code.encode()))
        if self.language == "python":
            # Output reaches the event stream when it is written, not when a buffer is full.
            env.setdefault("PYTHONUNBUFFERED", "1")
        if sum(file.size for file in files) > limits.disk_mb * 2**20:
            raise Invalid(f"the files do not fit into disk_mb {limits.disk_mb}", "files")
        if self.egress_policy is not None and offer.egress_policy is None:
            raise Invalid(f"there is no egress policy {self.egress_policy!r}", "egress_policy")
        own = egress_rules(self.egress, offer.egress_ceilings, field="egress")
        rules = dict.fromkeys([*own, *(offer.egress_policy or ())])
        program = Program(
            argv=argv,
            env=env,
            stdin=self._stdin(),
            interpret=self.language == "python" and self.interpreter == "loaded",
        )
        return ExecutionRequest(
            SandboxSpec(image, limits.resources, self._isolation(offer)),
            RunSpec(program, limits.bounds, tuple(files), self.secret_env),
            size=self.size,
            egress=tuple(rule_to_json(rule) for rule in rules),
            egress_policy=self.egress_policy,
            metadata=self.metadata,
            on_worker_loss=self.on_worker_loss,
            reuse=self._reuse(offer),
            language=self.language,
            project=self.project,
            artifacts_to=self.artifacts_to,
        )

    @property
    def keys(self) -> frozenset[str]:
        """The names of the stored files that it takes."""
        return frozenset(each.key for each in self.files.values() if each.key is not None)

    def _isolation(self, offer: Offer) -> Isolation:
        required = offer.required_isolation
        wanted = self.isolation or required or offer.isolations[0]
        if required and wanted is not required:
            raise Invalid(f"this tenant's executions must use {required.value}", "isolation")
        if wanted not in offer.isolations:
            raise Invalid(
                f"this deployment does not offer {wanted.value}; "
                f"it offers {', '.join(offer.isolations)}",
                "isolation",
            )
        return wanted

    def _reuse(self, offer: Offer) -> bool:
        if self.reuse == "tenant" and not offer.reuse:
            raise Invalid("this tenant's terms do not permit it; the operator sets them", "reuse")
        return self.reuse == "tenant"

    def _stdin(self) -> bytes:
        match self.stdin:
            case None:
                return b""
            case str(text):
                return text.encode()
            case Content() as content:
                return content.decoded()


def _bytes(path: str, content: FileContent, offer: Offer) -> bytes | StoredObject:
    if content.key is None:
        return content.decoded()
    if content.key not in offer.stored:
        raise Invalid(f"there is no file {content.key!r}", f"files.{path}.key")
    return offer.stored[content.key]


def _list(names: "tuple[str, ...] | Mapping[str, Limits]") -> str:
    return ", ".join(sorted(names))
