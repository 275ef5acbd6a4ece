"""PostgreSQL and Redis run as private children: nobody else reaches them, and nothing stays."""

import contextlib
import importlib.machinery
import importlib.util
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import psycopg
import pytest
import redis

from runner.embedded import postgres
from runner.embedded import redis as redis_server
from runner.embedded.process import SERVICE_USER, service_user
from runner.embedded.services import Services, services
from runner.words.errors import SetupError
from tests.support.deployment import eventually, state_folder


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a state folder that the services' user may pass through."""
    with state_folder() as made:
        yield made


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Services]:
    """Return running services."""
    with services(folder, ephemeral=True) as made:
        yield made


def one(url: str, statement: str) -> object:
    """Return the first value of a statement's first row."""
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def listening(pid: int) -> list[str]:
    """Return the network addresses on which a process and its children listen.

    A child that ends meanwhile is left out: PostgreSQL starts and ends some all the time.
    """
    service = psutil.Process(pid)
    connections = service.net_connections("inet")
    for child in service.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            connections += child.net_connections("inet")
    return [str(each.laddr) for each in connections if each.status == psutil.CONN_LISTEN]


def test_both_answer(running: Services) -> None:
    assert str(one(running.owner_url, "SHOW server_version")).startswith("18")
    with redis.Redis.from_url(running.redis_url) as client:
        assert client.ping()


def test_the_owner_of_the_schema_is_no_superuser(running: Services) -> None:
    question = (
        "SELECT NOT rolsuper AND NOT rolbypassrls AND NOT rolcreatedb AND rolcreaterole "
        "FROM pg_roles WHERE rolname = current_user"
    )
    assert one(running.owner_url, question) is True


def test_neither_listens_on_the_network(running: Services) -> None:
    assert listening(running.postgres.pid) == []
    assert listening(running.redis.pid) == []


def test_a_child_that_listens_is_noticed() -> None:
    """The search above is able to fail: a grandchild of this test listens, and is found."""
    program = (
        "import socket; made = socket.create_server(('127.0.0.1', 0)); "
        "print(made.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        port = child.stdout.readline().strip()
        assert any(f"port={port})" in each for each in listening(os.getpid()))
        child.communicate("\n", timeout=20)


def test_neither_runs_as_root(running: Services) -> None:
    for pid in (running.postgres.pid, running.redis.pid):
        process = psutil.Process(pid)
        assert process.username() == SERVICE_USER
        assert process.uids().real == process.uids().effective == process.uids().saved
        assert process.gids().real != 0


def test_other_users_cannot_reach_the_sockets(running: Services) -> None:
    socket = Path(running.redis_url.removeprefix("unix://"))
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    tried = subprocess.run(
        ["python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).connect({str(socket)!r})"],
        user="nobody",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "PermissionError" in tried.stderr


def test_redis_refuses_rather_than_forgets_when_it_is_full(running: Services) -> None:
    with redis.Redis.from_url(running.redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("save") == {"save": ""}


def test_statements_stay_out_of_the_servers_log(running: Services, folder: Path) -> None:
    """Statements may hold what a tenant sent."""
    with psycopg.connect(running.owner_url) as connection, pytest.raises(psycopg.Error):
        connection.execute("SELECT no_such_function(%s, 'canary-77')", ["canary-78"])
    log = (folder / "log" / "postgres.log").read_text()
    assert "no_such_function" in log
    assert "canary" not in log


def test_what_postgresql_holds_survives_a_restart_and_a_crash(running: Services) -> None:
    with psycopg.connect(running.owner_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    for end in (running.postgres.stop, running.postgres.kill):
        end()
        with pytest.raises(psycopg.OperationalError):
            one(running.owner_url, "SELECT 1")
        running.postgres.start()
        assert one(running.owner_url, "SELECT value FROM kept") == 1


def test_redis_can_be_killed_and_started_again(running: Services) -> None:
    running.redis.kill()
    with redis.Redis.from_url(running.redis_url) as client:
        with pytest.raises(redis.ConnectionError):
            client.ping()
        running.redis.start()
        assert client.ping()


def test_the_data_is_there_again_the_next_time() -> None:
    with state_folder() as folder:
        with (
            services(folder) as first,
            psycopg.connect(first.owner_url, autocommit=True) as connection,
        ):
            connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        with services(folder) as second:
            assert one(second.owner_url, "SELECT value FROM kept") == 7
            assert one(second.owner_url, "SHOW fsync") == "on"


@pytest.mark.parametrize("part", [postgres, redis_server])
def test_a_slow_host_waits_longer_for_them(
    part: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that is too short for a part's start is long enough with more patience."""
    monkeypatch.setattr(part, "READY_AFTER_S", 0.0001)
    with state_folder() as folder:
        with pytest.raises(SetupError, match="does not answer"), services(folder, ephemeral=True):
            pass
        with services(folder, ephemeral=True, patience=300_000):
            pass


def test_nothing_runs_and_no_socket_stays_after_an_exception() -> None:
    with state_folder() as folder:
        pids: list[int] = []

        def fail_inside() -> None:
            with services(folder) as made:
                pids.extend([made.postgres.pid, made.redis.pid])
                raise RuntimeError("in the middle")

        with pytest.raises(RuntimeError, match="in the middle"):
            fail_inside()
        assert [pid for pid in pids if psutil.pid_exists(pid)] == []
        assert list((folder / "run").iterdir()) == []


def test_a_deep_folder_gets_its_sockets_elsewhere_and_leaves_none() -> None:
    with state_folder() as folder:
        deep = folder / ("d" * 60) / ("e" * 60)
        with services(deep, ephemeral=True) as made:
            sockets = Path(made.redis_url.removeprefix("unix://")).parent
            assert one(made.owner_url, "SELECT 1") == 1
            assert deep not in sockets.parents
        assert not sockets.exists()


def test_a_folder_the_services_cannot_enter_is_refused_with_advice() -> None:
    with state_folder() as folder:
        folder.chmod(0o700)
        with (
            pytest.raises(SetupError, match="RUNNER_STATE_DIR"),
            services(folder / "state", ephemeral=True),
        ):
            pass


def test_the_programs_are_copied_once_to_where_the_services_may_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The virtual environment may lie below /root."""
    package = tmp_path / "site" / postgres.PACKAGE
    program = package / postgres.INSTALL / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("first")
    program.chmod(0o700)
    spec = importlib.machinery.ModuleSpec("any", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setattr(postgres, "CACHE", tmp_path / "cache")
    for _ in range(2):
        copied = postgres._binaries(service_user()) / "postgres"
        assert copied.is_relative_to(tmp_path / "cache")
        assert copied.read_text() == "first"
        assert stat.S_IMODE(copied.stat().st_mode) == 0o755
        program.write_text("second")


def test_both_die_with_a_parent_that_is_killed() -> None:
    program = (
        "import sys, time; from pathlib import Path; "
        "from runner.embedded.services import services\n"
        "with services(Path(sys.argv[1]), ephemeral=True) as made:\n"
        "    print(made.postgres.pid, made.redis.pid, flush=True); time.sleep(60)"
    )
    with (
        state_folder() as folder,
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
        ) as parent,
    ):
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        family = [*pids, *(each.pid for each in psutil.Process(pids[0]).children(recursive=True))]
        parent.send_signal(signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in family), within_s=10)


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not count."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
