"""Gives a living sandbox other egress rules in place of those it has."""

from dataclasses import dataclass, replace
from uuid import UUID

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.egress.policy import rule_from_json
from runner.quotas.standing import egress_refusal
from runner.sandboxes.catalogue import Catalogue, policy_in
from runner.sandboxes.place import KIND, NO_SANDBOX, ended
from runner.store import quotas, sandboxes
from runner.store.db import Database
from runner.store.sandboxes import LifeChange
from runner.store.transaction import Transaction
from runner.tenants.policies import Entry
from runner.words.errors import Conflict, NotFound, RunnerError
from runner.words.lives import Life


@dataclass(frozen=True, slots=True)
class EgressOrder:
    """Rules that a caller wants: its own, and those of a named policy."""

    entries: tuple[Entry, ...] = ()
    policy: str | None = None


async def rules_in_place(
    catalogue: Catalogue,
    tx: Transaction,
    sandbox_id: UUID,
    change: LifeChange,
    wanted: EgressOrder,
) -> tuple[LifeChange, dict[str, object]]:
    """Return the change with the rules that the order resolves to, and both for the audit log.

    Raises NotFound, Gone, Conflict unless the sandbox runs, Invalid naming the field, and
    QuotaExceeded if the tenant has used up the day's bytes.
    """
    found = await sandboxes.get(tx, sandbox_id)
    if found is None:
        raise NotFound(NO_SANDBOX)
    if found.state is Life.ENDED:
        raise ended(found)
    if found.state is not Life.RUNNING:
        # Inside it, the proxy's certificate may have to be written.
        raise Conflict(f"this sandbox is {found.state.value}: its egress changes while it runs")
    tenant, standing = await quotas.alone(tx)
    if tenant is None:
        raise NotFound("the tenant of this key no longer exists")
    policy = await policy_in(tx, None, wanted.policy)
    offer = await catalogue.offer(tx, tenant, standing, policy)
    rules = offer.egress(wanted.entries, policy)
    if rules and (refused := egress_refusal(standing)):
        raise refused
    told: dict[str, object] = {
        "egress_before": [rule_from_json(rule).name for rule in found.egress],
        "egress": [rule_from_json(rule).name for rule in rules],
    }
    return replace(change, egress=rules, egress_policy=policy), told


async def not_in_force(
    database: Database, caller: Caller, sandbox_id: UUID, why: RunnerError
) -> None:
    """Record that no node has confirmed rules that are stored and already recorded as stored."""
    facts = {"egress_in_force": False, "why": why.detail}
    async with database.tenant(caller.tenant_id) as tx:
        caller.record(
            tx, Action.SANDBOX_UPDATE, KIND, str(sandbox_id), facts, outcome=Outcome.FAILURE
        )
