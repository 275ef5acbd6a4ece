"""Named egress policies of a tenant, as stored: lists of rules in their canonical form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from runner.store.transaction import Transaction
from runner.words.execution import JSON


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy with its rules as `runner.egress.policy` writes them."""

    name: str
    rules: list[Mapping[str, JSON]]
    updated_at: datetime


async def put(tx: Transaction, name: str, rules: Sequence[Mapping[str, JSON]]) -> StoredPolicy:
    """Store a policy; it replaces one of that name."""
    stored = Jsonb([dict(rule) for rule in rules])
    row = await tx.one("egress.put_policy", name=name, rules=stored)
    if row is None:
        raise RuntimeError("PostgreSQL stored a policy and returned none")
    return StoredPolicy(**row)


async def get(tx: Transaction, name: str) -> StoredPolicy | None:
    """Return the policy of that name."""
    row = await tx.one("egress.get_policy", name=name)
    return StoredPolicy(**row) if row else None


async def list_all(tx: Transaction) -> list[StoredPolicy]:
    """Return every policy of the tenant, by name."""
    return [StoredPolicy(**row) for row in await tx.all("egress.list_policies")]


async def delete(tx: Transaction, name: str) -> bool:
    """Delete the policy of that name; return whether there was one."""
    return await tx.run("egress.delete_policy", name=name) > 0
