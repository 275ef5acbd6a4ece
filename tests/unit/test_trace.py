"""Places in traces, as W3C Trace Context writes them."""

import pytest

from runner.words.trace import LONGEST, TracePlace

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-adds", True),
    ],
)
def test_a_valid_traceparent_is_read(text: str, sampled: bool) -> None:
    assert TracePlace.read(text) == TracePlace(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}\u0663-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-{'x' * LONGEST}",
    ],
)
def test_anything_else_is_as_if_there_were_none(text: str) -> None:
    assert TracePlace.read(text) is None


def test_what_is_written_is_read_again() -> None:
    place = TracePlace.new(sampled=True)
    assert TracePlace.read(place.text) == place
    assert TracePlace.read(place.decided(sampled=False).text) == place.decided(sampled=False)


def test_a_child_is_another_span_of_the_same_trace() -> None:
    place = TracePlace.new(sampled=True)
    child = place.child()
    assert (child.trace_id, child.sampled) == (place.trace_id, True)
    assert child.span_id != place.span_id
