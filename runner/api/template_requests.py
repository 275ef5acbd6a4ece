"""Requests of clients to build a template."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from runner.api.contents import Content
from runner.api.fields import EnvName, ImageName, SecretName, Strict, Text
from runner.api.requests import MAX_ENV, MAX_SECRET_ENV, ResourceOverrides
from runner.api.rules import EgressEntry, entries
from runner.api.sandbox_requests import SandboxPath
from runner.templates.building import BuildTerms
from runner.templates.builds import TemplateOrder
from runner.words.templates import (
    DEFAULT_TAG,
    NAME,
    TAG,
    CopyStep,
    EnvStep,
    RunStep,
    Startup,
    Step,
    UserStep,
    WorkdirStep,
)

MAX_STEPS = 200
MAX_TAGS = 16
MAX_COMMAND = 64 * 1024
MAX_BUILD_S = 3600
DEFAULT_BUILD_S = 900.0
MAX_READY_S = 600
DEFAULT_READY_S = 60
DEFAULT_BUILD_SIZE = "medium"

TemplateName = Annotated[str, StringConstraints(pattern=rf"^{NAME}$")]
TemplateTag = Annotated[str, StringConstraints(pattern=rf"^{TAG}$")]
Command = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_COMMAND)]
Value = Annotated[Text, StringConstraints(max_length=8192)]


class CopiedFile(Content):
    """A file to write: its path, and exactly one of `text` and `base64`."""

    to: SandboxPath = Field(
        description="Its path, which begins at the working directory unless it is absolute."
    )
    executable: bool = False

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.text is None) == (self.base64 is None):
            raise ValueError("give exactly one of text and base64")
        self.decoded()
        return self


class TemplateStep(Strict):
    """A step of a build: exactly one of its fields."""

    run: Command | None = Field(
        default=None, description="A command for `/bin/sh`, by the user of the step `user`."
    )
    copy_: CopiedFile | None = Field(default=None, alias="copy", description="A file to write.")
    env: dict[EnvName, Value] | None = Field(
        default=None,
        max_length=MAX_ENV,
        description="Variables of all further steps, and of every process in its sandboxes.",
    )
    arg: dict[EnvName, Value] | None = Field(
        default=None, max_length=MAX_ENV, description="Variables of all further steps only."
    )
    workdir: SandboxPath | None = Field(
        default=None,
        description="The folder in which further steps run, made if it is missing. Processes "
        "of its sandboxes start in that of the last such step.",
    )
    user: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] | None = Field(
        default=None, description="The user that runs further commands; at first `root`."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of run, copy, env, arg, workdir and user")
        return self

    def step(self) -> Step:
        """Return it as a plain value."""
        if self.run is not None:
            return RunStep(self.run)
        if (file := self.copy_) is not None:
            return CopyStep(file.to, file.decoded(), 0o755 if file.executable else 0o644)
        if self.env is not None:
            return EnvStep(self.env)
        if self.arg is not None:
            return EnvStep(self.arg, kept=False)
        return WorkdirStep(self.workdir) if self.workdir is not None else UserStep(self.user or "")


def startup_of(start: str | None, ready: str | None, within_s: int) -> Startup | None:
    """Return what begins in each sandbox of a template; None if nothing is given."""
    return Startup(start, ready, within_s) if start or ready else None


class NewTemplate(Strict):
    """A template to build."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "with-greeting",
                    "base": "python",
                    "steps": [
                        {"run": "echo hello > /usr/local/share/greeting"},
                        {"env": {"GREETING": "/usr/local/share/greeting"}},
                    ],
                }
            ]
        }
    )

    name: TemplateName = Field(
        description="What sandboxes call it as their `image`. If there are several of this name "
        "and tag, the last one that was built has it."
    )
    tag: TemplateTag = Field(
        default=DEFAULT_TAG, description="Sandboxes name one that is not `default` as `name:tag`."
    )
    base: ImageName | None = Field(
        default=None,
        description="What it is built on: an image, or a template by `name`, `name:tag` "
        "or `name@id`; by default the deployment's first image.",
    )
    steps: list[TemplateStep] = Field(
        default_factory=list, max_length=MAX_STEPS, description="What is done, in order."
    )
    anew: bool = Field(
        default=False,
        description="Whether all steps are done. Otherwise the build begins with the template of "
        "yours that was made by most of the same first steps.",
    )
    size: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = Field(
        default=DEFAULT_BUILD_SIZE,
        description="A size of resources for the build. What it writes counts as memory, too.",
    )
    limits: ResourceOverrides = Field(
        default=ResourceOverrides(), description="Resources that override the size's."
    )
    sandbox_limits: ResourceOverrides = Field(
        default=ResourceOverrides(),
        description="Resources of its sandboxes and executions that differ from those of its base, "
        "or from the default size's. Whoever asks for a size gets that one.",
    )
    egress: list[EgressEntry] = Field(
        default_factory=list,
        max_length=64,
        description="What the build may reach through the egress proxy. An empty list permits "
        "nothing.",
        examples=[["packages.example.com"]],
    )
    egress_policy: str | None = Field(
        default=None, max_length=64, description="A named egress policy; its rules are added."
    )
    secret_env: dict[EnvName, SecretName] = Field(
        default_factory=dict,
        max_length=MAX_SECRET_ENV,
        description="Variables of the steps, each with the name of the secret that is its value. "
        "The values are masked in the log; a step that writes one to a file leaves it there.",
    )
    start: Command | None = Field(
        default=None,
        description="A command for `/bin/sh` that begins in each of its sandboxes, as the process "
        "with the tag `start`. If both are left out, `start` and `ready` are those of the base.",
    )
    ready: Command | None = Field(
        default=None,
        description="A command for `/bin/sh` that is repeated in a new sandbox until it exits with "
        "0: only then is the sandbox made. If it does not, or `start` fails first, no sandbox is.",
    )
    ready_s: Annotated[int, Field(ge=1, le=MAX_READY_S)] = Field(
        default=DEFAULT_READY_S, description="How many seconds `ready` has for that."
    )
    timeout_s: Annotated[float, Field(ge=1, le=MAX_BUILD_S)] = Field(
        default=DEFAULT_BUILD_S, description="How many seconds the build may take."
    )

    def order(self) -> TemplateOrder:
        """Return the order for this template."""
        return TemplateOrder(
            name=self.name,
            tag=self.tag,
            base=self.base,
            steps=tuple(each.step() for each in self.steps),
            startup=startup_of(self.start, self.ready, self.ready_s),
            limits=self.sandbox_limits.model_dump(exclude_none=True),
            anew=self.anew,
            terms=BuildTerms(
                size=self.size,
                limits=self.limits.model_dump(exclude_none=True),
                egress=entries(self.egress),
                egress_policy=self.egress_policy,
                secret_env=self.secret_env,
                within_s=self.timeout_s,
            ),
        )
