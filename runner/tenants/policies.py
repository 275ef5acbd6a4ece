"""Egress policies: named lists of rules, each within what the operator lets a tenant reach."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.egress.policy import Policy, Rule, parse_rule, rule_from_json, rule_to_json, within
from runner.store import egress_policies, tenants
from runner.store.egress_policies import StoredPolicy
from runner.store.tenants import Terms
from runner.store.transaction import Transaction
from runner.words.errors import Invalid, NotFound

NO_POLICY = "no such egress policy"
KIND = "egress_policy"

Entry: TypeAlias = str | Mapping[str, Any]
"""A rule as a client writes it: as a short text, or field by field."""


def permitted(
    entries: Sequence[Entry], ceilings: Sequence[Policy], *, field: str
) -> tuple[Rule, ...]:
    """Return the rules that the client sent as `field`.

    Raises Invalid naming the first one that is malformed or beyond a ceiling, such as `egress.2`.
    """
    rules = []
    for number, entry in enumerate(entries):
        try:
            rule = parse_rule(entry)
        except Invalid as error:
            raise Invalid(error.detail, f"{field}.{number}") from None
        if not all(within(rule, ceiling) for ceiling in ceilings):
            raise Invalid(
                f"the operator does not let this tenant reach {rule.name}", f"{field}.{number}"
            )
        rules.append(rule)
    return tuple(rules)


def ceilings(deployment: Policy, terms: Terms) -> tuple[Policy, ...]:
    """Return the ceilings that limit a tenant's rules."""
    if terms.egress_ceiling is None:
        return (deployment,)
    return deployment, Policy(rules=tuple(map(rule_from_json, terms.egress_ceiling)))


async def list_all(tx: Transaction) -> Sequence[StoredPolicy]:
    """Return every policy, by name."""
    return await egress_policies.list_all(tx)


async def read(tx: Transaction, name: str) -> StoredPolicy:
    """Return a policy. Raises NotFound."""
    found = await egress_policies.get(tx, name)
    if found is None:
        raise NotFound(NO_POLICY)
    return found


async def exists(tx: Transaction, name: str) -> bool:
    """Return whether there is a policy of that name."""
    return await egress_policies.get(tx, name) is not None


async def write(
    tx: Transaction, caller: Caller, name: str, entries: Sequence[Entry], deployment: Policy
) -> StoredPolicy:
    """Store a policy, replacing any of that name. Executions submitted later use it.

    Raises Invalid for a rule beyond the deployment's ceiling or the tenant's own.
    """
    tenant = await tenants.get(tx)
    if tenant is None:
        raise NotFound("the tenant of this key no longer exists")
    rules = permitted(entries, ceilings(deployment, tenant.terms), field="rules")
    stored = await egress_policies.put(tx, name, [rule_to_json(rule) for rule in rules])
    caller.record(tx, Action.EGRESS_POLICY_UPDATE, KIND, name, {"rules": stored.rules})
    return stored


async def delete(tx: Transaction, caller: Caller, name: str) -> None:
    """Delete a policy. Raises NotFound."""
    if not await egress_policies.delete(tx, name):
        raise NotFound(NO_POLICY)
    caller.record(tx, Action.EGRESS_POLICY_DELETE, KIND, name)
