"""Tags of a tenant's templates: which build of a name each stands for."""

from collections.abc import Sequence
from uuid import UUID

from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.store import templates
from runner.store.db import Database
from runner.store.templates import StoredTemplate, TemplateTag
from runner.templates.builds import require_own
from runner.templates.counting import KIND
from runner.words.errors import Conflict, NotFound


async def tags_of(database: Database, caller: Caller, name: str) -> list[TemplateTag]:
    """Return the tags of one of the tenant's names."""
    async with database.tenant(caller.tenant_id) as tx:
        return await templates.tags_of(tx, name)


async def tag(
    database: Database, caller: Caller, found: StoredTemplate, tags: Sequence[str]
) -> None:
    """Give a template tags, taking them from others of its name.

    Raises NotFound if it is the operator's, and Conflict if it is not ready.
    """
    require_own(caller, found)
    async with database.tenant(caller.tenant_id) as tx:
        if not await templates.assign(tx, found.id, tags):
            raise Conflict(f"the template {found.image} is not ready: it gets no tags yet")
        facts = {"name": found.name, "tags": list(tags)}
        caller.record(tx, Action.TEMPLATE_TAG, KIND, str(found.id), facts)


async def untag(
    database: Database,
    caller: Caller,
    name: str,
    tags: Sequence[str],
    template_id: UUID | None = None,
) -> None:
    """Remove tags of one of the tenant's names, or only those of one template.

    Raises NotFound if there is none of them.
    """
    async with database.tenant(caller.tenant_id) as tx:
        if not await templates.unassign(tx, name, tags, template_id):
            raise NotFound(f"the name {name!r} has no such tag")
        facts = {"name": name, "tags": list(tags)}
        of = str(template_id) if template_id else None
        caller.record(tx, Action.TEMPLATE_UNTAG, KIND, of, facts)
