"""Words behind our own arguments belong to the program: no option in them is ours."""

import shlex
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from runner.cli.app import app
from runner.cli.passing_on import PassesOn


@pytest.fixture
def passing() -> typer.Typer:
    """Return a command that prints what it was given, beside one that is not called."""
    made = typer.Typer()

    @made.command("exec", cls=PassesOn)
    def execute(
        place: str,
        words: list[str],
        env: Annotated[list[str] | None, typer.Option("--env", "-e")] = None,
        *,
        shell: Annotated[bool, typer.Option("--shell", "-s")] = False,
    ) -> None:
        typer.echo([place, words, env or [], shell])

    @made.command("other")
    def other() -> None:
        raise AssertionError

    return made


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        ("exec ID python3 -c x", ["ID", ["python3", "-c", "x"], [], False]),
        ("exec ID node -e x -s", ["ID", ["node", "-e", "x", "-s"], [], False]),
        ("exec -s ID 'a -e b'", ["ID", ["a -e b"], [], True]),
        ("exec -e A=1 ID -s -e B=2 true -e", ["ID", ["true", "-e"], ["A=1", "B=2"], True]),
        ("exec -seA=1 --env=B=2 ID true", ["ID", ["true"], ["A=1", "B=2"], True]),
        ("exec -se A=1 ID true", ["ID", ["true"], ["A=1"], True]),
        ("exec ID -- python3 -c x", ["ID", ["python3", "-c", "x"], [], False]),
        ("exec -- ID python3 -c x", ["ID", ["python3", "-c", "x"], [], False]),
        ("exec ID -- -x", ["ID", ["-x"], [], False]),
        ("exec ID git checkout -- file", ["ID", ["git", "checkout", "--", "file"], [], False]),
        ("exec ID cat -", ["ID", ["cat", "-"], [], False]),
    ],
)
def test_words_are_passed_on_from_the_first(
    passing: typer.Typer, written: str, understood: list[object]
) -> None:
    """Our options are read before it only, however they are written."""
    done = CliRunner().invoke(passing, shlex.split(written))
    assert done.output == f"{understood}\n"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("run a.py --top 10", "runner run a.py -- --top 10"),
        ("run a.py --out x -v", "runner run a.py --out x -- -v"),
        ("run a.py --name=two\\ words", "runner run a.py -- '--name=two words'"),
        ("sandbox exec ID -x", "runner sandbox exec ID -- -x"),
        ("sandbox shell ID -l", "runner sandbox shell ID -- -l"),
    ],
)
def test_an_unknown_option_behind_our_arguments_shows_what_to_type(
    written: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, shlex.split(written), prog_name="runner")
    assert done.exit_code == 2
    assert shown in done.output


def test_an_unknown_option_before_our_arguments_is_only_unknown() -> None:
    """To put -- before it would not help."""
    done = CliRunner().invoke(app, ["run", "--unknown", "a.py"], prog_name="runner")
    assert done.exit_code == 2
    assert "No such option" in done.output
