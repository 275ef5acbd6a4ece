"""`runner sandbox exec` ends as its command did, and `cp` knows what is in a sandbox."""

import pytest

from agent_runner import OutputEvent
from runner.cli.sandbox_use import exit_code, in_sandbox

ID = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"


def ended(code: int | None = None, signal: str | None = None, *, late: bool = False) -> OutputEvent:
    """Return the end of a process."""
    return OutputEvent("ended", 0, b"", exit_code=code, signal=signal, timed_out=late)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (ended(0), 0),
        (ended(3), 3),
        (ended(signal="SIGSEGV"), 139),
        (ended(signal="SIG35"), 163),
        (ended(signal="SIGKILL", late=True), 124),
        (ended(), 70),
        (None, 70),
    ],
)
def test_a_command_ends_here_as_it_ended_there(end: OutputEvent | None, code: int) -> None:
    assert exit_code(end) == code


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"{ID}:data/in.csv", (ID, "data/in.csv")),
        (f"{ID}:/srv/a:b", (ID, "/srv/a:b")),
        ("in.csv", None),
        ("./odd:name", None),
        (f"{ID}:", (ID, "./")),
        (":a", None),
        ("./a:", None),
        ("-", None),
    ],
)
def test_a_place_in_a_sandbox_is_its_id_and_a_path(
    text: str, place: tuple[str, str] | None
) -> None:
    assert in_sandbox(text) == place
