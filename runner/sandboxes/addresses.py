"""Signed addresses: each lets whoever holds it read or write one file of a sandbox for a while.

An address carries all that it permits, and a MAC of that by a key which is derived from the
tenant's data key. So nothing is stored, and a copy of the database signs nothing. It lends a right
of whoever signed it: when that right ends, so does every address, and what is under way by it.
"""

import base64
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError, with_config

from runner.audit import events as audit
from runner.audit.events import Action, Origin, Outcome
from runner.auth.caller import By, Caller
from runner.auth.permissions import Permission
from runner.auth.rights import Rights, own_grant
from runner.protocol.codec import STRICT
from runner.sandboxes.place import KIND, NO_SANDBOX, ended
from runner.sandboxes.ports import last_moment
from runner.secrets.vault import Vault
from runner.store import sandboxes
from runner.store.db import Database
from runner.words.errors import NotAuthenticated, NotFound
from runner.words.lives import Life
from runner.words.principal import Principal, PrincipalKind, Role, Tier

PREFIX = "fa_"
LONGEST = 3072
_PURPOSE: Final = b"agent-runner/file-address/v1\0"
_TOKEN = re.compile(rf"{PREFIX}([A-Za-z0-9_-]{{64,{LONGEST - len(PREFIX)}}})")
_MAC_BYTES = 32
_TENANT_BYTES = 16
ANSWER = (
    "this address is not valid: it was changed, is for another file, sandbox or operation, has "
    "expired, or whoever signed it has lost the right; ask for a new one"
)
LENDER_GONE = "the right of whoever signed it has ended"


class FileOperation(StrEnum):
    """An operation that an address permits."""

    READ = "read"
    WRITE = "write"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class _Terms:
    """The right that an address gives, and its origin. The path, also signed, stands beside it."""

    sandbox: UUID
    operation: FileOperation
    until: float
    """Seconds since the epoch."""
    kind: PrincipalKind
    principal: UUID
    name: Annotated[str, Field(max_length=256)]
    role: Role
    tier: Tier
    login: UUID | None
    networks: Annotated[tuple[str, ...] | None, Field(max_length=64)]


_TERMS = TypeAdapter(_Terms)


@dataclass(frozen=True, slots=True)
class NewAddress:
    """An address that was just signed. Whoever has the token needs no key."""

    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AddressedFile:
    """The right of an address's holder, with the file at `path` as it was signed."""

    principal: Principal
    """Whoever signed it, limited to the use of sandboxes, until the address expires."""
    path: str
    operation: FileOperation


