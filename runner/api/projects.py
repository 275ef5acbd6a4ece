"""`/v1/projects`: names under which executions are grouped, with settings of their own."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Path, Query
from pydantic import ConfigDict, Field, StringConstraints

from runner.api import cursors
from runner.api.deps import Allow, Parts
from runner.api.edge.json import JsonRoute
from runner.api.fields import Name, Strict, Text
from runner.api.problems import JSON_TAKEN, responses
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.store.projects import Project
from runner.tenants import projects

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=JsonRoute)

CanReadProjects = Annotated[Caller, Depends(Allow(Permission.PROJECT_READ))]
CanWriteProjects = Annotated[Caller, Depends(Allow(Permission.PROJECT_WRITE))]
CanDeleteProjects = Annotated[Caller, Depends(Allow(Permission.PROJECT_DELETE))]

ProjectName = Annotated[
    str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="The project's name.")
]


class ProjectSettings(Strict):
    """The settings of a project."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"description": "Nightly reports", "egress_policy": None}]}
    )

    description: Annotated[Text, StringConstraints(max_length=1024)] = ""
    egress_policy: Name | None = Field(
        default=None, description="The egress policy of executions that name none themselves."
    )


class NewProject(ProjectSettings):
    """A project to make."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "reports", "description": "Nightly reports"}]}
    )

    name: Name = Field(description="Unique in the tenant; cannot be changed.")


class ProjectView(View):
    """A project."""

    name: str
    description: str
    egress_policy: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, project: Project) -> Self:
        """Return the view of a project."""
        return cls(
            name=project.name,
            description=project.description,
            egress_policy=project.egress_policy,
            created_by=project.created_by,
            created_at=project.created_at,
            updated_at=project.updated_at,
        )


class ProjectPage(View):
    """Projects by name."""

    items: list[ProjectView]
    next_cursor: str | None


@router.get("", summary="List projects", responses=responses())
async def list_projects(
    caller: CanReadProjects,
    parts: Parts,
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ProjectPage:
    """Return this tenant's projects by name."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await projects.list_by_name(tx, after=cursors.decode_name(cursor), limit=limit + 1)
    page, next_cursor = cursors.page(found, limit, lambda each: each.name)
    return ProjectPage(
        items=[ProjectView.of(each) for each in page],
        next_cursor=next_cursor,
    )


@router.post(
    "",
    summary="Make a project",
    status_code=HTTPStatus.CREATED,
    responses=responses(*JSON_TAKEN, HTTPStatus.CONFLICT),
)
async def create(body: NewProject, caller: CanWriteProjects, parts: Parts) -> ProjectView:
    """Make a project. Executions that name it belong to it."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        made = await projects.create(
            tx,
            caller,
            body.name,
            description=body.description,
            egress_policy=body.egress_policy,
        )
    return ProjectView.of(made)


@router.get("/{project}", summary="Read a project", responses=responses(HTTPStatus.NOT_FOUND))
async def read(project: ProjectName, caller: CanReadProjects, parts: Parts) -> ProjectView:
    """Return a project."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        return ProjectView.of(await projects.read(tx, project))


@router.put(
    "/{project}",
    summary="Change a project",
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND),
)
async def change(
    project: ProjectName,
    body: ProjectSettings,
    caller: CanWriteProjects,
    parts: Parts,
) -> ProjectView:
    """Give a project new settings; executions submitted later use them."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        changed = await projects.change(
            tx,
            caller,
            project,
            description=body.description,
            egress_policy=body.egress_policy,
        )
    return ProjectView.of(changed)


@router.delete(
    "/{project}",
    summary="Delete a project",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def delete(project: ProjectName, caller: CanDeleteProjects, parts: Parts) -> None:
    """Delete a project. Its executions stay and belong to none."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        await projects.delete(tx, caller, project)
