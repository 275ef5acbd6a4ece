"""From an `Authorization` header to a principal, with one answer for everything that is wrong."""

from runner.audit import events as audit
from runner.audit.events import AuditEvent, Origin
from runner.auth import keys
from runner.errors import NotAuthenticated
from runner.models import Principal
from runner.store import tenants
from runner.store.db import Database

ANSWER = "a valid API key is needed: `Authorization: Bearer rk_…`"
_NO_KEY = bytes(32)


async def authenticate(database: Database, header: str | None, origin: Origin) -> Principal:
    """Return who presents the header.

    Raises NotAuthenticated with the same words whether the key is missing, malformed, unknown,
    wrong, revoked or expired. A well-formed key that fails is audited, in its tenant's log if
    its prefix belongs to one.
    """
    scheme, _, token = (header or "").partition(" ")
    prefix = keys.prefix_of(token) if scheme.lower() == "bearer" else None
    if prefix is None:
        raise NotAuthenticated(ANSWER)
    async with database.no_tenant() as tx:
        stored = await tenants.find_key(tx, prefix)
    # Compared also when there is no such prefix, so that time does not tell which it was.
    proven = keys.matches(token, stored.hash if stored else _NO_KEY)
    if stored is None or not proven:
        failure = AuditEvent(
            actor=f"key:{prefix}",
            action=audit.Action.AUTHENTICATE,
            outcome=audit.Outcome.FAILURE,
            resource_type="api_key",
            resource_id=str(stored.key_id) if stored else None,
            origin=origin,
        )
        if stored is None:
            await audit.append_platform(database, failure)
        else:
            async with database.tenant(stored.tenant_id) as tx:
                await audit.append(tx, stored.tenant_id, failure)
        raise NotAuthenticated(ANSWER)
    return Principal(
        tenant_id=stored.tenant_id, key_id=stored.key_id, key_prefix=prefix, role=stored.role
    )
