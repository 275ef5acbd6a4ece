"""The Connect protocol's bytes: whatever a client sends is bounded, and refused in its words."""

import json
import struct
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.api.e2b.daemon import connect
from runner.api.e2b.daemon.connect import Code, ConnectError, Envelopes, envelope, last

payloads = st.lists(st.binary(max_size=300), max_size=8)


def framed(*messages: bytes, flags: int = 0) -> bytes:
    """Return messages as a client sends them."""
    return b"".join(struct.pack(">BI", flags, len(each)) + each for each in messages)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the same bytes in pieces."""
    ends = sorted({each % (len(data) + 1) for each in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


@given(payloads, st.lists(st.integers(0, 10_000), max_size=20))
def test_messages_are_the_same_however_they_are_cut(
    messages: list[bytes], places: list[int]
) -> None:
    envelopes = Envelopes()
    found = [each for piece in cut(framed(*messages), places) for each in envelopes.feed(piece)]
    envelopes.finish()
    assert found == messages


@given(st.binary(max_size=400), st.integers(1, 200))
def test_any_bytes_are_read_or_refused_and_little_is_held(data: bytes, most: int) -> None:
    envelopes = Envelopes(most)
    with suppress(ConnectError):
        for each in cut(data, list(range(0, len(data), 7))):
            for message in envelopes.feed(each):
                assert len(message) <= most
        envelopes.finish()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (framed(b"{}", flags=1), Code.UNIMPLEMENTED),
        (framed(b"{}", flags=2), Code.INVALID_ARGUMENT),
        (framed(b"{}", flags=128), Code.INVALID_ARGUMENT),
        (struct.pack(">BI", 0, 2**32 - 1), Code.RESOURCE_EXHAUSTED),
    ],
    ids=["compressed", "an end", "an unknown flag", "four GiB"],
)
def test_what_a_client_may_not_send_is_refused_by_its_head(data: bytes, code: Code) -> None:
    with pytest.raises(ConnectError) as refused:
        list(Envelopes().feed(data))
    assert refused.value.code is code


def test_a_message_at_the_bound_is_taken_and_one_above_is_not() -> None:
    assert list(Envelopes(4).feed(framed(b"1234"))) == [b"1234"]
    with pytest.raises(ConnectError):
        list(Envelopes(4).feed(framed(b"12345")))


def test_a_stream_may_not_end_inside_a_message() -> None:
    envelopes = Envelopes()
    assert list(envelopes.feed(framed(b"whole") + b"\0\0")) == [b"whole"]
    with pytest.raises(ConnectError, match="inside"):
        envelopes.finish()


def test_an_answer_is_a_frame_and_the_end_says_how_it_went() -> None:
    assert envelope({"a": "ü"}) == b"\x00" + (10).to_bytes(4, "big") + '{"a":"ü"}'.encode()
    assert last() == b"\x02" + (2).to_bytes(4, "big") + b"{}"
    failed = last(ConnectError(Code.NOT_FOUND, "no such thing"))
    assert failed[0] == 2
    told = {"error": {"code": "not_found", "message": "no such thing"}}
    assert json.loads(failed[5:]) == told


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("0", None), ("1500", 1.5), ("9999999999", 9_999_999.999)]
)
def test_a_time_limit_is_in_milliseconds(header: str | None, seconds: float | None) -> None:
    assert connect.timeout(header) == seconds


@pytest.mark.parametrize("header", ["", "-1", "1.5", "1e3", "12345678901", "٣", " 5"])
def test_any_other_time_limit_is_refused(header: str) -> None:
    with pytest.raises(ConnectError) as refused:
        connect.timeout(header)
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_only_this_version_without_compression_is_spoken() -> None:
    connect.check(None, None)
    connect.check("1", "identity")
    with pytest.raises(ConnectError, match="Version"):
        connect.check("2", None)
    with pytest.raises(ConnectError) as refused:
        connect.check("1", "gzip")
    assert refused.value.code is Code.UNIMPLEMENTED
