"""Answers of E2B's control plane."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from runner.api.e2b.network import shown
from runner.store.snapshots import StoredSnapshot
from runner.store.templates import LogEntry, StoredTemplate, TemplateState
from runner.words.lives import Life, OnTimeout
from runner.words.living import StoredSandbox
from runner.words.templates import template_in

ENVD_VERSION = "0.5.7"
"""The version of E2B's daemon whose features there are: clients choose their calls by it."""
NO_DOMAIN = "sandboxes.invalid"
"""The domain of sandboxes in a deployment that has none. No such name exists (RFC 2606, 2), so a
client that asks there by mistake fails, instead of telling its token to E2B's own servers."""
NO_CLIENT = "runner"
FOREVER = timedelta(days=365)
"""How far away the end of a sandbox is shown that has none: clients expect one."""


class E2bAnswer(BaseModel):
    """Base of E2B's answers, whose fields are written in camel case."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, frozen=True, serialize_by_alias=True
    )


def _template(image: str) -> dict[str, str]:
    """Return the id and the name of what a sandbox is made from, as clients know them."""
    template = template_in(image)
    return {
        "template_id": image if template is None else str(template),
        "alias": image.partition("@")[0],
    }


class SandboxAnswer(E2bAnswer):
    """A sandbox that takes commands, with the token for its inside."""

    template_id: str = Field(alias="templateID")
    alias: str
    sandbox_id: str = Field(alias="sandboxID")
    client_id: str = Field(alias="clientID", default=NO_CLIENT)
    envd_version: str = ENVD_VERSION
    envd_access_token: str = Field(repr=False)
    traffic_access_token: str = Field(repr=False)
    domain: str

    @classmethod
    def of(cls, stored: StoredSandbox, token: str, traffic: str, domain: str | None) -> Self:
        """Return the answer for a sandbox, with its tokens."""
        return cls(
            **_template(stored.image),
            sandbox_id=str(stored.id),
            envd_access_token=token,
            traffic_access_token=traffic,
            domain=domain or NO_DOMAIN,
        )


class ListedSandbox(E2bAnswer):
    """A sandbox in a list."""

    template_id: str = Field(alias="templateID")
    alias: str
    sandbox_id: str = Field(alias="sandboxID")
    client_id: str = Field(alias="clientID", default=NO_CLIENT)
    started_at: datetime
    end_at: datetime
    cpu_count: int
    memory_mb: int = Field(alias="memoryMB")
    disk_size_mb: int = Field(alias="diskSizeMB")
    state: str
    metadata: dict[str, str]
    envd_version: str = ENVD_VERSION

    @classmethod
    def facts(cls, stored: StoredSandbox) -> dict[str, Any]:
        """Return the fields of a sandbox that lists and details share."""
        resources = stored.resources
        ends = [each for each in (stored.expires_at, stored.lives_until) if each is not None]
        return {
            **_template(stored.image),
            "sandbox_id": str(stored.id),
            "started_at": stored.started_at or stored.created_at,
            "end_at": min(ends, default=datetime.now(UTC) + FOREVER),
            "cpu_count": max(1, ceil(resources.cpu)),
            "memory_mb": resources.memory_mb,
            "disk_size_mb": resources.disk_mb,
            "state": "paused" if stored.state in PAUSED else "running",
            "metadata": dict(stored.metadata),
        }

    @classmethod
    def of(cls, stored: StoredSandbox) -> Self:
        """Return the answer for a sandbox."""
        return cls(**cls.facts(stored))


class LifecycleAnswer(E2bAnswer):
    """The fate of a sandbox when its time is up, and whether its use resumes it."""

    auto_resume: bool
    on_timeout: OnTimeout


class SandboxDetail(ListedSandbox):
    """A sandbox by itself."""

    domain: str
    allow_internet_access: bool
    network: dict[str, list[str]]
    lifecycle: LifecycleAnswer

    @classmethod
    def with_domain(cls, stored: StoredSandbox, domain: str | None) -> Self:
        """Return the answer for a sandbox."""
        lifecycle = LifecycleAnswer(auto_resume=stored.auto_resume, on_timeout=stored.on_timeout)
        return cls(
            **cls.facts(stored),
            domain=domain or NO_DOMAIN,
            allow_internet_access=bool(stored.egress),
            network=shown(stored.egress),
            lifecycle=lifecycle,
        )


class SnapshotAnswer(E2bAnswer):
    """A snapshot: what `templateID` may be for a new sandbox."""

    snapshot_id: str = Field(alias="snapshotID")
    names: list[str]

    @classmethod
    def of(cls, stored: StoredSnapshot) -> Self:
        """Return the answer for a snapshot."""
        return cls(snapshot_id=str(stored.id), names=[] if stored.name is None else [stored.name])


class ForkAnswer(E2bAnswer):
    """One copy of a sandbox."""

    sandbox: SandboxAnswer


class BuildAnswer(E2bAnswer):
    """A template that waits for its steps. Its build has the same id."""

    template_id: str = Field(alias="templateID")
    build_id: str = Field(alias="buildID")
    public: bool = False
    names: list[str]
    tags: list[str]
    aliases: list[str]

    @classmethod
    def of(cls, stored: StoredTemplate) -> Self:
        """Return the answer for a template."""
        return cls(
            template_id=str(stored.id),
            build_id=str(stored.id),
            names=[stored.name],
            tags=[stored.tag, *stored.more_tags],
            aliases=[stored.name],
        )


class TagAnswer(E2bAnswer):
    """A tag of a template's name, and the build that it stands for."""

    tag: str
    build_id: str = Field(alias="buildID")
    created_at: datetime = Field(alias="createdAt")


