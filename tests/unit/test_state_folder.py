"""Only one embedded stack uses a state folder, and only one API an address; a second says so."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runner.base.listening import listen, url
from runner.base.settings import Settings
from runner.embedded.hold import held, is_held
from runner.words.errors import SetupError


def dev(folder: Path, port: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run `runner dev` to its end, which comes soon if it may not start."""
    return subprocess.run(
        [sys.executable, "-m", "runner", "dev"],
        env={**os.environ, "RUNNER_STATE_DIR": str(folder), "RUNNER_PORT": str(port),
             "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip


def contents(folder: Path) -> set[str]:
    """Return what a folder holds, except for the lock, which says who holds the folder."""
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "stack.lock"
    }


def test_a_second_deployment_in_a_folder_says_who_runs_and_touches_nothing(tmp_path: Path) -> None:
    """One line names the process, its address and what to do; the first one's sockets stay."""
    sockets = tmp_path / "run" / "services"
    sockets.mkdir(parents=True)
    (sockets / "redis.sock").touch()
    before = contents(tmp_path)
    with held(tmp_path) as tell:
        tell("http://127.0.0.1:8080")
        second = dev(tmp_path)
    assert second.returncode == 78
    assert second.stdout == ""
    for part in (str(os.getpid()), "http://127.0.0.1:8080", str(tmp_path), "RUNNER_STATE_DIR"):
        assert part in second.stderr
    assert second.stderr.count("\n") == 1, second.stderr
    assert contents(tmp_path) == before


def test_a_folder_is_free_again_when_its_holder_is_gone(tmp_path: Path) -> None:
    """This also holds after SIGKILL, which leaves the file."""
    assert not is_held(tmp_path)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom runner.embedded.hold import held\n"
        "with held(Path(sys.argv[1])) as tell:\n"
        "    tell('http://x')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert "http://x" in (tmp_path / "run" / "stack.lock").read_text()
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_a_holder_that_has_no_address_yet_is_told_all_the_same(tmp_path: Path) -> None:
    with (
        held(tmp_path),
        pytest.raises(SetupError, match="it is starting"),
        held(tmp_path),
    ):
        pass


def test_a_busy_port_is_one_line_that_names_port_and_setting(tmp_path: Path) -> None:
    """Nothing was started, and nothing is left in the folder."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        ended = dev(tmp_path, port)
    assert ended.returncode == 78
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert str(port) in ended.stderr
    assert "RUNNER_PORT" in ended.stderr
    assert contents(tmp_path) == {"run"}


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("192.0.2.1", "this host has no such address"),
        ("no-such-name.invalid", "'no-such-name.invalid' is no address"),
    ],
)
def test_an_address_that_is_not_ours_is_told_by_the_setting(host: str, named: str) -> None:
    with pytest.raises(SetupError, match=named) as refused:
        listen(Settings(host=host, port=0))
    assert "RUNNER_HOST" in refused.value.detail


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}"),
        ("0.0.0.0", "http://127.0.0.1:{}"),  # noqa: S104 - bound for a moment
        ("::1", "http://[::1]:{}"),
    ],
)
def test_the_url_is_one_that_clients_of_this_host_can_use(host: str, expected: str) -> None:
    with listen(Settings(host=host, port=0)) as listener:
        reached = url(listener)
        assert reached == expected.format(listener.getsockname()[1])
        address = ("::1" if ":" in host else "127.0.0.1", listener.getsockname()[1])
        socket.create_connection(address, timeout=5).close()
