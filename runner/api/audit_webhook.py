"""`/v1/audit/webhook`: where the tenant's audit log is forwarded to."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self

from fastapi import APIRouter
from psycopg.rows import DictRow
from pydantic import ConfigDict, Field, StringConstraints

from runner.api.deps import CanReadWebhook, CanWriteWebhook, Parts
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict, Text
from runner.api.problems import responses
from runner.api.views import View
from runner.audit import events as audit
from runner.audit import webhook
from runner.egress.addresses import may_connect, networks
from runner.egress.names import address_in
from runner.secrets import envelope
from runner.words.errors import Invalid, NotFound

router = APIRouter(prefix="/v1/audit/webhook", tags=["audit"], route_class=JsonRoute)

NO_WEBHOOK = "no webhook is set"
KIND = "audit_webhook"


class WebhookBody(Strict):
    """Where to deliver."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://siem.example.com/hooks/agent-runner"}]}
    )

    url: Annotated[Text, StringConstraints(min_length=1, max_length=webhook.MAX_URL)] = Field(
        description="`https://`, at a public address. No redirect is followed."
    )


class WebhookView(View):
    """A webhook and how far it has got. Its secret is not shown again."""

    url: str
    created_at: datetime
    updated_at: datetime
    delivered_seq: int = Field(description="The last record that it has taken.")
    failures: int = Field(description="Attempts that failed since the last that did not.")
    problem: str | None = Field(description="Why the last of them failed.")
    retry_at: datetime | None = Field(description="When the next attempt is, after a failure.")

    @classmethod
    def of(cls, row: DictRow) -> Self:
        """Return the view of a stored webhook."""
        return cls(**row)


class NewWebhookView(WebhookView):
    """A webhook just written. `secret` is shown this once."""

    secret: str = Field(
        description="Signs deliveries, as Standard Webhooks says.", examples=["whsec_MfKQ9r8G…"]
    )


@router.get("", summary="Read the webhook", responses=responses(HTTPStatus.NOT_FOUND))
async def read(caller: CanReadWebhook, parts: Parts) -> WebhookView:
    """Return where the log is forwarded to, how far that has got, and what went wrong last."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        row = await tx.one("audit.get_webhook")
    if row is None:
        raise NotFound(NO_WEBHOOK)
    return WebhookView.of(row)


@router.put(
    "",
    summary="Write the webhook",
    responses=responses(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ),
)
async def write(body: WebhookBody, caller: CanWriteWebhook, parts: Parts) -> NewWebhookView:
    """Forward the log to this address, with a new signing secret.

    The first one gets the log from this change on; one in place of another goes on where that was.
    """
    tenant = caller.tenant_id
    host = _host(body.url, parts.settings.egress_trusted_networks)
    secret = webhook.new_secret()
    async with parts.database.tenant(tenant) as tx:
        sealed = await parts.vault.seal(tx, tenant, secret, bound_to=envelope.webhook_of(tenant))
        await tx.run("audit.put_webhook", url=body.url, sealed=sealed)
        # Not the whole address: its path may be what lets one in there.
        caller.record(tx, audit.Action.AUDIT_WEBHOOK_UPDATE, KIND, metadata={"host": host})
        await tx.run("audit.begin_cursor")
        row = await tx.one("audit.get_webhook")
    return NewWebhookView(**(row or {}), secret=secret)


@router.delete(
    "",
    summary="Delete the webhook",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def delete(caller: CanWriteWebhook, parts: Parts) -> None:
    """Forward the log no more."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        row = await tx.one("audit.get_webhook")
        if row is None:
            raise NotFound(NO_WEBHOOK)
        await tx.run("audit.delete_webhook")
        await tx.run("audit.delete_cursor")
        host, _, _ = webhook.parse_url(row["url"])
        caller.record(tx, audit.Action.AUDIT_WEBHOOK_DELETE, KIND, metadata={"host": host})


def _host(url: str, trusted: tuple[str, ...]) -> str:
    """Return the host of an address that may be one. What a name is at, deliveries find out."""
    try:
        host, _, _ = webhook.parse_url(url)
    except ValueError as error:
        raise Invalid(str(error), "url") from None
    literal = address_in(host)
    if literal is not None and not may_connect(literal, networks(trusted)):
        raise Invalid("its host must be at a public address", "url")
    return host