@dataclass(frozen=True, slots=True)
class FileAddresses:
    """Signs addresses of files, and reads them again."""

    database: Database
    vault: Vault
    rights: Rights

    async def sign(
        self, caller: Caller, sandbox_id: UUID, path: str, operation: FileOperation, lasts_s: float
    ) -> NewAddress:
        """Return an address that is good for `lasts_s` seconds, or until the caller's key ends.

        Nobody looks whether there is such a file yet. Raises NotFound, Gone, KeyUnavailable if this
        deployment has no key for secrets, and NotAuthenticated or NotPermitted if the caller's
        right has just ended.
        """
        principal = caller.principal
        async with self.database.tenant(caller.tenant_id) as tx:
            grant = await own_grant(tx, principal, Permission.SANDBOX_USE)
            found = await sandboxes.where(tx, sandbox_id)
            if found is None:
                raise NotFound(NO_SANDBOX)
            if found.state is Life.ENDED:
                raise ended(found)
            until = time.time() + lasts_s
            if (last := last_moment(grant.expires_at, principal)) is not None:
                until = min(until, last.timestamp())
            terms = _Terms(
                sandbox=sandbox_id,
                operation=operation,
                until=until,
                kind=principal.kind,
                principal=principal.id,
                name=principal.name,
                role=principal.role,
                tier=principal.tier,
                login=principal.login_id,
                networks=None if grant.networks is None else tuple(map(str, grant.networks)),
            )
            body = caller.tenant_id.bytes + _TERMS.dump_json(terms)
            mac = await self.vault.mac(tx, caller.tenant_id, _signed(body, path), purpose=_PURPOSE)
            expires_at = datetime.fromtimestamp(until, UTC)
            facts = {
                "path": path,
                "operation": operation.value,
                "expires_at": expires_at.isoformat(timespec="seconds"),
            }
            caller.record(tx, Action.SANDBOX_ADDRESS_SIGN, KIND, str(sandbox_id), facts)
        text = base64.urlsafe_b64encode(mac + body).rstrip(b"=").decode()
        return NewAddress(PREFIX + text, expires_at)

    async def read(
        self,
        token: str,
        path: str,
        sandbox_id: str,
        operation: FileOperation | None,
        origin: Origin,
        *,
        recorded: bool = True,
    ) -> AddressedFile:
        """Return what a request may do that came with this address.

        Raises NotAuthenticated, in the same words whatever is wrong, and KeyUnavailable. A refusal
        of an address that was signed here is put on record, unless it is not to be `recorded`.
        """
        body, mac = _parts(token)
        tenant = UUID(bytes=body[:_TENANT_BYTES])
        async with self.database.single(tenant) as tx:
            own = await self.vault.is_mac(tx, tenant, _signed(body, path), mac, purpose=_PURPOSE)
        if not own:
            raise NotAuthenticated(ANSWER)
        try:
            terms = _TERMS.validate_json(body[_TENANT_BYTES:])
        except ValidationError:
            # Signed by a version of this program with other terms.
            raise NotAuthenticated(ANSWER) from None
        lender = _lender(tenant, terms)
        async with self.database.statements() as tx:
            principal = await self.rights.confirmed(tx, lender)
        if principal is not None and (
            (why := _refusal(terms, sandbox_id, operation, origin.ip)) is None
        ):
            return AddressedFile(principal, path, terms.operation)
        if recorded:
            facts = {
                "path": path,
                "operation": terms.operation.value,
                "why": LENDER_GONE if principal is None else why,
            }
            event = By(lender.actor, origin).did(
                Action.SANDBOX_ADDRESS_USE, KIND, str(terms.sandbox), facts, outcome=Outcome.DENIED
            )
            async with self.database.tenant(tenant) as tx:
                audit.append(tx, tenant, event)
        raise NotAuthenticated(ANSWER)

    async def used(self, caller: Caller, sandbox_id: UUID, file: AddressedFile) -> None:
        """Put on record that somebody uses an address, before a byte moves."""
        facts = {"path": file.path, "operation": file.operation.value}
        async with self.database.tenant(caller.tenant_id) as tx:
            caller.record(tx, Action.SANDBOX_ADDRESS_USE, KIND, str(sandbox_id), facts)


def _refusal(
    terms: _Terms, sandbox_id: str, operation: FileOperation | None, address: str | None
) -> str | None:
    """Return why an address that was signed here is not good for a request; None if it is."""
    if str(terms.sandbox) != sandbox_id:
        return "it is for another sandbox"
    if terms.operation is not operation:
        return "it is for another operation"
    if terms.until <= time.time():
        return "it has expired"
    if not _is_from(terms.networks, address):
        return "it came from a network that the key may not be used in"
    return None


def _lender(tenant: UUID, terms: _Terms) -> Principal:
    """Return whoever signed an address, as it was then, with no more than the address lends."""
    return Principal(
        tenant_id=tenant,
        id=terms.principal,
        kind=terms.kind,
        name=terms.name,
        role=terms.role,
        tier=terms.tier,
        permissions=frozenset({Permission.SANDBOX_USE}),
        login_id=terms.login,
        ends_at=terms.until,
    )


def _signed(body: bytes, path: str) -> bytes:
    # The body's JSON has no NUL byte, so nothing else is signed by the same bytes.
    return body + b"\0" + path.encode()


def _parts(token: str) -> tuple[bytes, bytes]:
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise NotAuthenticated(ANSWER)
    text = found[1]
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise NotAuthenticated(ANSWER) from None
    return raw[_MAC_BYTES:].ljust(_TENANT_BYTES, b"\0"), raw[:_MAC_BYTES]


def _is_from(networks: tuple[str, ...] | None, address: str | None) -> bool:
    if networks is None:
        return True
    try:
        known = ip_address(address or "")
    except ValueError:
        return False
    return any(known in ip_network(each) for each in networks)
