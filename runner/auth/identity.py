"""From an `Authorization` header to a caller; everything wrong with it gets the same answer."""

import base64
from ipaddress import ip_address

from runner.audit import events as audit
from runner.audit.events import Action, Origin, Outcome
from runner.auth import keys
from runner.auth.caller import By
from runner.auth.keys import Holder
from runner.store import keys as stored_keys
from runner.store import operators
from runner.store.db import Database
from runner.store.keys import Found, Network
from runner.words.errors import NotAuthenticated
from runner.words.principal import Operator, Principal, PrincipalKind

ANSWER = "a valid API key is needed: `Authorization: Bearer rk_…`"
OPERATORS_ANSWER = "a valid operator's key is needed: `Authorization: Bearer ro_…`"
ELSEWHERE = "from a network that it may not be used in"
_NO_KEY = bytes(32)


async def authenticate(
    database: Database, header: str | None, origin: Origin, *, recorded: bool = True
) -> Principal:
    """Return the principal that the header belongs to. Raises what `of_key` raises."""
    return await of_key(database, _token(header), origin, recorded=recorded)


async def of_key(
    database: Database, token: str, origin: Origin, *, recorded: bool = True, answer: str = ANSWER
) -> Principal:
    """Return the principal of a key.

    Raises NotAuthenticated with the same words whether the key is missing, malformed, unknown,
    wrong, revoked, expired, or used from a network where it may not be. If a well-formed key fails,
    that is audited, in its tenant's log if the prefix belongs to one. After many failures, further
    ones are not recorded, because they would tell nothing new.
    """
    prefix = keys.prefix_of(token)
    if prefix is None:
        raise NotAuthenticated(answer)
    async with database.statements() as tx:
        found = await stored_keys.find(tx, prefix)
    # Compare even if there is no such prefix, so that time does not reveal which it was.
    proven = keys.matches(token, found.hash if found else _NO_KEY)
    if found is None or not proven:
        if recorded:
            await _record(database, prefix, found, origin, "wrong" if found else "no such key")
        raise NotAuthenticated(answer)
    if found.grant.networks is not None and not _from_one_of(found.grant.networks, origin.ip):
        if recorded:
            await _record(database, prefix, found, origin, ELSEWHERE)
        raise NotAuthenticated(answer)
    if found.unused:
        async with database.tenant(found.tenant_id) as tx:
            await stored_keys.used(tx, found.key_id)
    return _principal(found, prefix)


async def on_behalf_of(
    database: Database, prefix: str, origin: Origin, answer: str, *, recorded: bool = True
) -> Principal:
    """Return the principal of a key that somebody else than its holder proved to act for.

    Its rights are those that the key has now. Raises NotAuthenticated if it has ended, or may not
    be used from there; the latter is audited in its tenant's log.
    """
    async with database.statements() as tx:
        found = await stored_keys.find(tx, prefix)
    if found is None:
        raise NotAuthenticated(answer)
    if found.grant.networks is not None and not _from_one_of(found.grant.networks, origin.ip):
        if recorded:
            await _record(database, prefix, found, origin, ELSEWHERE)
        raise NotAuthenticated(answer)
    return _principal(found, prefix)


async def authenticate_operator(
    database: Database, header: str | None, origin: Origin, *, recorded: bool = True
) -> Operator:
    """Return the operator of the header. Raises NotAuthenticated, as above; audited."""
    token = _token(header)
    prefix = keys.prefix_of(token, Holder.OPERATOR)
    if prefix is None:
        raise NotAuthenticated(OPERATORS_ANSWER)
    async with database.no_tenant() as tx:
        found = await operators.find(tx, prefix)
        proven = keys.matches(token, found.hash if found else _NO_KEY)
        if found is not None and proven and found.unused:
            await operators.used(tx, found.operator_id)
    if found is None or not proven:
        by = By(f"operator:{prefix}", origin)
        failure = by.did(Action.AUTHENTICATE, "operator", outcome=Outcome.FAILURE)
        if recorded:
            await audit.append_platform(database, failure)
        raise NotAuthenticated(OPERATORS_ANSWER)
    return Operator(id=found.operator_id, prefix=prefix)


def of_basic(header: str | None) -> str | None:
    """Return a header that has a key as the password of Basic (RFC 7617) as a bearer's."""
    scheme, _, given = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return header
    try:
        _, _, password = base64.b64decode(given, validate=True).decode().partition(":")
    except ValueError:
        return None
    return f"Bearer {password}"


def _token(header: str | None) -> str:
    scheme, _, token = (header or "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _principal(found: Found, prefix: str) -> Principal:
    return Principal(
        tenant_id=found.tenant_id,
        id=found.key_id,
        kind=PrincipalKind.KEY,
        name=prefix,
        role=found.grant.role,
        tier=found.tier,
        permissions=found.grant.permissions,
        suspended=found.suspended,
    )


def _from_one_of(networks: tuple[Network, ...], address: str | None) -> bool:
    try:
        known = ip_address(address or "")
    except ValueError:
        return False
    return any(known in network for network in networks)


async def _record(
    database: Database, prefix: str, found: Found | None, origin: Origin, why: str
) -> None:
    key_id = str(found.key_id) if found else None
    failure = By(f"key:{prefix}", origin).did(
        Action.AUTHENTICATE, "api_key", key_id, {"why": why}, outcome=Outcome.FAILURE
    )
    if found is None:
        await audit.append_platform(database, failure)
    else:
        async with database.tenant(found.tenant_id) as tx:
            audit.append(tx, found.tenant_id, failure)
