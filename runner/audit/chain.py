"""Verification of an audit chain: it finds any change, deletion or reordering.

hash(n) = SHA-256(hash(n-1) || n as 8 bytes, big-endian || canonical JSON of record n); hash(0) is
32 zero bytes. The head is stored apart from the log and says how many records there must be, so
that a missing tail is found, too. A database superuser can rewrite both the log and the head. That
is found by a pin, a place in the chain that is known from outside the database, such as a signed
checkpoint.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from runner.store.db import Database

ZERO = bytes(32)
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Link:
    """A stored record: its number, its text and both hashes."""

    seq: int
    body: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain, or the point up to which it has been verified."""

    seq: int
    hash: bytes


START = Head(seq=0, hash=ZERO)


@dataclass(frozen=True, slots=True)
class Pin:
    """A record's hash that is known from elsewhere; `source` says from where, in words."""

    seq: int
    hash: bytes
    source: str


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place at which a chain is wrong."""

    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """The number of records that were checked, and the first fault if there is one."""

    records: int
    head: str
    fault: Fault | None


class Verifier:
    """Checks links in order: feed it pages of them, then `conclude` with the head."""

    def __init__(self, start: Head = START, pins: Sequence[Pin] = ()) -> None:
        """Begin after the record that `start` names; the chain must pass through every pin."""
        self._last = start
        self._pins = pins
        self._fault: Fault | None = None

    @property
    def last(self) -> int:
        """The number of the last record that is right."""
        return self._last.seq

    def feed(self, links: Iterable[Link]) -> None:
        """Check the next links; after the first fault, ignore the rest."""
        for link in links:
            if self._fault is None:
                self._fault = self._check(link)
            if self._fault is None:
                self._last = Head(seq=link.seq, hash=link.hash)

    def conclude(self, head: Head | None) -> ChainCheck:
        """Compare the end with the head and the pins beyond it, and return the verdict."""
        expected = head or START
        if self._fault is None:
            self._fault = self._beyond()
        if self._fault is None and self._last != expected:
            self._fault = Fault(
                seq=self._last.seq + 1,
                what=f"the log ends at record {self._last.seq}, its head says {expected.seq}",
            )
        return ChainCheck(records=self._last.seq, head=self._last.hash.hex(), fault=self._fault)

    def _check(self, link: Link) -> Fault | None:
        expected = self._last.seq + 1
        if link.seq != expected:
            return Fault(expected, f"record {expected} is missing: {link.seq} comes next")
        if link.previous_hash != self._last.hash:
            return Fault(expected, f"record {expected} does not follow the one before it")
        if link.hash != link_hash(self._last.hash, link.seq, link.body):
            return Fault(expected, f"record {expected} was changed after it was written")
        for pin in self._pins:
            if pin.seq == expected and pin.hash != link.hash:
                return Fault(expected, f"record {expected} is not the one of {pin.source}")
        return None

    def _beyond(self) -> Fault | None:
        last = self._last.seq
        for pin in self._pins:
            if pin.seq > last:
                return Fault(
                    last + 1, f"the log ends at record {last}; {pin.source} has record {pin.seq}"
                )
        return None


def link_hash(previous: bytes, seq: int, body: str) -> bytes:
    """Return the hash that record `seq` must have."""
    return hashlib.sha256(previous + seq.to_bytes(8, "big") + body.encode()).digest()


async def verify(
    database: Database, tenant: UUID, start: Head = START, pins: Sequence[Pin] = ()
) -> ChainCheck:
    """Verify a tenant's chain from `start` to its end, as it is now.

    The log is append-only. So the end is read once, and the records before it in pages. Each page
    has a short transaction of its own, so that a long log holds no connection while it is hashed.
    """
    async with database.tenant(tenant) as tx:
        ends = await tx.one("audit.ends")
    if ends is None:
        raise RuntimeError("audit.ends always has one row")
    head = None if ends["seq"] is None else Head(ends["seq"], ends["hash"])
    verifier = Verifier(start, pins)
    async for page in _pages(database, tenant, start.seq, ends["last"] or 0):
        await asyncio.to_thread(verifier.feed, page)
    return verifier.conclude(head)


async def _pages(
    database: Database, tenant: UUID, after: int, last: int
) -> AsyncIterator[list[Link]]:
    while after < last:
        async with database.tenant(tenant) as tx:
            rows = await tx.all("audit.chain", after=after, last=last, limit=PAGE)
        if not rows:
            return
        yield [Link(**row) for row in rows]
        after = rows[-1]["seq"]
