"""The sinks of a deployment, as configured."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.audit.delivery import Batch, Deliver, Undelivered
from runner.audit.forward import TENANT
from runner.audit.outbound import Guard
from runner.audit.syslog import Receiver, Syslog
from runner.audit.webhook import Webhooks, key_of, parse_url
from runner.base.settings import Settings
from runner.network.addresses import networks
from runner.network.lookup import system_lookup
from runner.network.roots import client_context
from runner.secrets import envelope
from runner.secrets.vault import Vault
from runner.store.db import Database
from runner.words.errors import SetupError

LOOKUP_S = 5.0


@dataclass(frozen=True, slots=True)
class TenantWebhook:
    """Each tenant's own webhook, with a secret that only the worker can open."""

    database: Database
    vault: Vault
    webhooks: Webhooks

    async def deliver(self, batch: Batch) -> None:
        """Deliver a batch. Raises Undelivered, or KeyUnavailable if the secret does not open."""
        async with self.database.tenant(batch.tenant) as tx:
            row = await tx.one("audit.sealed_webhook")
            if row is None:
                raise Undelivered("it was deleted")
            secret = await self.vault.unseal(
                tx, batch.tenant, row["sealed"], bound_to=envelope.webhook_of(batch.tenant)
            )
        await self.webhooks.post(row["url"], key_of(secret), batch)


@dataclass(frozen=True, slots=True)
class DeploymentWebhook:
    """The operator's webhook, which gets every tenant's log and the platform's."""

    url: str
    key: bytes
    webhooks: Webhooks

    async def deliver(self, batch: Batch) -> None:
        """Deliver a batch. Raises Undelivered."""
        await self.webhooks.post(self.url, self.key, batch)


@dataclass(frozen=True, slots=True)
class Receivers:
    """The place to which the operator wants every audit record sent."""

    webhook: tuple[str, bytes] | None = field(default=None, repr=False)
    """The address, and the key that signs what is sent there."""
    syslog: Receiver | None = None


def receivers(settings: Settings) -> Receivers:
    """Return the operator's receivers. Raises SetupError that names the malformed setting."""
    url, secret = settings.audit_webhook_url, settings.audit_webhook_secret
    webhook = syslog = None
    if url is not None:
        try:
            parse_url(url)
        except ValueError as error:
            raise SetupError(f"RUNNER_AUDIT_WEBHOOK_URL {error}") from None
        try:
            webhook = url, key_of(secret.get_secret_value() if secret else "")
        except ValueError as error:
            raise SetupError(f"RUNNER_AUDIT_WEBHOOK_SECRET {error}") from None
    if settings.audit_syslog_url is not None:
        syslog = Receiver.parse(settings.audit_syslog_url)
    return Receivers(webhook, syslog)


def open_sinks(
    settings: Settings, database: Database, vault: Vault, operator: Receivers, roots: str
) -> Mapping[str, Deliver]:
    """Return every sink by its name. `roots` are further authorities (PEM) that sinks trust.

    The operator's own sinks may be in networks that tenants' webhooks and sandboxes cannot reach.
    """
    lookup = system_lookup(settings.egress_hosts, LOOKUP_S)
    for_tenants = networks(settings.egress_trusted_networks)
    for_operator = (*for_tenants, *networks(settings.audit_trusted_networks))
    tls = client_context(roots)
    tenants = TenantWebhook(database, vault, Webhooks(Guard(lookup, for_tenants), tls))
    sinks: dict[str, Deliver] = {TENANT: tenants.deliver}
    guard = Guard(lookup, for_operator)
    if operator.webhook is not None:
        sinks["webhook"] = DeploymentWebhook(*operator.webhook, Webhooks(guard, tls)).deliver
    if operator.syslog is not None:
        sinks["syslog"] = Syslog(guard, tls, operator.syslog, hostname=settings.node).deliver
    return sinks
