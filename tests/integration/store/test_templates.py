"""Rows of templates: which one a name or a list of steps stands for, and what is let go of."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from runner.auth.caller import By
from runner.base.settings import Settings
from runner.store import ledger, public_templates, quotas, templates, tenants
from runner.store.db import Database
from runner.store.objects import ObjectStore, new_key
from runner.store.templates import (
    StoredTemplate,
    TemplateContent,
    TemplateFacts,
    TemplateState,
)
from runner.store.transaction import Transaction
from runner.tenants import publishing, tenancy
from runner.words.errors import Conflict
from runner.words.ids import new_id
from tests.integration.store.conftest import new_tenant
from tests.integration.store.test_objects import pieces

Superuser = psycopg.Connection[dict[str, Any]]
WITHIN = timedelta(minutes=5)


@pytest.fixture
async def tenant(owner: Database) -> UUID:
    """Return a tenant of this test's own."""
    return await new_tenant(owner, f"templates-{new_id()}")


async def begin(api: Database, tenant: UUID, *steps: str, **more: Any) -> StoredTemplate:
    """Store a template whose build begins."""
    facts: dict[str, Any] = {"name": "tools", "tag": "default", "base_template": None, **more}
    facts.setdefault("base_owner", tenant if facts["base_template"] else None)
    within, state = facts.pop("within", WITHIN), facts.pop("state", TemplateState.BUILDING)
    new = TemplateFacts(
        id=new_id(), created_by="key:one", base_image="python", env={}, steps=steps, **facts
    )
    async with api.tenant(tenant) as tx:
        return await templates.insert(tx, new, within=within, state=state)


async def keep(api: Database, tenant: UUID, template: StoredTemplate) -> str:
    """Store a template's content, and return its object's key."""
    object_key = new_key(tenant, "templates")
    content = TemplateContent(tenant, "python", None, None, 10, "0" * 64, b"sealed", object_key)
    async with api.tenant(tenant) as tx:
        await ledger.reserve_room(tx, object_key, 100, snapshot=False)
        assert await ledger.keep_as(tx, object_key, 10)
        assert await templates.keep(tx, template.id, content)
    return object_key


async def built(api: Database, tenant: UUID, *steps: str, **more: Any) -> StoredTemplate:
    """Store a template that is ready."""
    template = await begin(api, tenant, *steps, **more)
    await keep(api, tenant, template)
    async with api.tenant(tenant) as tx:
        assert await templates.ready(tx, template.id)
    return template


async def alike(
    tx: Transaction, image: str, steps: tuple[str, ...], user: str = "agent"
) -> StoredTemplate | None:
    """Return the template that a build of these steps may go on from."""
    return await templates.begun_alike(tx, image, steps, image_user="agent", sandbox_user=user)


def object_state(superuser: Superuser, object_key: str) -> str:
    row = superuser.execute(
        "SELECT state FROM objects WHERE object_key = %s", [object_key]
    ).fetchone()
    assert row is not None
    return str(row["state"])


async def test_a_name_is_the_last_template_that_is_ready(api: Database, tenant: UUID) -> None:
    await built(api, tenant)
    second = await built(api, tenant)
    other = await built(api, tenant, tag="other")
    await begin(api, tenant)
    failing = await begin(api, tenant)
    async with api.tenant(tenant) as tx:
        await templates.failed(tx, failing.id, "it failed")
        for tag, wanted in (("default", second.id), ("other", other.id)):
            found = await templates.named(tx, "tools", tag)
            assert found is not None
            assert found.id == wanted
        assert await templates.named(tx, "unknown", "default") is None


async def test_steps_are_found_again_from_the_first_one_on(api: Database, tenant: UUID) -> None:
    await built(api, tenant, "a")
    longer = await built(api, tenant, "a", "b")
    await built(api, tenant, "a", "other")
    await begin(api, tenant, "a", "b", "c")
    async with api.tenant(tenant) as tx:
        found = await alike(tx, "python", ("a", "b", "c", "d"))
        assert found is not None
        assert found.id == longer.id
        assert await alike(tx, "python", ("b", "a")) is None
        assert await alike(tx, "data", ("a", "b")) is None


async def test_steps_are_found_again_only_in_a_template_of_the_same_user(
    api: Database, tenant: UUID
) -> None:
    """The image's own user may be named or not."""
    plain = await built(api, tenant, "a")
    named = await built(api, tenant, "a", "b", user="agent")
    of_app = await built(api, tenant, "a", "b", "c", user="app")
    async with api.tenant(tenant) as tx:
        for steps, user, wanted in (
            (("a", "x"), "agent", plain),
            (("a", "b", "c", "d"), "agent", named),
            (("a", "b", "c", "d"), "app", of_app),
            (("a", "b", "c", "d"), "other", None),
        ):
            found = await alike(tx, "python", steps, user)
            assert (found and found.id) == (wanted and wanted.id), (steps, user)


