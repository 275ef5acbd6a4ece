"""Statements travel to PostgreSQL together, in few round trips."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runner import store
from runner.store.transaction import Transaction, query

QUERIES = Path(store.__file__).with_name("queries")

NAMES = {
    query(name): name
    for name in (
        "audit.append",
        "session.begin",
        "session.commit",
        "session.ping",
        "audit.unsealed",
    )
}


class Answer:
    """PostgreSQL's answer to any statement."""

    statusmessage = "COMMIT"

    async def fetchone(self) -> dict[str, Any]:
        """Return a row."""
        return {"seq": 3, "hash": b""}


class Wire:
    """A connection that shows what came in each of its round trips."""

    def __init__(self) -> None:
        self.trips: list[list[str]] = []
        self._open = False

    @asynccontextmanager
    async def exchange(self) -> AsyncIterator[None]:
        """Record what comes as one round trip."""
        self.trips.append([])
        self._open = True
        yield
        self._open = False

    async def execute(
        self, statement: bytes, values: Mapping[str, Any], **_: bool | None
    ) -> Answer:
        """Record a statement, prepared or not."""
        if not self._open:
            self.trips.append([])
        name = NAMES[statement.decode()]
        self.trips[-1].append(" ".join([name.partition(".")[2], *values.values()]))
        return Answer()


@pytest.fixture
def wire() -> Any:
    """Return a connection."""
    return Wire()


@pytest.fixture
def tx(wire: Any) -> Transaction:
    """Return a transaction that has just been opened."""
    return Transaction(wire, query("session.begin"))


async def test_records_go_with_the_commit(wire: Wire, tx: Transaction) -> None:
    """This holds even if they were added early: no earlier statement locks the chain's head."""
    tx.append_record("1")
    await tx.one("session.ping")
    tx.append_record("2")
    tx.later("audit.unsealed")
    await tx.commit()
    assert wire.trips == [["begin", "ping"], ["unsealed", "append 1", "append 2", "commit"]]


async def test_a_transaction_that_only_records_is_one_round_trip(
    wire: Wire, tx: Transaction
) -> None:
    tx.append_record("1")
    await tx.commit()
    assert wire.trips == [["begin", "append 1", "commit"]]


async def test_what_follows_the_commit_does_not_lose_its_rows_to_the_records(
    wire: Wire, tx: Transaction
) -> None:
    tx.append_record("1")
    behind = tx.afterwards("session.ping")
    await tx.commit()
    assert wire.trips == [["begin", "append 1", "commit", "ping"]]
    assert await behind.one() is not None


async def test_a_record_that_is_written_at_once_takes_those_before_it_along(
    wire: Wire, tx: Transaction
) -> None:
    """They keep their order; later ones go with the end."""
    tx.append_record("1")
    assert (await tx.append_record_now("2"))["seq"] == 3
    tx.append_record("3")
    await tx.commit()
    assert wire.trips == [["begin", "append 1", "append 2"], ["append 3", "commit"]]


async def test_single_statements_take_no_record(wire: Any) -> None:
    """It would never be written."""
    with pytest.raises(RuntimeError, match="no end"):
        Transaction(wire).append_record("1")


STATEMENTS = sorted(
    f"{path.stem}.{name}"
    for path in QUERIES.glob("*.sql")
    for name in re.findall(r"^-- name: (\w+)$", path.read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_has_the_parts_that_it_names(name: str) -> None:
    """What several statements have in common is written once in their file."""
    statement = query(name)
    assert statement.strip().endswith(";")
    assert not re.search(r"\{[a-z_]+\}|^-- part", statement, re.MULTILINE)


def test_each_part_is_used_more_than_once() -> None:
    for path in QUERIES.glob("*.sql"):
        text = path.read_text()
        for part in re.findall(r"^-- part: (\w+)$", text, re.MULTILINE):
            assert text.count(f"{{{part}}}") > 1, (path.name, part)
