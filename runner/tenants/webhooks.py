"""The webhook that gets a tenant's audit log, and the secret that signs its deliveries."""

from psycopg.rows import DictRow

from runner.audit import webhook
from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.network.addresses import may_connect, networks
from runner.network.names import address_in
from runner.secrets import envelope
from runner.secrets.vault import Vault
from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.words.errors import Invalid, NotFound

NO_WEBHOOK = "no webhook is set"
KIND = "audit_webhook"


async def read(tx: Transaction) -> DictRow:
    """Return the webhook and how far it has got, without its secret. Raises NotFound."""
    row = await tx.one("audit.get_webhook")
    if row is None:
        raise NotFound(NO_WEBHOOK)
    return row


async def write(
    database: Database, vault: Vault, caller: Caller, url: str, trusted: tuple[str, ...]
) -> tuple[DictRow, str]:
    """Forward the log to this address; return the webhook and its new signing secret.

    A first webhook gets the log from this change on; a new one continues where the old one was.
    Raises Invalid for an address that is not public, unless the operator trusts its network.
    """
    tenant = caller.tenant_id
    host = _host(url, trusted)
    secret = webhook.new_secret()
    async with database.tenant(tenant) as tx:
        sealed = await vault.seal(tx, tenant, secret, bound_to=envelope.webhook_of(tenant))
        await tx.run("audit.put_webhook", url=url, sealed=sealed)
        # Record only the host: the path may be a credential.
        caller.record(tx, Action.AUDIT_WEBHOOK_UPDATE, KIND, metadata={"host": host})
        await tx.run("audit.begin_cursor")
        row = await tx.one("audit.get_webhook")
    return row or {}, secret


async def delete(tx: Transaction, caller: Caller) -> None:
    """Stop forwarding the log. Raises NotFound."""
    row = await read(tx)
    await tx.run("audit.delete_webhook")
    await tx.run("audit.delete_cursor")
    host, _, _ = webhook.parse_url(row["url"])
    caller.record(tx, Action.AUDIT_WEBHOOK_DELETE, KIND, metadata={"host": host})


def _host(url: str, trusted: tuple[str, ...]) -> str:
    """Return the host, if an address may name it. Its IP addresses are checked at each delivery."""
    try:
        host, _, _ = webhook.parse_url(url)
    except ValueError as error:
        raise Invalid(str(error), "url") from None
    literal = address_in(host)
    if literal is not None and not may_connect(literal, networks(trusted)):
        raise Invalid("its host must be at a public address", "url")
    return host
