"""Exports verified by themselves: a finding says what was done to a file, and at which record."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from runner.audit import checkpoints, events, export, offline
from runner.audit.chain import ZERO, Head, Link, link_hash
from runner.audit.offline import Kind
from runner.base.signing import Signer

TENANT, OTHER = UUID(int=7), UUID(int=8)
AT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
RECORDS = 6


@dataclass(frozen=True)
class Made:
    """An unbroken log, its export and its signer."""

    signer: Signer
    links: list[Link]
    lines: list[str]

    def checkpoint(self, seq: int) -> str:
        """Return a checkpoint of one of its records."""
        return checkpoints.sign(self.signer, TENANT, Head(seq, self.links[seq - 1].hash), AT)


def chain(records: int, *, tenant: UUID = TENANT) -> list[Link]:
    """Return an unbroken chain."""
    made: list[Link] = []
    previous = ZERO
    for seq in range(1, records + 1):
        event = events.AuditEvent(
            actor="key:a",
            action=events.Action.EXECUTION_END,
            outcome=events.Outcome.SUCCESS,
            metadata={"number": seq, "text": "ünï ☃", "wall_s": 0.1},
        )
        body = events.canonical(tenant, event, event_id=UUID(int=seq), at=AT)
        made.append(Link(seq, body, previous, link_hash(previous, seq, body)))
        previous = made[-1].hash
    return made


def head_line(signer: Signer, filter_: dict[str, str] | None = None) -> str:
    """Return the first line of an export."""
    keys = [{"id": key.id, "pem": key.pem} for key in signer.public_keys]
    body = {"tenant": str(TENANT), "exported_at": events.timestamp(AT), "filter": filter_}
    return json.dumps({"type": export.KIND, "body": body, "keys": keys})


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return an export of six records."""
    signer, links = Signer.open(tmp_path), chain(RECORDS)
    sealed = checkpoints.sign(signer, TENANT, Head(RECORDS, links[-1].hash), AT)
    return Made(signer, links, [head_line(signer), *map(export.line, links), sealed])


def found(lines: list[str], **options: object) -> list[tuple[Kind, int]]:
    """Return what is wrong with an export."""
    report = offline.verify(lines, **options)  # type: ignore[arg-type]
    return [(each.kind, each.seq) for each in report.findings]


def test_an_export_that_nobody_touched_holds(made: Made) -> None:
    """The keys in the file, and those that the reader has, both verify it."""
    report = offline.verify(made.lines)
    assert (report.findings, report.records, report.filtered) == ((), RECORDS, False)
    assert report.checkpoint is not None
    assert (report.checkpoint.seq, report.checkpoint.key) == (RECORDS, made.signer.key_id)
    assert found(made.lines, keys=made.signer.public_keys) == []


def test_lines_written_anew_by_another_tool_still_hold(made: Made) -> None:
    """The hash covers the canonical form, so order and spaces do not matter."""
    again = [json.dumps(json.loads(line), sort_keys=False, indent=None) for line in made.lines]
    assert found(again) == []


def rehashed(made: Made, seq: int) -> list[str]:
    """Return the lines with one record changed and its own hash adjusted."""
    link = made.links[seq - 1]
    body = link.body.replace("key:a", "key:b")
    forged = Link(seq, body, link.previous_hash, link_hash(link.previous_hash, seq, body))
    return [*made.lines[:seq], export.line(forged), *made.lines[seq + 1 :]]


def rewritten(made: Made) -> list[str]:
    """Return the lines with every record from the third on made anew, so that the chain fits."""
    forged, previous = made.links[:2], made.links[1].hash
    for link in made.links[2:]:
        body = link.body.replace("key:a", "key:b")
        forged.append(Link(link.seq, body, previous, link_hash(previous, link.seq, body)))
        previous = forged[-1].hash
    return [made.lines[0], *map(export.line, forged), made.lines[-1]]


def swapped(lines: list[str], one: int, other: int) -> list[str]:
    """Return the lines with two of them swapped."""
    lines = list(lines)
    lines[one], lines[other] = lines[other], lines[one]
    return lines


