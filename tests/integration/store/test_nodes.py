"""Rows of nodes: who is a node, and what it may claim."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import pytest
from pydantic import SecretStr

from runner.auth.caller import By
from runner.embedded.services import Services
from runner.fleet import operating
from runner.store import executions, nodes, scheduling, templates
from runner.store.db import Database
from runner.store.nodes import NodeFacts, NodeUse
from runner.store.scheduling import Claimed, Left
from runner.words.errors import Conflict, LeaseLost, NotFound
from runner.words.execution import ExecutionRequest
from runner.words.ids import new_id
from runner.words.nodes import NodeState
from runner.words.sandbox import Isolation
from tests.integration.store.conftest import LEASE, REQUEST, new_tenant, of_a_module
from tests.integration.store.test_living_sandboxes import claimed, made, running
from tests.integration.store.test_scheduling import Superuser, submit
from tests.integration.store.test_templates import built

SOON = timedelta(seconds=30)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Services]:
    with of_a_module() as running:
        yield running


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


async def beat(
    worker: Database, facts: NodeFacts, *held: UUID, fault: str | None = None
) -> NodeState | None:
    use = NodeUse(1, 1, 256, fault=fault, templates=held)
    async with worker.statements() as tx:
        return await nodes.beat(tx, facts.node, facts.instance, use, SOON)


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


@dataclass(frozen=True)
class InTemplate:
    """Executions of a template of a tenant of their own."""

    api: Database
    worker: Database
    superuser: Superuser
    tenant: UUID
    template: UUID
    request: ExecutionRequest

    @classmethod
    async def new(
        cls, api: Database, worker: Database, owner: Database, superuser: Superuser
    ) -> "InTemplate":
        """Build the template."""
        tenant = await new_tenant(owner, f"l-{new_id()}")
        template = await built(api, tenant)
        request = replace(REQUEST, sandbox=replace(REQUEST.sandbox, image=template.image))
        return cls(api, worker, superuser, tenant, template.id, request)

    async def queue(self, request: ExecutionRequest | None = None) -> UUID:
        """Submit one, which stays new however slow this host is."""
        id_ = new_id()
        async with self.api.tenant(self.tenant) as tx:
            executions.insert_later(tx, id_, request or self.request)
        self.aged(id_, timedelta(hours=-1))
        return id_

    def aged(self, id_: UUID, by: timedelta) -> None:
        """Have one wait for so long."""
        change = "UPDATE executions SET queued_at = now() - %s WHERE execution_id = %s"
        self.superuser.execute(change, [by, id_])

    async def taken(self, by: NodeFacts) -> UUID:
        """Return which one a node claims."""
        found = await claim(self.worker, by)
        assert isinstance(found, Claimed), found
        return found.claim.execution_id


@pytest.fixture
async def work(
    api: Database, worker: Database, owner: Database, superuser: Superuser
) -> InTemplate:
    return await InTemplate.new(api, worker, owner, superuser)


async def test_an_execution_is_left_for_a_moment_to_a_node_that_has_its_template(
    worker: Database, facts: NodeFacts, work: InTemplate
) -> None:
    """Only as long as that one has a slot. Other work is not held up by it."""
    near = replace(facts, node=f"n-{new_id()}", slots=1)
    for each in (facts, near):
        await join(worker, each)
    # Nobody has its image: whoever asks takes it.
    first = await work.queue()
    assert await work.taken(facts) == first
    await beat(worker, near, work.template)
    second = await work.queue()
    assert await claim(worker, facts) == Left(work.tenant, second)
    other = await work.queue(REQUEST)
    assert await work.taken(facts) == other
    assert await work.taken(near) == second
    # The other node's only slot is in use now.
    third = await work.queue()
    assert await work.taken(facts) == third


async def test_an_execution_is_left_for_no_longer_than_a_moment(
    worker: Database, facts: NodeFacts, work: InTemplate
) -> None:
    near = replace(facts, node=f"n-{new_id()}")
    for each in (facts, near):
        await join(worker, each)
    await beat(worker, near, work.template)
    late = await work.queue()
    assert await claim(worker, facts) == Left(work.tenant, late)
    work.aged(late, timedelta(seconds=3))
    assert await work.taken(facts) == late


@pytest.mark.parametrize("why", ["drains", "is away", "is broken", "has it no more", "other wall"])
async def test_an_execution_is_left_to_no_node_that_cannot_take_it(
    worker: Database, operator: Database, facts: NodeFacts, work: InTemplate, why: str
) -> None:
    near = replace(facts, node=f"n-{new_id()}")
    for each in (facts, near):
        await join(worker, each)
    await beat(worker, near, work.template)
    id_ = await work.queue()
    assert await claim(worker, facts) == Left(work.tenant, id_)
    match why:
        case "drains":
            await operating.drain(operator, near.node, By())
        case "is away":
            await join(worker, near, timedelta(0))
        case "is broken":
            await beat(worker, near, work.template, fault="no Docker")
        case "has it no more":
            await beat(worker, near)
        case "other wall":
            await join(worker, replace(near, isolations=(Isolation.GVISOR,)))
    assert await work.taken(facts) == id_


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