async def test_another_tenant_sees_none(api: Database, owner: Database, tenant: UUID) -> None:
    """The control: its own tenant does."""
    template = await built(api, tenant, "a")
    other = await new_tenant(owner, f"templates-{new_id()}")
    for who, sees in ((other, False), (tenant, True)):
        async with api.tenant(who) as tx:
            assert (await templates.get(tx, template.id) is not None) is sees
            assert (await templates.named(tx, "tools", "default") is not None) is sees
            assert (await alike(tx, "python", ("a",)) is not None) is sees
            assert (await templates.content(tx, template.id) is not None) is sees
            assert bool(await templates.list_newest(tx, before=None, limit=9)) is sees


async def test_a_build_that_fails_lets_go_of_its_content(
    api: Database, tenant: UUID, superuser: Superuser
) -> None:
    template = await begin(api, tenant)
    object_key = await keep(api, tenant, template)
    assert object_state(superuser, object_key) == "kept"
    async with api.tenant(tenant) as tx:
        assert await templates.failed(tx, template.id, "it failed")
        assert not await templates.ready(tx, template.id)
        found = await templates.get(tx, template.id)
    assert found is not None
    assert (found.state, found.detail, found.sha256) == (TemplateState.FAILED, "it failed", None)
    assert object_state(superuser, object_key) == "doomed"


async def test_a_deleted_template_lets_go_of_its_content_unless_one_is_built_on_it(
    api: Database, tenant: UUID, superuser: Superuser
) -> None:
    template = await begin(api, tenant)
    object_key = await keep(api, tenant, template)
    async with api.tenant(tenant) as tx:
        assert await templates.delete(tx, template.id) is None, "it is being built"
        assert await templates.ready(tx, template.id)
    upon = await built(api, tenant, base_template=template.id)
    async with api.tenant(tenant) as tx:
        assert await templates.delete(tx, template.id) is None, "one is built on it"
        assert await templates.delete(tx, upon.id) == "tools"
        assert await templates.delete(tx, template.id) == "tools"
    assert object_state(superuser, object_key) == "doomed"


async def test_a_build_whose_process_has_died_counts_as_failed(api: Database, tenant: UUID) -> None:
    lost = await begin(api, tenant, within=timedelta(seconds=-1))
    await begin(api, tenant)
    async with api.tenant(tenant) as tx:
        found = await templates.get(tx, lost.id)
        assert found is not None
        assert found.state is TemplateState.FAILED
        assert "it lost the client or the process" in (found.detail or "")
        assert await templates.building(tx) == 1
        assert await templates.delete(tx, lost.id) == "tools"


async def test_one_that_waits_is_begun_once(api: Database, tenant: UUID) -> None:
    """Its base's limits hold where it was announced with none."""
    waits = await begin(api, tenant, state=TemplateState.WAITING, limits={"memory_mb": 512})
    facts = TemplateFacts(
        id=waits.id,
        name="other",
        tag="other",
        created_by="key:other",
        base_image="data",
        base_template=None,
        env={"A": "1"},
        steps=("a",),
        limits={"memory_mb": 64, "cpu": 0.5},
        workdir="/srv",
    )
    async with api.tenant(tenant) as tx:
        assert await templates.building(tx) == 0
        begun = await templates.start(tx, facts, within=WITHIN)
        assert begun is not None
        assert (begun.state, begun.name, begun.base_image) == ("building", "tools", "data")
        assert (begun.limits, begun.workdir) == ({"memory_mb": 512, "cpu": 0.5}, "/srv")
        assert await templates.start(tx, facts, within=WITHIN) is None
        assert await templates.building(tx) == 1


async def test_one_that_has_waited_too_long_is_not_begun(api: Database, tenant: UUID) -> None:
    """It no longer counts in the tenant's quota, and would come on top of that."""
    waits = await begin(
        api, tenant, state=TemplateState.WAITING, within=timedelta(seconds=-1), name="late"
    )
    facts = TemplateFacts(
        id=waits.id, name="late", tag="v1", created_by="key:one", base_image="python",
        base_template=None, env={}, steps=(),
    )  # fmt: skip
    async with api.tenant(tenant) as tx:
        assert (await quotas.standing(tx)).templates == 0
        assert await templates.start(tx, facts, within=WITHIN) is None


