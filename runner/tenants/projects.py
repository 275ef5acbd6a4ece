"""Projects: names that group executions, each with settings of its own."""

from collections.abc import Sequence

from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.store import egress_policies, projects
from runner.store.projects import Project
from runner.store.transaction import Transaction
from runner.words.errors import Conflict, Invalid, NotFound

NO_PROJECT = "no such project"
KIND = "project"


async def create(
    tx: Transaction, caller: Caller, name: str, *, description: str, egress_policy: str | None
) -> Project:
    """Make a project. Raises Conflict if the name is taken, Invalid for an unknown policy."""
    await _check(tx, egress_policy)
    made = await projects.insert(
        tx, name, description=description, egress_policy=egress_policy, created_by=caller.actor
    )
    if made is None:
        raise Conflict(f"a project {name!r} already exists")
    caller.record(tx, Action.PROJECT_CREATE, KIND, name)
    return made


async def list_by_name(tx: Transaction, *, after: str | None, limit: int) -> Sequence[Project]:
    """Return projects by name, those that follow `after`."""
    return await projects.list_by_name(tx, after=after, limit=limit)


async def read(tx: Transaction, name: str) -> Project:
    """Return a project. Raises NotFound."""
    found = await projects.get(tx, name)
    if found is None:
        raise NotFound(NO_PROJECT)
    return found


async def change(
    tx: Transaction, caller: Caller, name: str, *, description: str, egress_policy: str | None
) -> Project:
    """Give a project new settings for later executions. Raises NotFound and Invalid."""
    await read(tx, name)
    await _check(tx, egress_policy)
    changed = await projects.update(tx, name, description=description, egress_policy=egress_policy)
    if changed is None:
        raise NotFound(NO_PROJECT)
    caller.record(tx, Action.PROJECT_UPDATE, KIND, name)
    return changed


async def delete(tx: Transaction, caller: Caller, name: str) -> None:
    """Delete a project. Its executions stay and belong to none. Raises NotFound."""
    if not await projects.delete(tx, name):
        raise NotFound(NO_PROJECT)
    caller.record(tx, Action.PROJECT_DELETE, KIND, name)


async def _check(tx: Transaction, policy: str | None) -> None:
    if policy is not None and await egress_policies.get(tx, policy) is None:
        raise Invalid(f"there is no egress policy {policy!r}", "egress_policy")
