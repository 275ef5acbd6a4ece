"""Verification of an audit chain: any change, deletion or reordering is found.

hash(n) = SHA-256(hash(n-1) || n as 8 bytes, big-endian || canonical JSON of record n); hash(0) is
32 zero bytes. The head, kept apart from the log, tells how many records there must be, so that a
cut tail is found, too. Who can rewrite both log and head (a database superuser) is out of reach
of this check: that takes checkpoints signed outside the database.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from runner.store.db import Transaction

ZERO = bytes(32)
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Link:
    """A record as stored: its number, its text and both hashes."""

    seq: int
    body: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain must end."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place at which a chain does not hold."""

    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many records were checked, and the first fault if there is one."""

    records: int
    head: str
    fault: Fault | None


class Verifier:
    """Checks links in order; feed pages of them, then `conclude` with the head."""

    def __init__(self) -> None:
        self._last = Head(seq=0, hash=ZERO)
        self._fault: Fault | None = None

    @property
    def last(self) -> int:
        """The number of the last record that holds."""
        return self._last.seq

    def feed(self, links: Iterable[Link]) -> None:
        """Check the next links; after the first fault the rest is not looked at."""
        for link in links:
            if self._fault is None:
                self._fault = self._check(link)
            if self._fault is None:
                self._last = Head(seq=link.seq, hash=link.hash)

    def conclude(self, head: Head | None) -> Verdict:
        """Compare the end with the head and return the verdict."""
        expected = head or Head(seq=0, hash=ZERO)
        if self._fault is None and self._last != expected:
            self._fault = Fault(
                seq=self._last.seq + 1,
                what=f"the log ends at record {self._last.seq}, its head says {expected.seq}",
            )
        return Verdict(records=self._last.seq, head=self._last.hash.hex(), fault=self._fault)

    def _check(self, link: Link) -> Fault | None:
        expected = self._last.seq + 1
        if link.seq != expected:
            return Fault(expected, f"record {expected} is missing: {link.seq} comes next")
        if link.previous_hash != self._last.hash:
            return Fault(expected, f"record {expected} does not follow the one before it")
        if link.hash != link_hash(self._last.hash, link.seq, link.body):
            return Fault(expected, f"record {expected} was changed after it was written")
        return None


def link_hash(previous: bytes, seq: int, body: str) -> bytes:
    """Return the hash that record `seq` must have."""
    return hashlib.sha256(previous + seq.to_bytes(8, "big") + body.encode()).digest()


async def verify(tx: Transaction) -> Verdict:
    """Verify the whole chain of the tenant of a `snapshot` transaction."""
    verifier = Verifier()
    async for page in _pages(tx):
        verifier.feed(page)
    row = await tx.one("audit.head")
    return verifier.conclude(Head(**row) if row else None)


async def _pages(tx: Transaction) -> AsyncIterator[list[Link]]:
    after = 0
    while True:
        rows = await tx.all("audit.chain", after=after, limit=PAGE)
        if not rows:
            return
        yield [Link(**row) for row in rows]
        after = rows[-1]["seq"]