async def test_a_log_is_read_from_where_the_reader_is(api: Database, tenant: UUID) -> None:
    template = await begin(api, tenant)
    async with api.tenant(tenant) as tx:
        for seq, text in ((1, "one"), (2, "two"), (2, "again")):
            templates.say_later(tx, template.id, seq, text)
    async with api.tenant(tenant) as tx:
        assert [e.text for e in await templates.said(tx, template.id, after=0, limit=9)] == [
            "one", "two"
        ]  # fmt: skip
        assert [e.text for e in await templates.said(tx, template.id, after=1, limit=9)] == ["two"]


async def test_a_node_reads_what_it_needs_and_changes_nothing(
    api: Database, worker: Database, tenant: UUID
) -> None:
    template = await built(api, tenant)
    async with worker.tenant(tenant) as tx:
        content = await templates.content(tx, template.id)
    assert content is not None
    assert (content.base_image, content.archive_bytes) == ("python", 10)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with worker.tenant(tenant) as tx:
            await tx.run("templates.failed", template_id=template.id, detail="no")


async def test_only_the_last_failed_builds_are_kept(api: Database, tenant: UUID) -> None:
    """No quota counts them, and each holds a log."""
    ready, going = await built(api, tenant), await begin(api, tenant)
    failed = [await begin(api, tenant) for _ in range(4)]
    lost = await begin(api, tenant, within=timedelta(seconds=-1))
    async with api.tenant(tenant) as tx:
        for each in failed:
            templates.say_later(tx, each.id, 1, "what it wrote")
            await templates.failed(tx, each.id, "it failed")
        assert await templates.forget_failed(tx, keep=2) == 3
        left = await templates.list_newest(tx, before=None, limit=10)
        logs = [len(await templates.said(tx, each.id, after=0, limit=9)) for each in failed]
    assert {each.id for each in left} == {ready.id, going.id, failed[-1].id, lost.id}
    assert logs == [0, 0, 0, 1]


async def test_only_the_last_that_wait_for_their_steps_are_kept(
    owner: Database, api: Database, tenant: UUID
) -> None:
    """Whoever was refused the steps leaves one behind each time, and is not locked out by that."""
    other = await new_tenant(owner, f"templates-{new_id()}")
    theirs = await begin(api, other, state=TemplateState.WAITING)
    ready, going = await built(api, tenant), await begin(api, tenant)
    waiting = [await begin(api, tenant, state=TemplateState.WAITING) for _ in range(4)]
    async with api.tenant(tenant) as tx:
        assert await templates.forget_waiting(tx, keep=2) == 2
        left = await templates.list_newest(tx, before=None, limit=10)
    assert {each.id for each in left} == {ready.id, going.id, *(each.id for each in waiting[-2:])}
    async with api.tenant(other) as tx:
        assert await templates.get(tx, theirs.id) is not None


async def test_other_tenants_failed_builds_are_not_forgotten(
    owner: Database, api: Database, tenant: UUID
) -> None:
    other = await new_tenant(owner, f"templates-{new_id()}")
    theirs = await begin(api, other)
    async with api.tenant(other) as tx:
        await templates.failed(tx, theirs.id, "it failed")
    async with api.tenant(tenant) as tx:
        assert await templates.forget_failed(tx, keep=0) == 0
    async with api.tenant(other) as tx:
        assert await templates.get(tx, theirs.id) is not None


async def test_a_tag_is_moved_and_removed(api: Database, owner: Database, tenant: UUID) -> None:
    """A build gets its tags when it is ready; then they are moved by hand. The control: others'."""
    first = await built(api, tenant, more_tags=("v1",))
    second = await built(api, tenant, tag="v2")
    going = await begin(api, tenant)
    other = await new_tenant(owner, f"templates-{new_id()}")

    async def standing() -> dict[str, UUID]:
        async with api.tenant(tenant) as tx:
            return {each.tag: each.template_id for each in await templates.tags_of(tx, "tools")}

    assert await standing() == {"default": first.id, "v1": first.id, "v2": second.id}
    async with api.tenant(other) as tx:
        assert not await templates.assign(tx, second.id, ["v1"])
        assert await templates.unassign(tx, "tools", ["v1"]) == 0
        assert await templates.tags_of(tx, "tools") == []
    async with api.tenant(tenant) as tx:
        assert await templates.assign(tx, second.id, ["v1", "stable"])
        assert not await templates.assign(tx, going.id, ["v1"])
        found = await templates.get(tx, second.id)
        assert found is not None
        assert found.tags == ("stable", "v1", "v2")
        assert await templates.unassign(tx, "tools", ["v1"], first.id) == 0
        assert await templates.unassign(tx, "tools", ["v1"], second.id) == 1
        assert await templates.delete(tx, second.id) == "tools"
    assert await standing() == {"default": first.id}


