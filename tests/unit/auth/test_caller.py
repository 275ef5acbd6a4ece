"""The audit log describes a caller."""

import json
from dataclasses import dataclass, field
from typing import Any, cast

from runner.audit.events import Action, Origin, Outcome
from runner.auth.caller import SYSTEM, By, Caller
from runner.store.transaction import Transaction
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role


@dataclass
class Kept:
    """A transaction that keeps the records it shall append."""

    records: list[str] = field(default_factory=list)

    def append_record(self, body: str) -> None:
        """Keep a record."""
        self.records.append(body)


def test_a_record_names_the_caller_its_tenant_and_where_it_came_from() -> None:
    """A use case says only what was done."""
    principal = Principal(new_id(), new_id(), PrincipalKind.KEY, "abc", Role.ADMIN)
    caller = Caller(principal, Origin("192.0.2.1", "agent/1", "r-1"))
    kept = Kept()
    tx = cast("Transaction", kept)
    caller.record(tx, Action.SECRET_CREATE, "secret", "token", {"size": 1})
    caller.record(tx, Action.ACCESS_DENIED, "secret", outcome=Outcome.DENIED)
    said: dict[str, Any] = {
        "tenant": str(principal.tenant_id),
        "actor": "key:abc",
        "ip": "192.0.2.1",
        "user_agent": "agent/1",
        "request_id": "r-1",
        "resource_type": "secret",
    }
    written, refused = map(json.loads, kept.records)
    assert written == {
        **said, "action": "secret:create", "outcome": "success", "resource_id": "token",
        "metadata": {"size": 1}, "id": written["id"], "at": written["at"],
    }  # fmt: skip
    assert refused == {
        **said, "action": "access:denied", "outcome": "denied", "resource_id": None,
        "metadata": {}, "id": refused["id"], "at": refused["at"],
    }  # fmt: skip


def test_a_command_is_the_operators_and_from_nowhere() -> None:
    """A command does not know the operator's name."""
    event = By().did(Action.TENANT_CREATE, "tenant", "1")
    assert (event.actor, event.origin) == (SYSTEM, Origin())
