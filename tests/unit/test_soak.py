"""The soak counts everything that is lost, doubled or another's as broken."""

import pytest

from agent_runner import OutputEvent
from benchmarks.resident_work import WRITER, Findings, Followed, expected


def piece(offset: int, size: int) -> OutputEvent:
    """Return output of the writer from here on."""
    return OutputEvent("stdout", offset + size, expected(offset, size))


def gap(offset: int, size: int) -> OutputEvent:
    """Return a gap from here on."""
    return OutputEvent("gap", offset + size, b"", size)


END = OutputEvent("ended", 30, b"", exit_code=0)


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ((piece(0, 10), piece(10, 20), END), 0),
        ((piece(0, 10), gap(10, 5), piece(15, 15), END), 0),
        ((piece(0, 10), piece(15, 15), END), 1),
        ((piece(0, 10), piece(5, 10)), 1),
        ((piece(0, 10), piece(0, 10)), 1),
        ((piece(0, 10), gap(5, 10)), 1),
        ((piece(0, 10), END), 1),
    ],
    ids=["whole", "told", "lost", "overlapping", "doubled", "gap doubled", "end lost"],
)
def test_output_must_go_on_where_it_ended(events: tuple[OutputEvent, ...], wrong: int) -> None:
    findings = Findings()
    followed = Followed("writer", findings)
    for event in events:
        followed.take(event)
    assert len(findings.wrong) == wrong
    assert followed.offset == events[-1].next_offset


def test_each_byte_of_the_writer_is_known() -> None:
    whole = expected(0, 8000)
    assert whole[:16] == b"0000000\n0000001\n"
    assert [expected(at, 3) for at in range(0, 8000, 7)] == [
        whole[at : at + 3] for at in range(0, 8000, 7)
    ]
    assert "%07d" in WRITER