async def test_only_what_the_operator_publishes_is_everybodys(
    api: Database, worker: Database, operators: Database, owner: Database, tenant: UUID
) -> None:
    """Others see and use that one, change nothing of it, and prefer their own of its name."""
    shown, kept = await built(api, tenant, "a"), await built(api, tenant, "b", name="hidden")
    other = await new_tenant(owner, f"templates-{new_id()}")

    async def seen() -> list[bool]:
        """Return whether the other tenant reaches them, in each way that there is."""
        async with api.tenant(other) as tx:
            ways: list[Any] = [
                await templates.get(tx, shown.id),
                await templates.named(tx, "tools", "v9"),
                await templates.list_newest(tx, before=None, limit=9, public=True),
            ]
            hidden: list[Any] = [
                await templates.get(tx, kept.id),
                await templates.named(tx, "hidden", "default"),
                await templates.list_newest(tx, before=None, limit=9, name="tools"),
                await alike(tx, "python", ("a",)),
                await templates.said(tx, shown.id, after=0, limit=9),
            ]
        async with worker.tenant(other) as tx:
            ways.append(await templates.content(tx, shown.id))
            hidden.append(await templates.content(tx, kept.id))
        assert not any(hidden)
        return [bool(each) for each in ways]

    assert await seen() == [False] * 4
    async with operators.tenant(tenant) as tx:
        made = await public_templates.publish(tx, shown.id, tag="v9", by="operator:one")
    assert (made.name, made.tag, made.tenant_id) == ("tools", "v9", tenant)
    assert await seen() == [True] * 4
    async with api.tenant(other) as tx:
        found = await templates.get(tx, shown.id)
        assert found is not None
        assert (found.owner, found.created_by, found.tags) == (tenant, "operator", ("v9",))
        assert await templates.delete(tx, shown.id) is None
        assert not await templates.assign(tx, shown.id, ["mine"])
    for database in (api, worker):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with database.tenant(tenant) as tx:
                await tx.run("templates.unpublish", name="tools", tag="v9")
    async with api.tenant(tenant) as tx:
        assert await templates.delete(tx, shown.id) is None
    own = await built(api, other, tag="v9")
    async with api.tenant(other) as tx:
        preferred = await templates.named(tx, "tools", "v9")
        assert preferred is not None
        assert preferred.id == own.id
        assert await templates.delete(tx, own.id) == "tools"
    upon = await begin(api, other, base_template=shown.id, base_owner=tenant, name="upon")
    async with operators.tenant(tenant) as tx:
        assert await public_templates.unpublish(tx, "tools", "v9")
    assert await seen() == [False] * 4
    async with api.tenant(tenant) as tx:
        assert await templates.delete(tx, shown.id) is None  # another tenant's is built on it
    async with api.tenant(other) as tx:
        await templates.failed(tx, upon.id, "it failed")  # and so rests on nothing
    async with api.tenant(tenant) as tx:
        assert await templates.delete(tx, shown.id) == "tools"


async def test_a_tenant_whose_templates_others_use_is_not_erased_in_part(
    api: Database, operators: Database, owner: Database, tenant: UUID, tmp_path: Path
) -> None:
    """Its objects would be gone, and its rows would stay: others' rows rest on them."""
    store = ObjectStore.open(Settings(state_dir=tmp_path))
    template = await built(api, tenant, "a")
    other = await new_tenant(owner, f"templates-{new_id()}")
    await store.write(new_key(tenant, "templates"), pieces(b"content"))
    async with operators.tenant(tenant) as tx:
        await public_templates.publish(tx, template.id, tag="v1", by="operator:one")
    await tenancy.suspend(operators, tenant, "erased next", By())
    with pytest.raises(Conflict, match="1 templates of this tenant are everybody's"):
        await tenancy.delete(operators, store, tenant, By())
    upon = await begin(api, other, base_template=template.id, base_owner=tenant, name="upon")
    await publishing.take_back(operators, template.name, "v1", By())
    with pytest.raises(Conflict, match="1 templates of other tenants are built on"):
        await tenancy.delete(operators, store, tenant, By())
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        async with operators.tenant(tenant) as tx:
            await tenants.erase(tx)
    async with api.tenant(other) as tx:
        await templates.failed(tx, upon.id, "it failed")
    assert (await tenancy.delete(operators, store, tenant, By())).objects == 1


async def test_an_operator_publishes_no_more_than_it_names(
    api: Database, operators: Database, tenant: UUID, owner: Database
) -> None:
    """Another tenant's template is none of this tenant's, and one that is not ready is none."""
    theirs, going = await built(api, tenant), await begin(api, tenant)
    other = await new_tenant(owner, f"templates-{new_id()}")
    for of, template in ((other, theirs), (tenant, going)):
        async with operators.tenant(of) as tx:
            assert await public_templates.find(tx, template.id, None) is None
