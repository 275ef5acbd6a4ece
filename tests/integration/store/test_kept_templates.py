"""How many templates a tenant may have, and which are removed after their time."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from runner.quotas.standing import template_refusal
from runner.store import executions, ledger, public_templates, quotas, retention, templates
from runner.store.db import Database
from runner.store.objects import new_key
from runner.store.retention import RetentionTerms
from runner.store.templates import StoredTemplate, TemplateState
from runner.words.ids import new_id
from runner.words.states import State
from tests.integration.store.conftest import REQUEST, new_tenant
from tests.integration.store.test_templates import begin, built

TERMS = RetentionTerms(days=30, grace=timedelta(minutes=5), abandoned=timedelta(hours=3))
Superuser = psycopg.Connection[dict[str, Any]]


@pytest.fixture
async def tenant(owner: Database) -> UUID:
    """Return a tenant of this test's own."""
    return await new_tenant(owner, f"kept-templates-{new_id()}")


def set_quotas(superuser: Superuser, tenant: UUID, **wanted: int) -> None:
    """Give a tenant quotas of its own."""
    for name, value in wanted.items():
        superuser.execute(
            "UPDATE tenants SET quotas = quotas || jsonb_build_object(%s::text, %s::integer) "
            "WHERE tenant_id = %s",
            [name, value, tenant],
        )


def untagged(superuser: Superuser, template: StoredTemplate, days: float) -> None:
    """Say that no tag has stood for a template for so many days."""
    superuser.execute(
        "UPDATE templates SET untagged_at = now() - make_interval(secs => %s) "
        "WHERE template_id = %s",
        [days * 86_400, template.id],
    )


async def test_what_is_built_or_waits_counts_and_a_refusal_names_it(
    api: Database, worker: Database, tenant: UUID, superuser: Superuser
) -> None:
    """A failed build counts for nothing. A template without a tag says when a place is free.

    Nodes read the same: they ask for what is left of the quotas before they open a way out.
    """
    set_quotas(superuser, tenant, templates=3, template_bytes=25, template_days=30)
    first = await built(api, tenant)
    await begin(api, tenant, state=TemplateState.WAITING)
    failing = await begin(api, tenant)
    async with api.tenant(tenant) as tx:
        await templates.failed(tx, failing.id, "it failed")
        standing = await quotas.standing(tx)
        assert (standing.templates, standing.template_bytes) == (2, 10)
        assert template_refusal(standing) is None
        assert template_refusal(standing, 15) is None
        large = template_refusal(standing, 16)
    assert large is not None
    async with worker.tenant(tenant) as tx:
        assert (await quotas.standing(tx)).templates == 2
    assert (large.quota, large.limit, large.used) == ("template_bytes", 25, 10)
    await built(api, tenant)
    async with api.tenant(tenant) as tx:
        standing = await quotas.standing(tx)
        refused = template_refusal(standing)
        kept = await templates.get(tx, first.id)
    assert refused is not None
    assert (refused.quota, refused.limit, refused.used) == ("templates", 3, 3)
    assert kept is not None
    # The second build took the tag from the first, which is removed thirty days later.
    assert kept.tags == ()
    assert refused.frees_at is not None
    assert (refused.frees_at - standing.now).days in {29, 30}
    assert "the first expires at" in refused.detail


async def test_one_without_a_tag_is_removed_after_its_time_unless_something_rests_on_it(
    api: Database, worker: Database, operators: Database, owner: Database, tenant: UUID,
    superuser: Superuser,
) -> None:  # fmt: skip
    """Nothing goes while the tenant's tier keeps them for ever."""
    names = ("goes", "young", "tagged", "below", "everybodys", "lived-in", "run-in", "kept-from")
    made = {name: await built(api, tenant, name=name) for name in names}
    upon = await begin(api, tenant, name="upon", base_template=made["below"].id)
    async with operators.tenant(tenant) as tx:
        await public_templates.publish(tx, made["everybodys"].id, tag="v1", by="operator:one")
    other = await new_tenant(owner, f"kept-templates-{new_id()}")
    superuser.execute(
        "INSERT INTO sandboxes (tenant_id, sandbox_id, state, created_by, image, size, resources, "
        "isolation, egress, env, secret_env, metadata, on_timeout, lease_until) VALUES "
        "(%s, %s, 'starting', 'key:one', %s, 'nano', '{}', 'container', '[]', '{}', '{}', '{}', "
        "'kill', now())",
        [other, new_id(), made["lived-in"].image],
    )
    execution = new_id()
    run_in = replace(REQUEST, sandbox=replace(REQUEST.sandbox, image=made["run-in"].image))
    object_key = new_key(tenant, "snapshots")
    async with api.tenant(tenant) as tx:
        executions.insert_later(tx, execution, run_in)
        await ledger.reserve_room(tx, object_key, 100, snapshot=True)
        assert await ledger.keep_as(tx, object_key, 10)
    superuser.execute(
        "INSERT INTO snapshots (tenant_id, snapshot_id, sandbox_id, metadata, created_by, image, "
        "size, resources, isolation, bytes, sha256, sealed_key, object_key) VALUES "
        "(%s, %s, %s, '{}', 'key:one', %s, 'nano', '{}', 'container', 10, %s, '', %s)",
        [tenant, new_id(), new_id(), made["kept-from"].image, "0" * 64, object_key],
    )
    for name in names:
        async with api.tenant(tenant) as tx:
            if name != "tagged":
                await templates.unassign(tx, name, ["default"])
        if name != "tagged":
            untagged(superuser, made[name], 29.9 if name == "young" else 30.1)

    due: list[bool] = []

    async def left() -> set[str]:
        async with worker.no_tenant() as tx:
            due.append(tenant in await retention.tenants_with_expired(tx, TERMS))
        async with worker.tenant(tenant) as tx:
            await retention.remove_templates(tx, 100)
        async with api.tenant(tenant) as tx:
            return {e.name for e in await templates.list_newest(tx, before=None, limit=99)}

    set_quotas(superuser, tenant, template_days=0)
    assert await left() == {*names, "upon"}
    set_quotas(superuser, tenant, template_days=30)
    assert await left() == {*names, "upon"} - {"goes"}
    superuser.execute(
        "UPDATE sandboxes SET state = 'ended', reason = 'killed', ended_at = now(), "
        "lease_until = NULL WHERE tenant_id = %s",
        [other],
    )
    superuser.execute("DELETE FROM snapshots WHERE tenant_id = %s", [tenant])
    async with operators.tenant(tenant) as tx:
        await public_templates.unpublish(tx, "everybodys", "v1")
    async with api.tenant(tenant) as tx:
        await templates.failed(tx, upon.id, "it failed")
        assert await executions.cancel(tx, execution) is State.QUEUED
    assert await left() == {"young", "tagged", "upon"}
    assert due == [False, True, True]
