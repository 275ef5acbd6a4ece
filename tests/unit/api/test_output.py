"""An answer describes a stream whose output was cut."""

import pytest

from runner.api.views import OutputView
from runner.store.executions import joined
from runner.words.execution import Output, Stream

NOTE = b"[egress] refused: a.test:443\n"


def view(*pieces: tuple[bytes, dict[str, object]], total_bytes: int) -> OutputView:
    """Return the view of a stderr of which these pieces are stored."""
    rows = [{"kind": "stderr", "chunk": chunk, "data": data} for chunk, data in pieces]
    stored = joined(rows)[Stream.STDERR]
    return OutputView.of(stored, Output(total_bytes=total_bytes, truncated=True))


@pytest.mark.parametrize("total_bytes", [8 + 1, 8 + len(NOTE), 8 + 10_000])
def test_a_note_hides_no_byte_that_was_left_out(total_bytes: int) -> None:
    """A program decides how much it writes, and which requests of it are refused."""
    shown = view((b"one\ntwo\n", {}), (NOTE, {"note": True}), total_bytes=total_bytes)
    assert shown.omitted_bytes == total_bytes - 8
    assert shown.omitted_at == len(shown.content) == 8 + len(NOTE)


def test_a_gap_is_where_it_is_also_behind_a_note() -> None:
    """The gap's place counts bytes of `content`, which includes the note."""
    shown = view(
        (b"one\n", {}),
        (NOTE, {"note": True}),
        (b"end\n", {"omitted_bytes": 100}),
        (NOTE, {"note": True}),
        total_bytes=108,
    )
    assert (shown.omitted_bytes, shown.omitted_at) == (100, 4 + len(NOTE))
    assert shown.content[shown.omitted_at :] == f"end\n{NOTE.decode()}"
