"""Lists fit a terminal, have one line per row in a pipe, and are exact as JSON."""

import io
import json
from datetime import UTC, datetime

import pytest
from rich.console import Console

from agent_runner.types import Stream
from runner.cli import listing
from runner.cli.listing import Column, print_json, print_rows

ID = "01a22422-63e4-76d9-b79d-e3423dccb431"
ROWS = [(ID, "output_limit_exceeded", "a reason that is longer than any terminal " * 3)]
ALL = {"omitted_bytes": 0, "omitted_at": None}
COLUMNS = (Column("id", whole=True), "state", "reason")


def test_in_a_pipe_each_row_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is cut, however long it is, and nothing follows it."""
    print_rows(COLUMNS, ROWS, none="")
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "state", "reason"]
    assert row.startswith(ID)
    assert row.endswith(ROWS[0][2].rstrip())


def test_on_a_terminal_of_80_columns_an_id_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other long values continue on the next line."""
    screen = io.StringIO()
    monkeypatch.setattr(
        listing, "out", Console(file=screen, force_terminal=True, color_system=None, width=80)
    )
    print_rows(COLUMNS, ROWS, none="")
    shown = screen.getvalue()
    assert ID in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_none_are_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """So a pipe gets nothing."""
    print_rows(COLUMNS, [], none="there are no executions")
    assert capsys.readouterr() == ("", "there are no executions\n")


def test_a_foreign_name_neither_styles_nor_steers(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("name",), [("[red]a\x1b[2J",)], none="")
    assert capsys.readouterr().out == "name\n[red]a\\x1b[2J\n"


def test_json_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    """It holds output as the API sends it: as text, or as base64 if it is not text."""
    print_json(
        {
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            "text": Stream("é".encode(), truncated=False, total_bytes=2),
            "bytes": Stream(b"\xff", truncated=True, total_bytes=9),
        }
    )
    assert json.loads(capsys.readouterr().out) == {
        "at": "2026-01-02T00:00:00+00:00",
        "text": {"content": "é", "encoding": "utf-8", "truncated": False, "total_bytes": 2, **ALL},
        "bytes": {
            "content": "/w==",
            "encoding": "base64",
            "truncated": True,
            "total_bytes": 9,
            **ALL,
        },
    }
