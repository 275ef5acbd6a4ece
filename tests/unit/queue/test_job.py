"""A job's payload is a ring with two ids, or it is refused."""

import json
import zlib
from uuid import UUID

import pytest

from runner.queue.ring import MAX_PAYLOAD_BYTES, RING, Ring, parse

A = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"
B = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d3"


def payload(*call: object) -> bytes:
    """Return a payload as JSON."""
    return json.dumps(call).encode()


@pytest.mark.parametrize("compress", [False, True])
def test_a_ring_is_read(compress: bool) -> None:
    """RQ compresses what it writes, and reads both forms."""
    data = payload(RING, None, [A, B], {})
    found = parse(zlib.compress(data) if compress else data)
    assert found == Ring(UUID(A), UUID(B))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"\x80\x04.", "not JSON"),
        (b"[" * 400, "not JSON"),
        (b"{}", "not a ring"),
        (payload("os.system", None, ["true"], {}), "os.system"),
        (payload("os.system"), "os.system"),
        (payload(RING, None, [A], {}), "not a ring"),
        (payload(RING, None, [A, B], {"x": 1}), "not a ring"),
        (payload(RING, "instance", [A, B], {}), "not a ring"),
        (payload(RING, None, [A, 1], {}), "not a ring"),
        (payload(RING, None, [A, "x"], {}), "no ids"),
        (b" " * (MAX_PAYLOAD_BYTES + 1), "oversized"),
        (zlib.compress(b" " * 10**7), "oversized"),
    ],
)
def test_anything_else_is_refused_with_its_reason(data: bytes, why: str) -> None:
    """It is never run, and its meaning is never guessed."""
    with pytest.raises(ValueError, match=why):
        parse(data)
