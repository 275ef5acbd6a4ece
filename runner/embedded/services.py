"""Both services together: folders, start, roles, and the URLs for each of our processes."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.embedded.postgres import Postgres
from runner.embedded.process import ServiceUser, service_user
from runner.embedded.redis import Redis
from runner.words.errors import SetupError

MAX_SOCKET_PATH = 100
"""Leaves room below the 108 bytes of sun_path (unix(7))."""
LONGEST_NAME = "/.s.PGSQL.5432.lock"


@dataclass(frozen=True, slots=True)
class Services:
    """Running services and how to reach them. Each login role has a URL of its own."""

    postgres: Postgres
    redis: Redis

    @property
    def superuser_url(self) -> str:
        """The superuser, whom row-level security does not bind: for backups."""
        return self.postgres.url("postgres")

    @property
    def owner_url(self) -> str:
        """The owner of the schema."""
        return self.postgres.url("runner_owner")

    @property
    def operator_url(self) -> str:
        """The operator's login."""
        return self.postgres.url("runner_operator")

    @property
    def api_url(self) -> str:
        """The API's login."""
        return self.postgres.url("runner_api")

    @property
    def worker_url(self) -> str:
        """The worker's login."""
        return self.postgres.url("runner_worker")

    @property
    def redis_url(self) -> str:
        """Redis."""
        return self.redis.url


@contextmanager
def services(state_dir: Path, *, ephemeral: bool = False, patience: int = 1) -> Iterator[Services]:
    """Run PostgreSQL and Redis inside the context; their data stays below `state_dir`.

    `ephemeral` gives up durability for speed; `patience` multiplies every wait on them. Raises
    SetupError if a program or user is missing.
    """
    user = service_user()
    with ExitStack() as stack:
        sockets = stack.enter_context(_socket_folder(state_dir, user))
        data = state_dir / "services"
        logs = state_dir / "log"
        for folder in (data, logs):
            folder.mkdir(parents=True, exist_ok=True)
        if not user.may_pass(data / "postgres"):
            raise SetupError(
                f"the user of the embedded services cannot enter {data}: set RUNNER_STATE_DIR "
                "to a folder below one that everybody may pass, such as /var/lib"
            )
        postgres = Postgres(
            data=data / "postgres",
            sockets=sockets,
            user=user,
            logs=logs,
            ephemeral=ephemeral,
            patience=patience,
        )
        redis = Redis(sockets=sockets, user=user, logs=logs, patience=patience)
        stack.callback(postgres.stop)
        postgres.start()
        stack.callback(redis.stop)
        redis.start()
        yield Services(postgres=postgres, redis=redis)


@contextmanager
def _socket_folder(state_dir: Path, user: ServiceUser) -> Iterator[Path]:
    """Yield a private folder that the services can use, with a path short enough for a socket."""
    folder = state_dir / "run" / "services"
    folder.mkdir(parents=True, exist_ok=True)
    if len(str(folder)) + len(LONGEST_NAME) > MAX_SOCKET_PATH or not user.may_pass(folder):
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="runner-"))
    try:
        user.own(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
