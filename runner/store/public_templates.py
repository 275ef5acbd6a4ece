"""Templates that the operator has made everybody's: which build each name and tag stands for.

Written by the operator's login alone. Everybody reads the row, and so may read the template.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from runner.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class PublicTemplate:
    """A name and a tag that every tenant may use, unless it has a template of its own by them."""

    name: str
    tag: str
    tenant_id: UUID
    """Whose template it is, and whose storage it takes."""
    template_id: UUID
    published_by: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class ToPublish:
    """A template that is ready, by a name and a tag, and whose template they stand for now."""

    name: str
    tag: str
    holder: UUID | None


async def find(tx: Transaction, template_id: UUID, tag: str | None) -> ToPublish | None:
    """Return a template of this transaction's tenant; `tag` is its own if none is given."""
    row = await tx.one("templates.to_publish", template_id=template_id, tag=tag)
    return ToPublish(**row) if row else None


async def publish(tx: Transaction, template_id: UUID, *, tag: str, by: str) -> PublicTemplate:
    """Make a template of this transaction's tenant everybody's, by its name and a tag.

    The name and the tag must be nobody's, or this tenant's.
    """
    row = await tx.one("templates.publish", template_id=template_id, tag=tag, published_by=by)
    if row is None:
        raise RuntimeError("PostgreSQL stored a public template and returned nothing")
    return PublicTemplate(**row)


async def unpublish(tx: Transaction, name: str, tag: str) -> bool:
    """Take a name and a tag back; return whether this transaction's tenant had it."""
    return await tx.run("templates.unpublish", name=name, tag=tag) > 0


async def published(tx: Transaction) -> list[PublicTemplate]:
    """Return all, by name and tag."""
    return [PublicTemplate(**row) for row in await tx.all("templates.published")]
