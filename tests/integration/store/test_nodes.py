"""Rows of nodes: who is a node, and what it may claim."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from runner.auth.caller import By
from runner.embedded.services import Services
from runner.fleet import operating
from runner.store import executions, nodes, scheduling, templates
from runner.store.db import Database
from runner.store.nodes import NodeFacts, NodeUse
from runner.words.errors import Conflict, LeaseLost, NotFound
from runner.words.ids import new_id
from runner.words.nodes import NodeState
from runner.words.sandbox import Isolation
from tests.integration.store.conftest import LEASE, REQUEST, new_tenant
from tests.integration.store.test_living_sandboxes import claimed, made, running
from tests.integration.store.test_scheduling import submit
from tests.integration.store.test_templates import built

SOON = timedelta(seconds=30)


@pytest.fixture
async def operator(postgres: Services) -> AsyncIterator[Database]:
    async with Database(SecretStr(postgres.operator_url), max_size=1) as database:
        yield database


@pytest.fixture
def facts() -> NodeFacts:
    """Return what a node of this test alone tells of itself."""
    return NodeFacts(
        node=f"n-{new_id()}",
        instance="one",
        version="1",
        door="unix:/nowhere",
        zone=None,
        isolations=(Isolation.CONTAINER,),
        images=("python",),
        slots=2,
        sandboxes=2,
        cpus=2,
        memory_mb=1024,
    )


async def join(
    worker: Database, facts: NodeFacts, lasting: timedelta = SOON
) -> tuple[NodeState, bool] | None:
    async with worker.no_tenant() as tx:
        return await nodes.join(tx, facts, free_mb=512, lasting=lasting)


async def beat(worker: Database, facts: NodeFacts) -> NodeState | None:
    async with worker.statements() as tx:
        return await nodes.beat(tx, facts.node, facts.instance, NodeUse(1, 1, 256), SOON)


async def claim(worker: Database, facts: NodeFacts) -> object:
    return await scheduling.claim(worker, node=facts.node, instance=facts.instance, lease=LEASE)


async def test_the_newest_process_is_the_node(worker: Database, facts: NodeFacts) -> None:
    """An earlier one learns at its next beat that it is not."""
    assert await join(worker, facts) == (NodeState.READY, True)
    assert await beat(worker, facts) is NodeState.READY
    later = replace(facts, instance="two")
    assert await join(worker, later) == (NodeState.READY, False)
    assert await beat(worker, facts) is None
    assert await beat(worker, later) is NodeState.READY


async def test_a_node_that_says_nothing_is_away(
    worker: Database, operator: Database, facts: NodeFacts
) -> None:
    await join(worker, facts, timedelta(0))
    assert (await operating.read(operator, facts.node)).node.state is NodeState.AWAY
    await beat(worker, facts)
    found = await operating.read(operator, facts.node)
    assert (found.node.state, found.node.free_mb) == (NodeState.READY, 256)


async def test_what_a_node_may_not_claim_stays_for_others(
    api: Database, worker: Database, owner: Database, operator: Database, facts: NodeFacts
) -> None:
    """Each claim of an execution finds nothing, until nothing is in its way."""
    tenant = await new_tenant(owner, f"c-{new_id()}")
    await submit(api, tenant)
    wrong = (
        replace(facts, images=("data",)),
        replace(facts, isolations=(Isolation.GVISOR,)),
        replace(facts, instance="two"),
    )
    for other in wrong:
        await join(worker, other)
        asks = facts if other.instance == "two" else other
        assert await claim(worker, asks) is None, other
    await join(worker, facts)
    await operating.drain(operator, facts.node, By())
    assert await claim(worker, facts) is None
    await operating.resume(operator, facts.node, By())
    assert await claim(worker, facts) is not None


async def test_a_template_is_claimed_by_nodes_that_have_its_base(
    api: Database, worker: Database, owner: Database, facts: NodeFacts
) -> None:
    """One that was deleted is claimed by any node, which ends its executions."""
    tenant = await new_tenant(owner, f"t-{new_id()}")
    template = await built(api, tenant)
    in_template = replace(REQUEST, sandbox=replace(REQUEST.sandbox, image=template.image))

    async def queue() -> None:
        async with api.tenant(tenant) as tx:
            executions.insert_later(tx, new_id(), in_template)

    await queue()
    await join(worker, replace(facts, images=("data",)))
    assert await claim(worker, facts) is None
    await join(worker, facts)
    assert await claim(worker, facts) is not None
    await queue()
    async with api.tenant(tenant) as tx:
        assert await templates.delete(tx, template.id) == template.name
    await join(worker, replace(facts, images=("data",)))
    assert await claim(worker, facts) is not None


async def test_a_node_that_drains_claims_no_sandbox(
    api: Database, worker: Database, owner: Database, operator: Database, facts: NodeFacts
) -> None:
    """Nor does a process that is the node no more. What it held before stays its."""
    tenant = await new_tenant(owner, f"s-{new_id()}")
    where = {"node": facts.node, "instance": "one"}
    await join(worker, facts)
    before = await running(api, worker, tenant, **where)
    held = await operating.drain(operator, facts.node, By())
    assert [(each.kind, each.id, each.tenant_id) for each in held.held] == [
        ("sandbox", before.sandbox_id, tenant)
    ]
    new = await made(api, tenant)
    with pytest.raises(LeaseLost):
        await claimed(worker, tenant, new, **where)
    await operating.resume(operator, facts.node, By())
    await join(worker, replace(facts, instance="two"))
    with pytest.raises(LeaseLost):
        await claimed(worker, tenant, new, **where)
    await claimed(worker, tenant, new, node=facts.node, instance="two")


async def test_only_a_node_that_is_away_or_empty_is_removed(
    api: Database, worker: Database, owner: Database, operator: Database, facts: NodeFacts
) -> None:
    """It does not come back by itself."""
    await join(worker, facts)
    with pytest.raises(Conflict, match="drain it first"):
        await operating.remove(operator, facts.node, By())
    tenant = await new_tenant(owner, f"r-{new_id()}")
    await running(api, worker, tenant, node=facts.node, instance="one")
    await operating.drain(operator, facts.node, By())
    with pytest.raises(Conflict, match="still holds"):
        await operating.remove(operator, facts.node, By())
    async with worker.statements() as tx:
        await nodes.leave(tx, facts.node, "one")
    await operating.remove(operator, facts.node, By())
    assert await join(worker, facts) is None
    with pytest.raises(Conflict, match="removed"):
        await operating.drain(operator, facts.node, By())
    assert facts.node not in {each.node for each in await operating.list_nodes(operator)}
    await operating.resume(operator, facts.node, By())
    assert await join(worker, facts) == (NodeState.READY, False)
    with pytest.raises(NotFound):
        await operating.remove(operator, "nobody", By())
