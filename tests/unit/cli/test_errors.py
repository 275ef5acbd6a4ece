"""A command that fails says so in words, whatever strangers have put into them."""

import pytest
import typer

from runner.cli.console import fail, read_settings, reports_errors
from runner.words.errors import SetupError

HOSTILE = "state/\x1b]0;taken\x07\x9b2J[bold]\u202ecod.pub"
"""A file's name that clears a terminal, sets its title, styles text and reorders it."""


def test_a_name_in_an_error_does_not_control_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit):
        fail(f"{HOSTILE} is missing")
    told = capsys.readouterr().err
    assert told == ("error: state/\\x1b]0;taken\\x07\\x9b2J[bold]\\u202ecod.pub is missing\n")


def test_an_error_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors
    def command() -> None:
        raise SetupError("one\ntwo")

    with pytest.raises(typer.Exit):
        command()
    assert capsys.readouterr().err == "error: one\ntwo\n"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("RUNNER_POL", "RUNNER_POOL"),
        ("RUNNER_DATABASE_API_ULR", "RUNNER_DATABASE_API_URL"),
        ("RUNNER_APIKEY", "RUNNER_API_KEY"),
        ("RUNNER_POOL", None),
        ("RUNNER_URL", None),
        ("RUNNER_SERVICE_HOST", None),
        ("RUNNER_API_PORT_8000_TCP", None),
    ],
)
def test_a_misspelt_setting_is_told(
    name: str, near: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would otherwise change nothing, in silence. Its value is not shown."""
    monkeypatch.setenv(name, "4")
    read_settings()
    told = capsys.readouterr().err
    assert told == (f"warning: {name} is no setting: did you mean {near}?\n" if near else "")