class AssignedTags(E2bAnswer):
    """Tags that a build was given."""

    tags: list[str]
    build_id: str = Field(alias="buildID")


class FilesAnswer(E2bAnswer):
    """The answer whether the files of a step are stored, and where and how to bring them."""

    present: bool
    url: str
    headers: dict[str, str] = Field(repr=False)


class BuildEntry(E2bAnswer):
    """Some of what a build wrote."""

    timestamp: datetime
    level: str = "info"
    message: str


class BuildReason(E2bAnswer):
    """The reason why a build failed."""

    message: str


class BuildStatus(E2bAnswer):
    """The progress of a build."""

    template_id: str = Field(alias="templateID")
    build_id: str = Field(alias="buildID")
    status: str
    logs: list[str]
    log_entries: list[BuildEntry]
    reason: BuildReason | None = None

    @classmethod
    def of(cls, stored: StoredTemplate, entries: Sequence[LogEntry]) -> Self:
        """Return the status of a template with some entries of its log."""
        told = "error" if stored.state is TemplateState.FAILED else stored.state.value
        return cls(
            template_id=str(stored.id),
            build_id=str(stored.id),
            status=told,
            logs=[],
            log_entries=[BuildEntry(timestamp=each.at, message=each.text) for each in entries],
            reason=BuildReason(message=stored.detail) if stored.detail else None,
        )


class TemplateAnswer(E2bAnswer):
    """The template that a name stands for."""

    template_id: str = Field(alias="templateID")
    public: bool


class MeasureAnswer(E2bAnswer):
    """The resources that a sandbox used at a moment."""

    timestamp: datetime
    timestamp_unix: int
    cpu_count: int
    cpu_used_pct: float
    mem_used: int
    mem_total: int
    mem_cache: int = 0
    disk_used: int
    disk_total: int


PAUSED = frozenset({Life.PAUSING, Life.PAUSED, Life.RESUMING})
LISTED = {
    "paused": PAUSED,
    "running": frozenset({Life.STARTING, Life.RUNNING}),
}
"""Our states by E2B's two. A sandbox that is being ended is in neither."""
