"""Verification of an export by itself: no server, no database, one pass, bounded memory.

It tells whether the file is what the holder of the signing key sealed. It cannot tell whether the
log continued afterwards. The checkpoint's time says how old the statement is, and a later
checkpoint that you hold elsewhere (`points`) shows that a tail is missing.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import rfc8785

from runner.audit import checkpoints, export
from runner.audit.chain import START, Head, link_hash
from runner.audit.checkpoints import Checkpoint
from runner.base.signing import BadSignature, PublicKey, read_public_key
from runner.words.json import RepeatedKey, read_json

MAX_FINDINGS = 100
MAX_SEQ = 2**62


class Kind(StrEnum):
    """A fault of an export."""

    CHANGED = "changed"
    MISSING = "missing"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    BAD_SIGNATURE = "bad signature"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, at the record of that number; 0 if it is not about one record."""

    kind: Kind
    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of an export, and its faults."""

    tenant: str | None
    records: int
    filtered: bool
    checkpoint: Checkpoint | None
    keys: tuple[PublicKey, ...]
    """The keys by which it was verified."""
    findings: tuple[Finding, ...]


class NotALine(ValueError):
    """This is not a line of an export."""


_UNREADABLE = (ValueError, TypeError, KeyError, RecursionError, rfc8785.CanonicalizationError)


@dataclass(slots=True)
class _Reader:
    """The progress of the pass."""

    keys: tuple[PublicKey, ...] | None
    known: Sequence[Checkpoint]
    tenant: str | None = None
    filtered: bool = False
    records: int = 0
    last: Head = START
    absent: set[tuple[int, int]] = field(default_factory=set)
    checkpoint: Checkpoint | None = None
    ended: bool = False
    findings: list[Finding] = field(default_factory=list)

    def find(self, kind: Kind, seq: int, what: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind, seq, what))

    def header(self, value: dict[str, Any]) -> None:
        match value:
            case {"type": export.KIND, "body": {"tenant": str(tenant), "filter": filter_}}:
                self.tenant, self.filtered = tenant, filter_ is not None
            case _:
                raise NotALine("the first line is not the head of an export")
        if self.keys is None:
            self.keys = _keys_in(value)

    def record(self, value: dict[str, Any]) -> None:
        match value:
            case {"seq": int(seq), "hash": str(hash_), "previous_hash": str(previous)}:
                record = value.get("record")
            case _:
                raise NotALine("neither a record nor a checkpoint")
        # To Python, JSON's `true` is an int, and `fromhex` skips blanks.
        hashes = checkpoints.is_hash(hash_) and checkpoints.is_hash(previous)
        if not hashes or type(seq) is not int or not 0 < seq <= MAX_SEQ:
            raise NotALine("its number or a hash of it is none")
        own, before = bytes.fromhex(hash_), bytes.fromhex(previous)
        body = rfc8785.dumps(record).decode()
        self.records += 1
        if link_hash(before, seq, body) != own:
            self.find(Kind.CHANGED, seq, f"record {seq} is not what its hash was made of")
        elif not isinstance(record, dict) or record.get("tenant") != self.tenant:
            self.find(Kind.CHANGED, seq, f"record {seq} is of another tenant")
        self._place(seq, own, before)

    def _place(self, seq: int, own: bytes, before: bytes) -> None:
        expected = self.last.seq + 1
        if seq < expected:
            self._late(seq)
            return
        if seq > expected and not self.filtered:
            self.absent.add((expected, seq - 1))
        elif seq == expected and before != self.last.hash:
            self.find(Kind.CHANGED, seq, f"record {seq} does not follow the one before it")
        self._compare(Head(seq, own))
        self.last = Head(seq, own)

    def _late(self, seq: int) -> None:
        self.find(Kind.REORDERED, seq, f"record {seq} comes after record {self.last.seq}")
        for first, last in self.absent:
            if first <= seq <= last:
                self.absent.remove((first, last))
                self.absent.update(
                    gap for gap in ((first, seq - 1), (seq + 1, last)) if gap[0] <= gap[1]
                )
                return

    def _compare(self, place: Head) -> None:
        for pin in (each.pin for each in self.known):
            if pin.seq == place.seq and pin.hash != place.hash:
                what = f"record {pin.seq} is not the one of {pin.source}"
                self.find(Kind.CHANGED, pin.seq, what)

    def end(self, text: str) -> None:
        self.ended = True
        try:
            found = checkpoints.read(text, self.keys or (), self.tenant)
        except BadSignature as error:
            self.find(Kind.BAD_SIGNATURE, 0, f"the checkpoint does not hold: {error}")
            return
        self.checkpoint = found
        if found.seq == self.last.seq and found.hash != self.last.hash:
            what = f"record {found.seq} is not the one of {found.pin.source}"
            self.find(Kind.CHANGED, found.seq, what)
        if found.seq < self.last.seq:
            what = f"the records from {found.seq + 1} on are beyond the checkpoint"
            self.find(Kind.MALFORMED, found.seq + 1, what)

    def conclude(self) -> Report:
        last = self.last.seq
        for first, until in sorted(self.absent):
            which = f"record {first} is" if first == until else f"records {first} to {until} are"
            self.find(Kind.MISSING, first, f"{which} missing")
        if not self.ended:
            self.find(Kind.TRUNCATED, last + 1, f"the file ends after record {last}, unsealed")
        if not self.filtered:
            for sealed in (*([self.checkpoint] if self.checkpoint else []), *self.known):
                if sealed.seq > last:
                    what = f"it ends at record {last}; {sealed.pin.source} has record {sealed.seq}"
                    self.find(Kind.TRUNCATED, last + 1, what)
        return Report(
            self.tenant,
            self.records,
            self.filtered,
            self.checkpoint,
            self.keys or (),
            tuple(self.findings),
        )


def verify(
    lines: Iterable[str],
    keys: tuple[PublicKey, ...] | None = None,
    known: Sequence[Checkpoint] = (),
) -> Report:
    """Verify an export, line by line.

    Without `keys`, it uses those in the export itself: that finds damage, but not a forger. `known`
    are checkpoints held elsewhere: the log must pass through each of them.
    """
    reader = _Reader(keys, known)
    for number, text in enumerate(lines, start=1):
        try:
            _read(reader, number, text.rstrip("\n"))
        except _UNREADABLE as error:
            why = error if isinstance(error, NotALine) else "not JSON of an export"
            reader.find(Kind.MALFORMED, 0, f"line {number}: {why}")
    return reader.conclude()


def points(lines: Iterable[str], keys: tuple[PublicKey, ...], tenant: str) -> list[Checkpoint]:
    """Return the tenant's checkpoints in an export, in lines of our log, or one to a line.

    Raises BadSignature for one that none of these keys signed.
    """
    found = []
    for text in lines:
        document = _checkpoint_in(text)
        if document is None:
            continue
        point = checkpoints.read(document, keys)
        if point.tenant == tenant:
            found.append(point)
    return found


def _checkpoint_in(text: str) -> str | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if value.get("type") == checkpoints.KIND:
        return text.strip()
    logged = value.get("checkpoint")
    return logged if isinstance(logged, str) else None


def _read(reader: _Reader, number: int, text: str) -> None:
    if reader.ended:
        raise NotALine("there is more after the checkpoint")
    try:
        value = read_json(text)
    except RepeatedKey:
        raise NotALine("a name appears twice") from None
    if not isinstance(value, dict):
        raise NotALine("not an object")
    if number == 1:
        reader.header(value)
    elif value.get("type") == checkpoints.KIND:
        reader.end(text)
    else:
        reader.record(value)


def _keys_in(header: dict[str, Any]) -> tuple[PublicKey, ...]:
    match header.get("keys"):
        case [*entries]:
            pems = [each["pem"] for each in entries]
            if all(isinstance(pem, str) for pem in pems):
                return tuple(read_public_key(pem) for pem in pems)
    raise NotALine("its keys are none")
