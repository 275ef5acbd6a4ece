"""Requests to a backend that LangChain's suite does not make."""

from collections.abc import Iterator

import pytest

from agent_runner import Gone, Sandbox
from agent_runner.integrations.deepagents import RunnerSandbox


@pytest.fixture(scope="module")
def backend() -> Iterator[RunnerSandbox]:
    """Return a backend that tests share."""
    with Sandbox.create(size="small", timeout_s=600) as sandbox:
        yield RunnerSandbox(sandbox)


def test_errors_stand_between_the_output_where_they_were_written(backend: RunnerSandbox) -> None:
    ran = backend.execute("echo one; echo two >&2; echo three; exit 3")
    assert (ran.output, ran.exit_code) == ("one\ntwo\nthree\n", 3)
    assert "syntax error" in backend.execute("if").output


def test_a_command_is_bash_in_the_workspace_without_input(backend: RunnerSandbox) -> None:
    ran = backend.execute("[[ -v BASH_VERSION ]] && pwd && cat && cat <<'END'\n$HOME\nEND")
    assert (ran.output, ran.exit_code) == ("/workspace\n$HOME\n", 0)


def test_a_command_may_be_longer_than_an_argument(backend: RunnerSandbox) -> None:
    long = "é" * 200_000
    assert backend.execute(f"wc -m <<< '{long}'").output == "200001\n"


def test_a_large_edit_of_text_that_json_escapes_works(backend: RunnerSandbox) -> None:
    """The framework sends it within a command."""
    old, new = "世" * 8000, "界" * 8000
    backend.upload_files([("/workspace/large.txt", old.encode())])
    assert backend.edit("/workspace/large.txt", old, new).error is None
    assert backend.download_files(["/workspace/large.txt"])[0].content == new.encode()


def test_a_command_that_takes_too_long_is_killed_with_its_children(backend: RunnerSandbox) -> None:
    ran = backend.execute("echo begun; sleep 300 & sleep 301", timeout=5)
    assert ran.exit_code == 124
    assert ran.output.startswith("begun\n")
    assert "killed after 5 seconds" in ran.output
    left = backend.execute("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '").output
    assert "sleep 30" not in left


def test_a_signal_is_told_as_a_shell_tells_it(backend: RunnerSandbox) -> None:
    assert backend.execute("kill -TERM $$").exit_code == 143


def test_long_output_is_marked_as_truncated(backend: RunnerSandbox) -> None:
    ran = backend.execute("yes | head -c 2000000")
    assert ran.truncated
    assert ran.output.startswith("y\ny\n")


def test_a_negative_timeout_is_refused(backend: RunnerSandbox) -> None:
    with pytest.raises(ValueError, match="negative"):
        backend.execute("true", timeout=-1)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/workspace", "is_directory"),
        ("/etc/shadow", "permission_denied"),
        ("/workspace/none", "file_not_found"),
        ("/etc/passwd/x", "invalid_path"),
        ("/" + "x" * 300, "invalid_path"),
        ("/a\0b", "invalid_path"),
    ],
    ids=["folder", "denied", "missing", "below-a-file", "long", "nul"],
)
def test_a_refusal_to_read_has_the_frameworks_word(
    backend: RunnerSandbox, path: str, word: str
) -> None:
    assert backend.download_files([path])[0].error == word


@pytest.mark.parametrize(
    ("path", "word"),
    [("/workspace", "is_directory"), ("/etc/own.conf", "permission_denied")],
    ids=["folder", "denied"],
)
def test_a_refusal_to_write_has_the_frameworks_word(
    backend: RunnerSandbox, path: str, word: str
) -> None:
    assert backend.upload_files([(path, b"x")])[0].error == word


def test_a_sandbox_that_has_ended_is_no_result_of_a_command() -> None:
    with Sandbox.create(size="nano") as sandbox:
        backend = RunnerSandbox(sandbox)
        sandbox.kill()
        with pytest.raises(Gone):
            backend.execute("true")
        with pytest.raises(Gone):
            backend.download_files(["/workspace/a"])
