"""Projects: names under which a tenant groups its executions."""

from dataclasses import dataclass
from datetime import datetime

from runner.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Project:
    """A project. Executions of it that name no egress policy get `egress_policy`."""

    name: str
    description: str
    egress_policy: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime


async def insert(
    tx: Transaction, name: str, *, description: str, egress_policy: str | None, created_by: str
) -> Project | None:
    """Store a new project and return it, or None if the name is taken."""
    row = await tx.one(
        "projects.insert",
        name=name,
        description=description,
        egress_policy=egress_policy,
        created_by=created_by,
    )
    return Project(**row) if row else None


async def get(tx: Transaction, name: str) -> Project | None:
    """Return the project of that name, or None."""
    row = await tx.one("projects.get", name=name)
    return Project(**row) if row else None


async def list_by_name(tx: Transaction, *, after: str | None, limit: int) -> list[Project]:
    """Return the tenant's projects by name: those that follow `after`."""
    return [Project(**row) for row in await tx.all("projects.list", after=after, limit=limit)]


async def update(
    tx: Transaction, name: str, *, description: str, egress_policy: str | None
) -> Project | None:
    """Change a project's settings and return it, or None if there is none of that name."""
    row = await tx.one(
        "projects.update", name=name, description=description, egress_policy=egress_policy
    )
    return Project(**row) if row else None


async def delete(tx: Transaction, name: str) -> bool:
    """Delete a project; its executions stay and belong to none. False if there was none."""
    return bool(await tx.run("projects.delete", name=name))
