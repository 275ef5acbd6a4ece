"""Requests of clients for a new sandbox."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import (
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from runner.api.contents import TextOrFileContent
from runner.api.fields import EnvName, ImageName, Name, SecretName, Strict, Text
from runner.api.requests import (
    MAX_ENV,
    MAX_FILES,
    MAX_SECRET_ENV,
    ResourceOverrides,
)
from runner.api.rules import EgressEntry, entries
from runner.api.sandbox_requests import Metadata, SandboxPath, Seconds
from runner.quotas.sizes import DEFAULT_SIZE
from runner.sandboxes.copies import Beginning
from runner.sandboxes.order import DEFAULT_TIMEOUT_S, LivingOrder
from runner.words.lives import OnShortage, OnTimeout
from runner.words.sandbox import Isolation


class NewSandbox(Strict):
    """A sandbox to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"size": "nano", "timeout_s": 600, "metadata": {"agent": "analyst-7"}},
                {"image": "python", "egress": ["files.example.com"], "on_timeout": "kill"},
            ]
        }
    )

    image: ImageName | None = Field(
        default=None,
        description="The sandbox image, or a template by `name`, `name:tag` or `name@id`; "
        "by default the deployment's first image.",
    )
    size: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = Field(
        default=DEFAULT_SIZE, description="A size of resources: nano, small, medium, large, …"
    )
    limits: ResourceOverrides = Field(
        default=ResourceOverrides(), description="Resources that override the size's."
    )
    isolation: Annotated[Isolation, Field(strict=False)] | None = Field(
        default=None,
        description="`container` or `gvisor`. By default, what the tenant or the deployment has "
        "set.",
    )
    egress: list[EgressEntry] = Field(
        default_factory=list,
        max_length=64,
        description="What its processes may reach through the egress proxy, which their "
        "environment names. An empty list permits nothing.",
        examples=[["files.example.com", {"host": "*.example.org", "methods": ["GET"]}]],
    )
    egress_policy: Name | None = Field(
        default=None, description="A named egress policy of the tenant; its rules are added."
    )
    env: dict[EnvName, Annotated[Text, StringConstraints(max_length=8192)]] = Field(
        default_factory=dict,
        max_length=MAX_ENV,
        description="Environment variables of every process.",
    )
    secret_env: dict[EnvName, SecretName] = Field(
        default_factory=dict,
        max_length=MAX_SECRET_ENV,
        description="Environment variables, each with the name of the secret that is its value. "
        "The values are masked in what processes write.",
        examples=[{"SERVICE_TOKEN": "example-token"}],
    )
    files: dict[SandboxPath, TextOrFileContent] = Field(
        default_factory=dict,
        max_length=MAX_FILES,
        description="Files that are there when it takes commands, by path: absolute, or relative "
        "to `/workspace`. Each is text, or an object with `text`, `base64` or `key`.",
        examples=[{"in.csv": "a,b\n1,2\n"}],
    )
    snapshot: UUID | None = Field(
        default=None,
        strict=False,
        description="A snapshot whose files it begins with. Image, size, limits and isolation are "
        "the snapshot's where you leave them out.",
        examples=["0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"],
    )
    metadata: Metadata = Field(
        default_factory=dict, description="Your own labels, returned as they are."
    )
    project: Name | None = Field(default=None, examples=["reports"])
    timeout_s: Seconds | None = Field(
        default=DEFAULT_TIMEOUT_S,
        description="How many seconds from now it lives; null for no end. Nothing but `PATCH` "
        "sets this time again.",
    )
    on_timeout: Annotated[OnTimeout, Field(strict=False)] = Field(
        default=OnTimeout.KILL,
        description="What becomes of it then: `kill`, or `pause`, which keeps its memory.",
    )
    auto_resume: bool = Field(
        default=False,
        description="Whether its use resumes it if it is paused; otherwise it is answered 409.",
    )
    on_shortage: Annotated[OnShortage, Field(strict=False)] = Field(
        default=OnShortage.KEEP,
        description="What becomes of it if its host is short of memory while it is paused: `keep`, "
        "or `snapshot`, which keeps its files as a snapshot and ends it.",
    )
    max_life_s: Seconds | None = Field(
        default=None, description="How many seconds it lives at most, whatever else is set."
    )

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if both := self.env.keys() & self.secret_env.keys():
            raise ValueError(f"{min(both)} is in both env and secret_env")
        return self

    def begins(self) -> Beginning:
        """Return the files that it begins with."""
        keys = {path: each.key for path, each in self.files.items() if each.key is not None}
        return Beginning(
            snapshot=self.snapshot,
            contents={
                path: each.decoded() for path, each in self.files.items() if path not in keys
            },
            stored=keys,
        )

    def order(self) -> LivingOrder:
        """Return the order for this sandbox."""
        return LivingOrder(
            # A snapshot or a template may have resources of its own, unless a size is asked for.
            size=self.size if "size" in self.model_fields_set else None,
            limits=self.limits.model_dump(exclude_none=True),
            image=self.image,
            isolation=self.isolation,
            egress=entries(self.egress),
            egress_policy=self.egress_policy,
            env=self.env,
            secret_env=self.secret_env,
            metadata=self.metadata,
            project=self.project,
            timeout_s=self.timeout_s,
            on_timeout=self.on_timeout,
            auto_resume=self.auto_resume,
            on_shortage=self.on_shortage,
            max_life_s=self.max_life_s,
        )
