"""Results for a model are short, of whole characters, and honest about what is missing."""

import subprocess
import sys

import pytest

from runner.api.mcp.results import HALF, MAX_TEXT, Excerpt, outputs, picture_type
from runner.api.mcp.tools import TOOLS


def excerpt(*pieces: bytes) -> Excerpt:
    """Return an excerpt of these pieces."""
    made = Excerpt()
    for each in pieces:
        made.take(each)
    return made


def test_short_output_is_kept_as_it_is() -> None:
    assert str(excerpt(b"one\n", b"two\n")) == "one\ntwo\n"
    assert str(excerpt(b"x" * MAX_TEXT)) == "x" * MAX_TEXT


@pytest.mark.parametrize("step", [1000, HALF, 10 * HALF])
def test_long_output_keeps_its_beginning_and_end_and_says_what_is_missing(step: int) -> None:
    whole = b"first" + b"." * (5 * MAX_TEXT) + b"last"
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    said = str(excerpt(*pieces))
    assert said.startswith("first") and said.endswith("last")
    assert f"[… {len(whole) - MAX_TEXT:,} of {len(whole):,} bytes left out here …]" in said
    assert len(said) < MAX_TEXT + 100


def test_no_character_is_cut() -> None:
    said = str(excerpt(("€" * MAX_TEXT).encode()))
    assert "\N{REPLACEMENT CHARACTER}" not in said


def test_bytes_that_the_sandbox_lost_are_counted() -> None:
    made = excerpt(b"some")
    made.lose(100)
    assert "[… 100 of 104 bytes left out here …]" in str(made)


def test_memory_stays_bounded_however_much_is_written() -> None:
    made = Excerpt()
    for _ in range(1000):
        made.take(b"x" * 100_000)
    assert made.total == 100_000_000
    assert sys.getsizeof(made._tail) < 10 * HALF + 200_000


def test_progress_shows_the_last_line_without_control_characters() -> None:
    assert excerpt(b"one\n", b"two\x1b[31m\n\n").last_line == "two\N{REPLACEMENT CHARACTER}[31m"
    assert excerpt().last_line == ""


def test_what_is_empty_is_left_out() -> None:
    assert outputs(excerpt(b"a\n"), excerpt()) == ["stdout:\na"]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0....", "image/jpeg"),
        (b"GIF89a......", "image/gif"),
        (b"RIFF....WEBP", "image/webp"),
        (b"RIFF....WAVE", None),
        (b"<svg></svg>", None),
        (b"", None),
    ],
)
def test_a_picture_is_known_by_its_bytes(head: bytes, kind: str | None) -> None:
    assert picture_type(head) == kind


def test_every_tool_describes_its_arguments() -> None:
    """Models read the schema: an object, closed, without references that clients may not follow."""
    for tool in TOOLS.values():
        schema = tool.schema
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        assert "$ref" not in str(schema)
        assert tool.description.endswith(".")


def test_the_sdk_is_loaded_by_the_first_request_and_not_before() -> None:
    """It takes 20 MiB and most of a second, which the other deployments keep."""
    program = (
        "import sys, typer.main, runner.api.app, runner.cli.app\n"
        "table = typer.main.get_command(runner.cli.app.app).commands\n"
        "[table[name] for name in table]\n"
        "print('mcp' in sys.modules)"
    )
    loaded = [
        subprocess.run(
            [sys.executable, "-c", each], capture_output=True, text=True, check=True
        ).stdout.strip()
        for each in (program, f"import runner.api.mcp.server\n{program}")
    ]
    assert loaded == ["False", "True"]
