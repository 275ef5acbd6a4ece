"""Rows of templates: what they are made from, where their content is, and what builds said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from runner.store.transaction import Transaction
from runner.words.templates import Startup, image_of


class TemplateState(StrEnum):
    """The progress of a build. One that waits has no steps yet: its client will send them."""

    WAITING = "waiting"
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFacts:
    """A template to build."""

    id: UUID
    name: str
    tag: str
    created_by: str
    base_image: str
    """The operator's image below all templates."""
    base_template: UUID | None
    """The template on which it is built; None if that is the image itself."""
    base_owner: UUID | None = None
    """Whose that template is."""
    env: Mapping[str, str] = field(repr=False)
    steps: tuple[str, ...]
    """For each step, a hash of it and of all that came before."""
    startup: Startup | None = None
    more_tags: tuple[str, ...] = ()
    """The tags that it gets besides `tag` once it is ready."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Resources of its sandboxes that differ from the default size's."""
    workdir: str | None = None
    """The folder in which processes of its sandboxes start; None for the home."""
    user: str | None = None
    """The user of its sandboxes; None for that of the image below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTemplate(TemplateFacts):
    """A template of this tenant, or one that the operator has made everybody's."""

    state: TemplateState
    detail: str | None
    """The reason why its build failed."""
    created_at: datetime
    ended_at: datetime | None
    archive_bytes: int | None
    sha256: str | None
    owner: UUID
    """The tenant whose it is."""
    public: bool
    """Whether it is everybody's."""
    tags: tuple[str, ...]
    """Its present tags: those of the operator if it is not this tenant's."""

    @property
    def image(self) -> str:
        """The name by which a sandbox has it as its image."""
        return image_of(self.name, self.id)


@dataclass(frozen=True, slots=True)
class TemplateContent:
    """The facts that a node needs to make an image of a template."""

    owner: UUID
    """The tenant whose key opens its object."""
    base_image: str
    base_template: UUID | None
    base_owner: UUID | None
    archive_bytes: int
    sha256: str
    """Of the archive before it was sealed."""
    sealed_key: bytes = field(repr=False)
    object_key: str
    user: str | None = None
    """The user of its sandboxes; None for that of its base."""


@dataclass(frozen=True, slots=True)
class TemplateTag:
    """The build of a name that a tag stands for, and since when."""

    tag: str
    template_id: UUID
    assigned_at: datetime


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Some of what a build wrote."""

    seq: int
    at: datetime
    text: str


async def insert(
    tx: Transaction,
    new: TemplateFacts,
    *,
    within: timedelta,
    state: TemplateState = TemplateState.BUILDING,
) -> StoredTemplate:
    """Store a template whose build begins, and has ended after `within`; or that waits as long."""
    await tx.run(
        "templates.insert",
        template_id=new.id,
        name=new.name,
        tag=new.tag,
        state=state,
        created_by=new.created_by,
        within=within,
        base_image=new.base_image,
        base_template=new.base_template,
        base_owner=new.base_owner,
        env=Jsonb(dict(new.env)),
        steps=list(new.steps),
        more_tags=list(new.more_tags),
        limits=Jsonb(dict(new.limits)),
        workdir=new.workdir,
        username=new.user,
        **_startup_columns(new.startup),
    )
    stored = await get(tx, new.id)
    if stored is None:
        raise RuntimeError("PostgreSQL stored a template and does not return it")
    return stored


async def start(tx: Transaction, new: TemplateFacts, *, within: timedelta) -> StoredTemplate | None:
    """Begin the build of a template that waits; None if it does not.

    Limits that it was announced with stay.
    """
    began = await tx.run(
        "templates.start",
        template_id=new.id,
        within=within,
        base_image=new.base_image,
        base_template=new.base_template,
        base_owner=new.base_owner,
        env=Jsonb(dict(new.env)),
        steps=list(new.steps),
        limits=Jsonb(dict(new.limits)),
        workdir=new.workdir,
        username=new.user,
        **_startup_columns(new.startup),
    )
    return await get(tx, new.id) if began else None


async def get(tx: Transaction, template_id: UUID) -> StoredTemplate | None:
    """Return the template, or None if this tenant sees none with that id."""
    row = await tx.one("templates.get", template_id=template_id)
    return _of_row(row) if row else None


async def named(tx: Transaction, name: str, tag: str) -> StoredTemplate | None:
    """Return the template that a name and a tag stand for: the tenant's, or else everybody's."""
    row = await tx.one("templates.named", name=name, tag=tag)
    return _of_row(row) if row else None


async def begun_alike(
    tx: Transaction, base_image: str, steps: Sequence[str], *, image_user: str, sandbox_user: str
) -> StoredTemplate | None:
    """Return the template that was made by most of these steps, from the first one on.

    Its sandboxes have the user `sandbox_user`, by its own choice or as the image's `image_user`.
    """
    row = await tx.one(
        "templates.begun_alike",
        base_image=base_image,
        steps=list(steps),
        image_user=image_user,
        sandbox_user=sandbox_user,
    )
    return _of_row(row) if row else None


async def list_newest(
    tx: Transaction,
    *,
    before: UUID | None,
    limit: int,
    name: str | None = None,
    public: bool = False,
) -> list[StoredTemplate]:
    """Return this tenant's templates, or everybody's, newest first.

    `before` is the last id of the previous page.
    """
    rows = await tx.all("templates.list", before=before, name=name, limit=limit, public=public)
    return [_of_row(row) for row in rows]


async def building(tx: Transaction) -> int:
    """Return how many templates of this tenant are being built."""
    row = await tx.one("templates.building")
    return int(row["builds"]) if row else 0


async def keep(tx: Transaction, template_id: UUID, content: TemplateContent) -> bool:
    """Store what a build has made; return whether it goes on."""
    kept = await tx.run(
        "templates.keep",
        template_id=template_id,
        bytes=content.archive_bytes,
        sha256=content.sha256,
        sealed_key=content.sealed_key,
        object_key=content.object_key,
    )
    return kept > 0


async def ready(tx: Transaction, template_id: UUID) -> bool:
    """End a build whose content is kept, and give it its tags; return whether it still went on."""
    return await tx.run("templates.ready", template_id=template_id) > 0


async def assign(tx: Transaction, template_id: UUID, tags: Sequence[str]) -> bool:
    """Give a template of this tenant tags, taking them from others of its name.

    Return whether it is ready: to one that is not, nothing is given.
    """
    return await tx.run("templates.assign", template_id=template_id, tags=list(tags)) > 0


async def unassign(
    tx: Transaction, name: str, tags: Sequence[str], template_id: UUID | None = None
) -> int:
    """Remove tags of a name, or only where they are this template's; return how many there were."""
    return await tx.run("templates.unassign", name=name, tags=list(tags), template_id=template_id)


