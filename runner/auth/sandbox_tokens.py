"""Tokens of sandboxes: each acts in one sandbox, on behalf of one API key, with its rights as now.

A token is not stored: it holds the sandbox's id and the key's prefix, signed by HMAC-SHA256 (RFC
2104) with a key that is derived from the deployment's key ring. So it ends with the API key, with
the sandbox, or when `runner secrets rotate` retires the key that signed it. The same sandbox and
key always have the same token until then: whoever holds it can sign addresses of files with it,
and the API can compute what they signed.

Such an address may name neither sandbox nor key (decision 0031). Then the API computes what each
holder of a token of a living sandbox would have signed: for a bounded number, in one search at a
time, and with the same answer whatever it did not find. Only an address of the right form is worth
a search, few requests wait for one, and none waits for long.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from runner.audit.events import Origin
from runner.auth.caller import Caller
from runner.auth.identity import on_behalf_of
from runner.auth.keys import PREFIX_LENGTH
from runner.secrets.keyring import Derivation
from runner.store import holders
from runner.store.db import Database
from runner.words.errors import NotAuthenticated, Overloaded
from runner.words.principal import Principal

ANSWER = "a valid token of the sandbox is needed: `X-Access-Token`"
UNSIGNED = (
    "this address is not signed by a token of a sandbox that lives, or its time is up: ask whoever"
    " made it for another one"
)
BUSY = "too many addresses are being looked for at the moment; try again in 1 s"
MOST_SEARCHED = 10_000
"""How many holders a search looks at. An address that names its sandbox by a header or by its host
is found without a search."""
MOST_OF_A_TENANT = 2_000
"""How many of them are one tenant's: its newest sandboxes'."""
_PIECE = 200
"""How many are looked at in one go: about a millisecond, which the event loop waits."""
MOST_WAITING = 16
"""How many wait for a search or are in one; further ones are told to try again."""
SEARCH_S = 10.0
"""Seconds for a search and the wait for it. A client that hangs up waits no longer than that."""
MOST_KNOWN = 10_000
"""How many of the addresses that were found are looked at first where they were found."""
MAX_PATH = 4096
USERS = frozenset({"", "user"})
_SIGNATURE = re.compile(r"v1_([A-Za-z0-9+/]{42}[AEIMQUYcgkosw048])")
"""A SHA-256 sum in base64 without padding; its last digit holds four bits, and two zeros."""
_DIGITS = 12
_ID_BYTES = 16
_MAC_BYTES = 32
_SAID_BYTES = _ID_BYTES + PREFIX_LENGTH
_BYTES = _SAID_BYTES + _MAC_BYTES


class Use(Enum):
    """The purpose of a token: its prefix. Each is signed with a key of its own."""

    INSIDE = "st_"
    """All that can be done in the sandbox."""
    TRAFFIC = "tt_"
    """The servers on its ports, and its code contexts, which E2B's clients take for one of them."""

    @property
    def purpose(self) -> bytes:
        """The name that its key is derived for."""
        return b"sandbox-token" if self is Use.INSIDE else b"sandbox-traffic-token"


@dataclass(frozen=True, slots=True)
class Acting:
    """An actor and its sandbox. `path` is set if only one file there may be read or written."""

    principal: Principal
    sandbox_id: UUID
    path: str | None = None


@dataclass(frozen=True, slots=True)
class SignedAddress:
    """The address of a file in a sandbox, signed with a token of the sandbox.

    `signature` is `v1_` and the base64 of a SHA-256 sum, without padding, as E2B's clients make it.
    """

    path: str
    operation: str
    """`read` or `write`."""
    user: str
    expires: str | None
    """The Unix time at which it ends, as it is written in the address."""
    signature: str = field(repr=False)

    def is_well_formed(self) -> bool:
        """Return whether a token can have signed this for a user that there is."""
        return (
            _SIGNATURE.fullmatch(self.signature) is not None
            and self.user in USERS
            and len(self.path) <= MAX_PATH
        )

    def test(self) -> Callable[[str], bool]:
        """Return a function that says whether a token signed this.

        What does not depend on the token is hashed once. How long a test takes reveals nothing.
        """
        if (found := _SIGNATURE.fullmatch(self.signature)) is None:
            return lambda _token: False
        theirs = base64.b64decode(f"{found[1]}=")
        head = hashlib.sha256(_bytes(f"{self.path}:{self.operation}:{self.user}:"))
        tail = b"" if self.expires is None else _bytes(f":{self.expires}")

        def is_signed_with(token: str) -> bool:
            ours = head.copy()
            ours.update(token.encode("ascii") + tail)
            return hmac.compare_digest(ours.digest(), theirs)

        return is_signed_with

    def is_over(self, now: float) -> bool:
        """Return whether its time is up, or is no time."""
        if self.expires is None:
            return False
        digits = (
            self.expires.isascii() and self.expires.isdecimal() and len(self.expires) <= _DIGITS
        )
        return not digits or int(self.expires) <= now


