"""The arithmetic of the chain, without a database."""

from datetime import UTC, datetime
from uuid import UUID

from runner.audit import events as audit
from runner.audit.chain import ZERO, Head, Link, Verifier, link_hash

TENANT = UUID(int=7)


def links(*bodies: str) -> list[Link]:
    """Return an unbroken chain."""
    made: list[Link] = []
    previous = ZERO
    for seq, body in enumerate(bodies, start=1):
        hash_ = link_hash(previous, seq, body)
        made.append(Link(seq=seq, body=body, previous_hash=previous, hash=hash_))
        previous = hash_
    return made


def test_a_chain_that_holds_has_no_fault() -> None:
    """The links may come in one page or in several."""
    chain = links("a", "b", "c")
    verifier = Verifier()
    verifier.feed(chain[:1])
    verifier.feed(chain[1:])
    verdict = verifier.conclude(Head(3, chain[-1].hash))
    assert (verdict.records, verdict.fault) == (3, None)


def test_an_empty_log_without_a_head_holds() -> None:
    """Nothing was recorded for this tenant yet."""
    assert Verifier().conclude(None).fault is None


def test_a_head_without_its_log_does_not() -> None:
    """Everything was deleted."""
    fault = Verifier().conclude(Head(2, b"x" * 32)).fault
    assert fault is not None
    assert fault.seq == 1


def test_a_record_that_was_put_in_is_found() -> None:
    """It is found even if its own hashes fit."""
    chain, other = links("a", "b", "c"), links("a", "x")
    verifier = Verifier()
    verifier.feed([chain[0], other[1], chain[2]])
    assert verifier.conclude(Head(3, chain[-1].hash)).fault is not None


def test_one_meaning_has_one_text() -> None:
    """In canonical JSON, the order in which metadata was given does not matter."""
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)

    def text(metadata: dict[str, object]) -> str:
        event = audit.AuditEvent("key:a", audit.Action.KEY_CREATE, audit.Outcome.SUCCESS,
                                 metadata=metadata)  # fmt: skip
        return audit.canonical(TENANT, event, event_id=UUID(int=1), at=at)

    assert text({"a": 1, "b": "ü"}) == text({"b": "ü", "a": 1})
    assert '"at":"2026-01-02T03:04:05.000006Z"' in text({})
