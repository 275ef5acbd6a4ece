"""Every mistake of a user gives one line and an exit code, and never a traceback."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner, Result

from runner.cli.app import app

SERVING = {"dev", "demo", "api", "worker"}
"""They run until they are stopped; their errors are tested where they run."""


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below a group, with the words that name it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        elif name not in SERVING:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def typed(path: tuple[str, ...]) -> list[str]:
    """Return a command with a value for every required argument."""
    words = list(path)
    for parameter in COMMANDS[path].params:
        if not parameter.required:
            continue
        if parameter.param_type_name == "option":
            words.append(parameter.opts[0])
        by_name = {"role": "owner", "email": "a@example.com"}
        words.append(by_name.get(str(parameter.name), "example"))
    return words


def invoked(path: tuple[str, ...], env: Mapping[str, str | None]) -> Result:
    """Run a command; the test sees every exception except an exit."""
    return CliRunner().invoke(app, typed(path), env=env)


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Return an environment in which nothing answers: no API, no Docker, no database.

    What a command writes into the working folder, such as a key, is in a folder of the test's.
    """
    monkeypatch.chdir(tmp_path)
    return {
        "RUNNER_STATE_DIR": str(tmp_path / "state"),
        "RUNNER_URL": "http://127.0.0.1:1",
        "RUNNER_API_KEY": "rk_x",
        "RUNNER_DOCKER_URL": f"unix://{tmp_path}/none.sock",
        "RUNNER_DATABASE_OWNER_URL": None,
        "RUNNER_DATABASE_OPERATOR_URL": None,
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_where_nothing_answers_every_command_says_so(
    path: tuple[str, ...], env: Mapping[str, str | None]
) -> None:
    """The exit code is not 0, except for commands that need nobody."""
    result = invoked(path, env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "url", ["nonsense", "http://no-such-host.invalid", "http://[::1", "ftp://x"]
)
def test_a_url_that_leads_nowhere_is_one_line(url: str, env: dict[str, str | None]) -> None:
    result = invoked(("usage",), {**env, "RUNNER_URL": url})
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code != 0
    assert result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize("given", ["RUNNER_URL", "RUNNER_API_KEY"])
def test_half_an_address_is_told_and_not_replaced_by_another(
    given: str, env: dict[str, str | None]
) -> None:
    """A stack started for the command would answer, but without the user's data."""
    lacking = ({"RUNNER_URL", "RUNNER_API_KEY"} - {given}).pop()
    result = invoked(("usage",), {**env, lacking: None})
    assert (result.exit_code, result.stderr) == (
        78,
        f"error: {lacking} is not set: RUNNER_URL and RUNNER_API_KEY go together\n",
    )


@pytest.mark.parametrize("key", ["rk_é", "rk_a\nb", "rk_“x”"])
def test_a_key_that_cannot_be_one_is_one_line_without_it(
    key: str, env: dict[str, str | None]
) -> None:
    """For example, a key copied from a document that replaced its quotes."""
    result = invoked(("usage",), {**env, "RUNNER_API_KEY": key})
    assert result.exit_code == 78
    assert result.stderr.startswith("error: RUNNER_API_KEY holds characters that no key has")
    assert key not in result.stderr


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
@pytest.mark.parametrize(
    "path",
    [("migrate",), ("keys", "create"), ("tenants", "list"), ("operators", "list"),
     ("members", "reset")],
    ids=" ".join,
)  # fmt: skip
def test_a_database_that_cannot_be_reached_is_one_line_with_the_reason(
    path: tuple[str, ...], host: str, env: dict[str, str | None]
) -> None:
    """The line does not contain the password."""
    url = f"postgresql://nobody:s3cret-word@{host}/nothing"
    given = {**env, "RUNNER_DATABASE_OWNER_URL": url, "RUNNER_DATABASE_OPERATOR_URL": url}
    result = invoked(path, given)
    assert result.exit_code == 1
    assert "refused" in result.stderr or "resolve host" in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert "s3cret-word" not in result.output


class Stranger(BaseHTTPRequestHandler):
    """A server that is not this API."""

    answer = b""

    def do_GET(self) -> None:
        """Answer any request."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Answer every request like this; yield the URL."""
    kind = type("Answering", (Stranger,), {"answer": answer})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=[b"<html>hello</html>", b"[1]", b"\xff", b""],
                ids=["html", "list", "bytes", "empty"])  # fmt: skip
def stranger(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve something else, and return its URL."""
    with answering(request.param) as url:
        yield url


@pytest.mark.parametrize(
    "path",
    [("usage",), ("executions", "list"), ("executions", "show"), ("audit", "list"),
     ("files", "list"), ("secrets", "list")],
    ids=" ".join,
)  # fmt: skip
def test_a_server_that_is_not_this_api_is_one_line(
    path: tuple[str, ...], stranger: str, env: dict[str, str | None]
) -> None:
    """This holds for any answer."""
    result = invoked(path, {**env, "RUNNER_URL": stranger})
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize("answer", [b"{}", b'{"items": [{"id": "1"}], "next_cursor": null}'])
@pytest.mark.parametrize(
    "path",
    [
        ("executions", "list"), ("executions", "show"), ("usage",), ("audit", "list"),
        ("files", "list"), ("secrets", "list"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_answer_of_another_release_is_one_line(
    path: tuple[str, ...], answer: bytes, env: dict[str, str | None]
) -> None:
    """A missing field is not the user's mistake, but it gives no traceback either."""
    with answering(answer) as url:
        result = invoked(path, {**env, "RUNNER_URL": url})
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    assert "another release" in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["tenants", "create", "Bad Name!"],
        ["tenants", "set", "acme", "--concurrency", "99999999999"],
        ["tenants", "set", "acme", "--retention-days", "99999999999"],
        ["tenants", "suspend", "acme", "--why", "\udcff"],
        ["keys", "create", "--tenant", "Bad Name!"],
        ["keys", "create", "--tenant", "acme", "--name", "\udcff"],
        ["operators", "create", "x", "--days", "99999999999"],
        ["operators", "create", "\udcff"],
        ["members", "add", "--tenant", "Bad Name!", "--email", "a@example.com"],
    ],
    ids=" ".join,
)
def test_what_the_database_cannot_hold_is_refused_before_it_is_asked(
    words: list[str], env: dict[str, str | None]
) -> None:
    """Like any wrong argument, it gives exit code 2. The database here does not even answer."""
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    given = {**env, "RUNNER_DATABASE_OWNER_URL": url, "RUNNER_DATABASE_OPERATOR_URL": url}
    result = CliRunner().invoke(app, words, env=given)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2
    assert "Invalid value" in result.stderr


FILES = {
    "missing.py": None,
    "latin.py": b"print('caf\xe9')\n",
    "empty.py": b"",
    "program.xyz": b"print(1)",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_run_is_one_line_that_names_it(
    name: str, tmp_path: Path, env: dict[str, str | None]
) -> None:
    """This happens before anything is connected to."""
    content = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = CliRunner().invoke(app, ["run", str(tmp_path / name)], env=env)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path / name}")
    assert result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize(
    "words",
    [["-e", "NOVALUE"], ["-e", "=x"], ["--secret", "X"], ["-f", "a/in.txt", "-f", "b/in.txt"],
     ["-f", "missing.txt"]],
    ids=" ".join,
)  # fmt: skip
def test_an_option_that_means_nothing_is_one_line_that_names_it(
    words: list[str], tmp_path: Path, env: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text("print(1)")
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "in.txt").touch()
    result = CliRunner().invoke(app, ["run", *words, "a.py"], env=env)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    assert words[-1] in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