class Searches:
    """Gives turns to searches, and remembers what they found; in this process' memory, bounded."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._waiting = 0
        self._known: OrderedDict[str, UUID] = OrderedDict()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn. Raises Overloaded if too many wait, or if it all takes too long."""
        if self._waiting >= MOST_WAITING:
            raise Overloaded(BUSY, retry_after_s=1)
        self._waiting += 1
        try:
            async with asyncio.timeout(SEARCH_S), self._one:
                yield
        except TimeoutError:
            raise Overloaded(BUSY, retry_after_s=1) from None
        finally:
            self._waiting -= 1

    def where(self, address: SignedAddress) -> UUID | None:
        """Return the sandbox in which this signature was found, if it was found lately."""
        return self._known.get(address.signature)

    def found(self, address: SignedAddress, sandbox_id: UUID) -> None:
        """Remember a sandbox: the same address costs no other search."""
        self._known[address.signature] = sandbox_id
        self._known.move_to_end(address.signature)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class SandboxTokens:
    """Makes tokens of sandboxes, and finds out whom they act for."""

    database: Database
    keys: Derivation = field(repr=False)
    searches: Searches = field(default_factory=Searches, repr=False)

    def require_key(self) -> None:
        """Raise KeyUnavailable if no token can be made."""
        self.keys.derive(Use.INSIDE.purpose)

    def issue(self, sandbox_id: UUID, prefix: str, use: Use = Use.INSIDE) -> str:
        """Return the token of a sandbox for the key of that prefix. Raises KeyUnavailable."""
        return _token(use, self.keys.derive(use.purpose)[0], sandbox_id, prefix)

    async def note_holder(self, caller: Caller, sandbox_id: UUID, created_by: str) -> None:
        """Have addresses found that the caller's API key signs; its maker's are found anyway.

        Raises Conflict if too many other keys hold tokens of the sandbox.
        """
        if created_by != caller.actor:
            async with self.database.tenant(caller.tenant_id) as tx:
                await holders.add(tx, sandbox_id, caller.principal.name)

    async def authenticate(
        self, token: str, origin: Origin, use: Use = Use.INSIDE, *, recorded: bool = True
    ) -> Acting:
        """Return who acts where.

        Raises NotAuthenticated with the same words for a token that is malformed, forged, or of a
        key that has ended. Raises KeyUnavailable.
        """
        said = _said(use, token)
        if said is None:
            raise NotAuthenticated(ANSWER)
        sandbox_id, prefix = said
        proven = False
        for key in self.keys.derive(use.purpose):
            proven |= hmac.compare_digest(_token(use, key, sandbox_id, prefix), token)
        if not proven:
            raise NotAuthenticated(ANSWER)
        principal = await on_behalf_of(self.database, prefix, origin, ANSWER, recorded=recorded)
        return Acting(principal, sandbox_id)

    async def find(
        self,
        address: SignedAddress,
        sandbox_id: UUID | None,
        origin: Origin,
        *,
        recorded: bool = True,
    ) -> Acting:
        """Return who acts where by a signed address; `sandbox_id` is what the request names.

        Raises NotAuthenticated with the same words for an address that has no signature's form,
        whose time is up, that nobody signed, or that was signed with a token which is worth nothing
        any more. Raises Overloaded if too many others are being looked for.
        """
        if not address.is_well_formed() or address.is_over(time.time()):
            raise NotAuthenticated(UNSIGNED)
        found = await self._signer(address, sandbox_id)
        if found is None:
            raise NotAuthenticated(UNSIGNED)
        where, prefix = found
        principal = await on_behalf_of(self.database, prefix, origin, UNSIGNED, recorded=recorded)
        return Acting(principal, where, address.path)

    async def _signer(
        self, address: SignedAddress, sandbox_id: UUID | None
    ) -> tuple[UUID, str] | None:
        if sandbox_id is not None:
            return await self._among_holders(address, sandbox_id)
        if (known := self.searches.where(address)) is not None:
            found = await self._among_holders(address, known)
            if found is not None:
                return found
        async with self.searches.turn():
            found = await self._among_holders(address, None)
        if found is not None:
            self.searches.found(address, found[0])
        return found

    async def _among_holders(
        self, address: SignedAddress, sandbox_id: UUID | None
    ) -> tuple[UUID, str] | None:
        async with self.database.statements() as tx:
            if sandbox_id is None:
                known = await holders.search(tx, limit=MOST_SEARCHED, each=MOST_OF_A_TENANT)
            else:
                prefixes = await holders.of(tx, sandbox_id)
                known = b"".join(sandbox_id.bytes + each.encode("ascii") for each in prefixes)
        keys = self.keys.derive(Use.INSIDE.purpose)
        is_signed_with = address.test()
        found = None
        # All of them, even after one fits: time tells nothing about where it was found.
        for number, start in enumerate(range(0, len(known), _SAID_BYTES)):
            said = known[start : start + _SAID_BYTES]
            for key in keys:
                if is_signed_with(_signed(Use.INSIDE, key, said)):
                    found = UUID(bytes=said[:_ID_BYTES]), said[_ID_BYTES:].decode("ascii")
            if number % _PIECE == 0:
                await asyncio.sleep(0)
        return found


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _token(use: Use, key: bytes, sandbox_id: UUID, prefix: str) -> str:
    return _signed(use, key, sandbox_id.bytes + prefix.encode("ascii"))


def _signed(use: Use, key: bytes, said: bytes) -> str:
    made = base64.urlsafe_b64encode(said + hmac.digest(key, said, hashlib.sha256))
    return use.value + made.decode()


def _said(use: Use, token: str) -> tuple[UUID, str] | None:
    """Return what a token says, which is not proven; None if it says nothing."""
    try:
        raw = base64.b64decode(token.removeprefix(use.value).encode("ascii"), b"-_", validate=True)
        if len(raw) != _BYTES or not token.startswith(use.value):
            return None
        return UUID(bytes=raw[:_ID_BYTES]), raw[_ID_BYTES:-_MAC_BYTES].decode("ascii")
    except (binascii.Error, ValueError):
        return None
