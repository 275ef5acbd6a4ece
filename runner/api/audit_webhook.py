"""`/v1/audit/webhook`: where the tenant's audit log is forwarded to."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self

from fastapi import APIRouter, Depends
from psycopg.rows import DictRow
from pydantic import ConfigDict, Field, StringConstraints

from runner.api.deps import Allow, Parts
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict, Text
from runner.api.problems import JSON_TAKEN, responses
from runner.api.views import View
from runner.audit import webhook
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.tenants import webhooks

router = APIRouter(prefix="/v1/audit/webhook", tags=["audit"], route_class=JsonRoute)

CanReadWebhook = Annotated[Caller, Depends(Allow(Permission.AUDIT_WEBHOOK_READ))]
CanWriteWebhook = Annotated[Caller, Depends(Allow(Permission.AUDIT_WEBHOOK_WRITE))]


class WebhookBody(Strict):
    """The address to deliver to."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://siem.example.com/hooks/agent-runner"}]}
    )

    url: Annotated[Text, StringConstraints(min_length=1, max_length=webhook.MAX_URL)] = Field(
        description="`https://`, at a public address. No redirect is followed."
    )


class WebhookView(View):
    """A webhook and its progress. Its secret is not shown again."""

    url: str
    created_at: datetime
    updated_at: datetime
    delivered_seq: int = Field(description="The last record that the receiver accepted.")
    failures: int = Field(description="Failed attempts since the last successful one.")
    problem: str | None = Field(description="Why the last attempt failed.")
    retry_at: datetime | None = Field(description="When the next attempt is made, after a failure.")

    @classmethod
    def of(cls, row: DictRow) -> Self:
        """Return the view of a stored webhook."""
        return cls(**row)


class NewWebhookView(WebhookView):
    """A new webhook. `secret` is shown only now."""

    secret: str = Field(
        description="Signs deliveries according to Standard Webhooks.", examples=["whsec_MfKQ9r8G…"]
    )


@router.get("", summary="Read the webhook", responses=responses(HTTPStatus.NOT_FOUND))
async def read(caller: CanReadWebhook, parts: Parts) -> WebhookView:
    """Return the address that the log is forwarded to, its progress and its last failure."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        return WebhookView.of(await webhooks.read(tx))


@router.put(
    "",
    summary="Write the webhook",
    responses=responses(*JSON_TAKEN),
)
async def write(body: WebhookBody, caller: CanWriteWebhook, parts: Parts) -> NewWebhookView:
    """Forward the log to this address, with a new signing secret.

    A first webhook gets the log from this change on; a new one continues where the old one was.
    """
    trusted = parts.settings.egress_trusted_networks
    row, secret = await webhooks.write(parts.database, parts.vault, caller, body.url, trusted)
    return NewWebhookView(**row, secret=secret)


@router.delete(
    "",
    summary="Delete the webhook",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def delete(caller: CanWriteWebhook, parts: Parts) -> None:
    """Stop forwarding the log."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        await webhooks.delete(tx, caller)
