"""Makes a tenant's template everybody's, and takes it back: the operator does it, over HTTP or not.

The template stays its tenant's: its storage counts there, and the tenant's log records both. An
operator builds with a key of a tenant that it has made for that.
"""

from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action
from runner.auth.caller import By
from runner.store import public_templates
from runner.store.db import Database
from runner.store.public_templates import PublicTemplate
from runner.words.errors import Conflict, NotFound

KIND = "template"


async def list_public(database: Database) -> list[PublicTemplate]:
    """Return every template that is everybody's, by name and tag."""
    async with database.no_tenant() as tx:
        return await public_templates.published(tx)


async def publish(
    database: Database, tenant_id: UUID, template_id: UUID, tag: str | None, by: By
) -> PublicTemplate:
    """Make a template everybody's, by its name and `tag` or else its own tag.

    If they stood for another template of that tenant, they stand for this one from now on. Raises
    NotFound if the tenant has no such template that is ready, and Conflict if they are another
    tenant's.
    """
    async with database.tenant(tenant_id) as tx:
        found = await public_templates.find(tx, template_id, tag)
        if found is None:
            raise NotFound("this tenant has no such template that is ready")
        if found.holder not in {None, tenant_id}:
            raise Conflict(
                f"{found.name}:{found.tag} is a template of the tenant {found.holder}: take that "
                "one back first, or give another tag"
            )
        made = await public_templates.publish(tx, template_id, tag=found.tag, by=by.actor)
        facts = {"name": made.name, "tag": made.tag}
        event = by.did(Action.TEMPLATE_PUBLISH, KIND, str(template_id), facts)
        audit.append(tx, tenant_id, event)
    return made


async def take_back(database: Database, name: str, tag: str, by: By) -> None:
    """Let a name and a tag be nobody's but their tenant's. Sandboxes live on. Raises NotFound."""
    known = await list_public(database)
    held = next((each for each in known if (each.name, each.tag) == (name, tag)), None)
    if held is None:
        raise NotFound(f"no template {name}:{tag} is everybody's")
    async with database.tenant(held.tenant_id) as tx:
        if not await public_templates.unpublish(tx, name, tag):
            raise NotFound(f"no template {name}:{tag} is everybody's")
        facts = {"name": name, "tag": tag}
        event = by.did(Action.TEMPLATE_UNPUBLISH, KIND, str(held.template_id), facts)
        audit.append(tx, held.tenant_id, event)