TAMPERINGS: dict[str, tuple[Callable[[Made], list[str]], list[tuple[Kind, int]]]] = {
    "a record changed": (
        lambda m: [m.lines[0], *(line.replace('"number":3', '"number":9') for line in m.lines[1:])],
        [(Kind.CHANGED, 3)],
    ),
    "a record changed with its hash": (lambda m: rehashed(m, 3), [(Kind.CHANGED, 4)]),
    "the last record changed with its hash": (lambda m: rehashed(m, 6), [(Kind.CHANGED, 6)]),
    "the chain made anew": (rewritten, [(Kind.CHANGED, 6)]),
    "the first record left out": (lambda m: m.lines[:1] + m.lines[2:], [(Kind.MISSING, 1)]),
    "two records left out": (lambda m: m.lines[:3] + m.lines[5:], [(Kind.MISSING, 3)]),
    "two records changed over": (lambda m: swapped(m.lines, 3, 4), [(Kind.REORDERED, 3)]),
    "a record twice": (
        lambda m: [*m.lines[:4], m.lines[3], *m.lines[4:]], [(Kind.REORDERED, 3)],
    ),
    "the tail cut": (lambda m: [*m.lines[:5], m.lines[-1]], [(Kind.TRUNCATED, 5)]),
    "tail and checkpoint cut": (lambda m: m.lines[:5], [(Kind.TRUNCATED, 5)]),
    "the checkpoint cut": (lambda m: m.lines[:-1], [(Kind.TRUNCATED, 7)]),
    "cut in the middle of a line": (
        lambda m: [*m.lines[:4], m.lines[4][:50]], [(Kind.MALFORMED, 0), (Kind.TRUNCATED, 4)],
    ),
    "the checkpoint's number changed": (
        lambda m: [*m.lines[:-1], m.lines[-1].replace('"seq":6', '"seq":5')],
        [(Kind.BAD_SIGNATURE, 0)],
    ),
    "a record added behind the checkpoint": (
        lambda m: [*m.lines, m.lines[2]], [(Kind.MALFORMED, 0)],
    ),
    "records beyond an earlier checkpoint": (
        lambda m: [*m.lines[:-1], m.checkpoint(4)], [(Kind.MALFORMED, 5)],
    ),
    "a name twice in a record": (
        lambda m: [*m.lines[:2], m.lines[2].replace('"actor"', '"actor":"key:x","actor"'),
                   *m.lines[3:]],
        [(Kind.MALFORMED, 0), (Kind.MISSING, 2)],
    ),
    "nothing at all": (lambda _: [], [(Kind.TRUNCATED, 1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_and_named(name: str, made: Made) -> None:
    """Each kind of tampering is found at the record where it shows."""
    tamper, expected = TAMPERINGS[name]
    assert found(tamper(made)) == expected


def test_without_the_checkpoint_a_chain_made_anew_would_pass(made: Made) -> None:
    """The control: the arithmetic alone is right; only the signature shows the forgery."""
    report = offline.verify(rewritten(made)[:-1])
    assert [each.kind for each in report.findings] == [Kind.TRUNCATED], "its end is all it lacks"


def test_a_key_of_the_forgers_own_is_refused_by_a_reader_who_has_ours(
    made: Made, tmp_path: Path
) -> None:
    """A file that brings its own key proves only that; this is why there is `--key`."""
    forger = Signer.open(tmp_path / "forger")
    lines = rewritten(made)
    last = json.loads(lines[-2])
    sealed = checkpoints.sign(forger, TENANT, Head(RECORDS, bytes.fromhex(last["hash"])), AT)
    lines = [head_line(forger), *lines[1:-1], sealed]
    assert found(lines) == []
    assert found(lines, keys=made.signer.public_keys) == [(Kind.BAD_SIGNATURE, 0)]


def test_records_of_another_tenant_do_not_pass(made: Made) -> None:
    """Their chain is unbroken and sealed by the same deployment, but for another tenant."""
    links = chain(RECORDS, tenant=OTHER)
    sealed = checkpoints.sign(made.signer, OTHER, Head(RECORDS, links[-1].hash), AT)
    kinds = {kind for kind, _ in found([made.lines[0], *map(export.line, links), sealed])}
    assert kinds == {Kind.CHANGED, Kind.BAD_SIGNATURE}


def test_an_older_export_passed_off_as_new_is_found_by_a_later_checkpoint(made: Made) -> None:
    """That one is kept elsewhere: the file alone cannot show that the log continued."""
    old = [*made.lines[:5], made.checkpoint(4)]
    assert found(old) == []
    log_line = json.dumps({"event": "audit_checkpoint", "checkpoint": made.checkpoint(6)})
    noise = ["not JSON", "[]", json.dumps({"event": "request"})]
    known = offline.points([*noise, log_line], made.signer.public_keys, str(TENANT))
    assert [each.seq for each in known] == [6]
    assert found(old, known=known) == [(Kind.TRUNCATED, 5)]
    assert found(rewritten(made)[:5], known=[offline.points([made.checkpoint(3)],
                 made.signer.public_keys, str(TENANT))[0]])[0] == (Kind.CHANGED, 3)  # fmt: skip


def test_a_selection_says_so_and_what_is_in_it_is_checked(made: Made) -> None:
    """Gaps are not reported; a changed record, a wrong order and a wrong signature are."""
    head = head_line(made.signer, {"actor": "key:a"})
    lines = [head, made.lines[2], made.lines[4], made.lines[-1]]
    report = offline.verify(lines)
    assert (report.filtered, report.findings, report.records) == (True, (), 2)
    assert found(swapped(lines, 1, 2)) == [(Kind.REORDERED, 2)]
    assert found([head, lines[1].replace('"number":2', '"number":5'), *lines[2:]]) == [
        (Kind.CHANGED, 2)
    ]
    assert found(lines[:-1]) == [(Kind.TRUNCATED, 5)]


@pytest.mark.parametrize(
    "line",
    ["", "null", "[" * 100_000, '{"seq": 1e999}', '{"seq":1,"hash":"x","previous_hash":"y"}',
     f'{{"seq":{10**30},"hash":"{"0" * 64}","previous_hash":"{"0" * 64}","record":{{}}}}',
     '{"seq":1,"hash":"' + "g" * 64 + '","previous_hash":"' + "0" * 64 + '","record":{}}'],
)  # fmt: skip
def test_a_line_that_is_none_is_told_and_nothing_breaks(line: str, made: Made) -> None:
    """A file may contain anything."""
    assert (Kind.MALFORMED, 0) in found([made.lines[0], line])
    assert (Kind.MALFORMED, 0) in found([line, *made.lines[1:]])


def test_findings_are_bounded(made: Made) -> None:
    """This holds for a file full of garbage of any length."""
    assert len(found(["rubbish"] * 5000)) <= offline.MAX_FINDINGS