async def tags_of(tx: Transaction, name: str) -> list[TemplateTag]:
    """Return the tags of one of this tenant's names."""
    return [TemplateTag(**row) for row in await tx.all("templates.tags", name=name)]


async def failed(tx: Transaction, template_id: UUID, detail: str) -> bool:
    """Store why a build failed, and let go of its content; return whether it had not ended yet."""
    return await tx.run("templates.failed", template_id=template_id, detail=detail) > 0


async def delete(tx: Transaction, template_id: UUID) -> str | None:
    """Forget a template, and let go of its object; return its name.

    None if there is none, if it is being built, if another template is built on it, or if it is
    everybody's.
    """
    row = await tx.one("templates.delete", template_id=template_id)
    return row["name"] if row else None


async def forget_failed(tx: Transaction, *, keep: int) -> int:
    """Forget failed builds and their logs, but not the last `keep`; return how many there were."""
    return await tx.run("templates.forget_failed", keep=keep)


async def forget_waiting(tx: Transaction, *, keep: int) -> int:
    """Forget templates that wait for their steps, but not the last `keep`; return how many."""
    return await tx.run("templates.forget_waiting", keep=keep)


async def content(tx: Transaction, template_id: UUID) -> TemplateContent | None:
    """Return what a node needs of a template that was built and that this tenant may use."""
    row = await tx.one("templates.content", template_id=template_id)
    if row is None:
        return None
    return TemplateContent(archive_bytes=row.pop("bytes"), user=row.pop("username"), **row)


def say_later(tx: Transaction, template_id: UUID, seq: int, text: str) -> None:
    """Add to what a build has written."""
    tx.later("templates.say", template_id=template_id, seq=seq, text=text)


async def said(tx: Transaction, template_id: UUID, *, after: int, limit: int) -> list[LogEntry]:
    """Return what a build wrote after entry number `after`."""
    rows = await tx.all("templates.said", template_id=template_id, after=after, limit=limit)
    return [LogEntry(**row) for row in rows]


def _startup_columns(startup: Startup | None) -> dict[str, object]:
    return {
        "start_command": startup.command if startup else None,
        "ready_command": startup.ready if startup else None,
        "ready_s": startup.within_s if startup else None,
    }


def _of_row(row: DictRow) -> StoredTemplate:
    starts = row.pop("start_command"), row.pop("ready_command"), row.pop("ready_s")
    return StoredTemplate(
        id=row.pop("template_id"),
        state=TemplateState(row.pop("state")),
        archive_bytes=row.pop("bytes"),
        steps=tuple(row.pop("steps")),
        tags=tuple(row.pop("tags")),
        more_tags=tuple(row.pop("more_tags")),
        startup=None if starts[2] is None else Startup(*starts),
        user=row.pop("username"),
        **row,
    )
