"""The stress test counts our failures as broken, and never as refusals."""

import pytest

from benchmarks.attacks import Book, Reply, exchange
from benchmarks.invariants import Visits
from benchmarks.stress import ERROR


@pytest.mark.parametrize(
    ("status", "headers", "wrong"),
    [
        (200, {}, False),
        (429, {}, False),
        (503, {"retry-after": "2"}, False),
        (503, {}, True),
        (503, {"retry-after": "soon"}, True),
        (500, {"retry-after": "2"}, True),
        (501, {}, True),
    ],
)
def test_a_5xx_is_right_only_as_a_503_that_says_when_to_come_back(
    status: int, headers: dict[str, str], wrong: bool
) -> None:
    book = Book()
    book.note("somebody", Reply(status, headers, b'{"title": "t"}'))
    assert bool(book.wrong) is wrong
    assert book.answers == {("somebody", status): 1}


def test_books_are_added_up() -> None:
    """The attacking process and the measuring one each keep their own books."""
    ours, theirs = Book(accepted=["a"]), Book(accepted=["b"])
    theirs.note("viewer", Reply(500, {}, b"{}"))
    ours.add(theirs)
    assert ours.accepted == ["a", "b"]
    assert sum(ours.wrong.values()) == 1


def test_an_answer_that_was_cut_off_is_known() -> None:
    assert Reply(200, {"content-length": "2"}, b"ok").complete
    assert not Reply(200, {"content-length": "3"}, b"ok").complete


async def test_a_program_that_runs_twice_is_broken_unless_it_asked_for_that() -> None:
    """The server that is visited counts, whatever the deployment has on record."""
    async with Visits.counted() as visits:
        assert visits.unasked(Book()), "a server that nobody can reach shows nothing"
        for path in ("/fail/once", "/fail/twice", "/fail/twice", "/retry/twice", "/retry/twice"):
            said = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            assert (await exchange(visits.port, said.encode())).body == b"ok"
    book = Book()
    assert visits.unasked(book) == ["the program that visited /fail/twice ran 2 times"]
    assert book.done["programs that visited"] == 3


def test_the_reason_of_a_failure_is_found_in_a_traceback_and_in_a_group() -> None:
    plain = "Traceback (most recent call last):\n  File x\nRuntimeError: no"
    group = (
        "  + Exception Group Traceback:\n  | ExceptionGroup: many (1 sub-exception)\n"
        "    | psycopg.OperationalError: away\n    +----------------"
    )
    assert ERROR.findall(plain)[-1] == "RuntimeError: no"
    assert ERROR.findall(group)[-1] == "psycopg.OperationalError: away"
