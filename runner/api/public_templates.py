"""`/operator/v1/templates`: templates that the operator makes everybody's."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import ConfigDict, Field

from runner.api.context import origin
from runner.api.deps import IsOperator, Parts, is_operator, operators_database
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict
from runner.api.problems import JSON_TAKEN, responses
from runner.api.template_requests import TemplateTag
from runner.api.views import View
from runner.auth.caller import By
from runner.store.public_templates import PublicTemplate
from runner.tenants import publishing
from runner.words.templates import image_of

router = APIRouter(
    prefix="/operator/v1/templates",
    tags=["operator"],
    dependencies=[Depends(is_operator)],
    route_class=JsonRoute,
)


class NewPublicTemplate(Strict):
    """A template that becomes everybody's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tenant_id": "019f5a40-9e3c-7c4f-8b7a-1f2e3d4c5b6a",
                    "template_id": "019f5a41-0b1d-7e2a-9c3b-4d5e6f708192",
                }
            ]
        }
    )

    tenant_id: Annotated[UUID, Field(strict=False, description="Whose template it is.")]
    template_id: Annotated[UUID, Field(strict=False)]
    tag: TemplateTag | None = Field(
        default=None, description="The tag by which it is everybody's; by default its own."
    )


class PublicTemplateView(View):
    """A name and a tag that every tenant may use, and the template that they stand for."""

    name: str
    tag: str
    image: str
    tenant_id: UUID
    template_id: UUID
    published_by: str
    published_at: datetime

    @classmethod
    def of(cls, found: PublicTemplate) -> Self:
        """Return the view of one."""
        return cls(
            name=found.name,
            tag=found.tag,
            image=image_of(found.name, found.template_id),
            tenant_id=found.tenant_id,
            template_id=found.template_id,
            published_by=found.published_by,
            published_at=found.published_at,
        )


class PublicTemplateList(View):
    """Every template that is everybody's."""

    items: list[PublicTemplateView]


@router.get("", summary="List everybody's templates", responses=responses())
async def list_public(parts: Parts) -> PublicTemplateList:
    """Return every template that is everybody's, by name and tag."""
    found = await publishing.list_public(operators_database(parts))
    return PublicTemplateList(items=[PublicTemplateView.of(each) for each in found])


@router.post(
    "",
    summary="Make a template everybody's",
    status_code=HTTPStatus.CREATED,
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def publish(
    request: Request, body: NewPublicTemplate, operator: IsOperator, parts: Parts
) -> PublicTemplateView:
    """Let every tenant list and use a template, by its name and a tag. None can change it."""
    by = By(operator.actor, origin(request))
    made = await publishing.publish(
        operators_database(parts), body.tenant_id, body.template_id, body.tag, by
    )
    return PublicTemplateView.of(made)


@router.delete(
    "/{template_name}/{tag}",
    summary="Take a template back",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def take_back(
    request: Request,
    template_name: Annotated[str, Path(max_length=128)],
    tag: Annotated[str, Path(max_length=64)],
    operator: IsOperator,
    parts: Parts,
) -> None:
    """Let a template be its own tenant's alone. What was made of it lives on."""
    by = By(operator.actor, origin(request))
    await publishing.take_back(operators_database(parts), template_name, tag, by)
