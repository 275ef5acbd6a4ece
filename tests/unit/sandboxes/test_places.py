"""The user of a sandbox is remembered, for the tenant whose it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from runner.audit.events import Origin
from runner.auth.caller import Caller
from runner.sandboxes.place import SandboxPlaces
from runner.store import sandboxes
from runner.store.sandboxes import Whereabouts
from runner.words.errors import NotFound
from runner.words.ids import new_id
from runner.words.lives import Life
from runner.words.principal import Principal, PrincipalKind, Role


class Rows:
    """A database that has the sandboxes of some tenants, and counts the statements."""

    def __init__(self, users: dict[tuple[UUID, UUID], str | None]) -> None:
        self.users = users
        self.asked = 0

    @asynccontextmanager
    async def single(self, tenant_id: UUID) -> AsyncIterator[UUID]:
        """Yield the tenant in place of a transaction."""
        yield tenant_id

    async def where(self, tenant_id: UUID, sandbox_id: UUID) -> Whereabouts | None:
        """Return where a sandbox of the tenant is."""
        self.asked += 1
        if (tenant_id, sandbox_id) not in self.users:
            return None
        user = self.users[tenant_id, sandbox_id]
        return Whereabouts(Life.RUNNING, None, None, "node", user=user)


def caller(tenant_id: UUID) -> Caller:
    """Return somebody of a tenant."""
    principal = Principal(tenant_id, new_id(), PrincipalKind.KEY, "test", Role.OWNER)
    return Caller(principal, Origin())


async def test_it_is_asked_for_once_and_by_its_own_tenant_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs, plain, app = (new_id() for _ in range(4))
    rows = Rows({(ours, plain): None, (ours, app): "app"})
    database: Any = rows
    monkeypatch.setattr(sandboxes, "where", rows.where)
    places = SandboxPlaces(database, most=2)
    for _ in range(2):
        assert await places.user_of(caller(ours), app) == "app"
        assert await places.user_of(caller(ours), plain) is None
    assert rows.asked == 2
    with pytest.raises(NotFound):
        await places.user_of(caller(theirs), app)
    places.learn_user(theirs, new_id(), "other")
    assert await places.user_of(caller(ours), app) == "app"
    assert rows.asked == 4
