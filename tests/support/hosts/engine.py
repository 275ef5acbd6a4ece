"""What all hosts share, as an operator has it: PostgreSQL, Redis and a bucket on a network.

PostgreSQL takes only TLS and passwords, Redis only TLS and the users of `deploy/redis-users`; each
has a certificate of the operator's own authority. The operator sets everything up as
docs/operations/install.md says: by its blocks of commands, which leave a file of settings for each
process.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg
import redis

from runner.embedded.postgres import ENVIRONMENT, NOT_DURABLE, SETTINGS
from runner.embedded.process import ServiceProcess, ServiceUser, service_user
from runner.embedded.redis import PROGRAMS
from tests.support.buckets import bucket
from tests.support.deployment import eventually
from tests.support.hosts.machines import ADDRESS
from tests.support.pages import blocks
from tests.support.upstreams import Authority

ROOT = Path(__file__).resolve().parents[3]
INSTALL = ROOT / "docs" / "operations" / "install.md"
_PATIENCE = 3
_NETWORK = "10.77.0.0/24"


@dataclass(frozen=True)
class SharedEngine:
    """Running services, and the operator's folder with the settings of each process."""

    folder: Path
    authority: Path
    superuser_url: str
    """For the machine of the services alone, as a check that looks behind row-level security."""
    postgres: ServiceProcess
    redis: ServiceProcess
    bucket: dict[str, str]

    def settings_of(self, process: str) -> dict[str, str]:
        """Return the settings that were written for `api`, `worker` or `owner`."""
        text = (self.folder / f"{process}.env").read_text()
        written = dict(line.split("=", 1) for line in shlex.split(text))
        return {**written, **{f"RUNNER_{name.upper()}": v for name, v in self.bucket.items()}}


@contextmanager
def shared_engine(folder: Path) -> Iterator[SharedEngine]:
    """Run the services at the switch's address inside the context, with a migrated database."""
    user = service_user()
    with ExitStack() as stack:
        user.own(folder / "services")
        authority = Authority(folder)
        key = _given(authority.chain(ADDRESS), folder / "services", user)
        postgres, redis_server = (
            _postgres(folder, key, user),
            _redis(folder, key, authority.path, user),
        )
        secrets = folder / "secrets"
        subprocess.run([ROOT / "deploy" / "make-secrets", secrets], check=True, timeout=60)
        _write_users(secrets, folder / "services" / "users.acl", user)
        for each in (postgres, redis_server):
            stack.callback(each.stop, signal.SIGINT)
            each.start()
        superuser = f"postgresql://postgres@/runner?host={folder / 'services'}"
        eventually(lambda: _answers(superuser.replace("/runner?", "/postgres?"), postgres))
        made = SharedEngine(
            folder, authority.path, superuser, postgres, redis_server,
            stack.enter_context(bucket(ADDRESS)),
        )  # fmt: skip
        _installed(made)
        eventually(lambda: _pings(made, redis_server))
        yield made


def page_environment(made: SharedEngine) -> dict[str, str]:
    """Return what the page has the operator export."""
    passwords = {
        name: (made.folder / "secrets" / f"redis_{name}_password").read_text()
        for name in ("api", "worker")
    }
    urls = {
        f"REDIS_{name.upper()}": (
            f"rediss://runner_{name}:{password}@{ADDRESS}:6379/0?ssl_ca_certs={made.authority}"
        )
        for name, password in passwords.items()
    }
    return {
        "HOME": os.environ["HOME"],
        "PATH": ":".join([str(Path(sys.executable).parent), str(programs()), os.defpath]),
        "PGHOST": str(made.folder / "services"),
        "PGUSER": "postgres",
        "DATABASE": f"{ADDRESS}:5432",
        "DATABASE_TLS": f"?sslmode=verify-full&sslrootcert={made.authority}",
        **urls,
        "RUNNER_STATE_DIR": str(made.folder / "state"),
    }


@cache
def programs() -> Path:
    """Return the folder of a PostgreSQL that speaks TLS."""
    found = subprocess.run(
        [ROOT / "scripts" / "postgresql"], capture_output=True, text=True, timeout=600, check=True
    )
    return Path(found.stdout.strip())


def _installed(made: SharedEngine) -> None:
    """Run the page's blocks up to the schema."""
    named = {each.mark: each.text for each in blocks("sh", INSTALL)}
    (made.folder / "deploy").symlink_to(ROOT / "deploy")
    environment = page_environment(made)
    for step in ("install", "settings", "migrate"):
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", named[step]],
            cwd=made.folder, env=environment, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{step}:\n{ran.stdout}\n{ran.stderr}"


def _given(chain: Path, folder: Path, user: ServiceUser) -> Path:
    """Give a file with a certificate and its key to the services' user alone."""
    mine = folder / chain.name
    shutil.move(chain, mine)
    _owned(mine, user)
    return mine


def _owned(path: Path, user: ServiceUser) -> None:
    path.chmod(0o600)
    if user.uid is not None and user.gid is not None:
        os.chown(path, user.uid, user.gid)


def _postgres(folder: Path, key: Path, user: ServiceUser) -> ServiceProcess:
    data, own = folder / "services" / "postgres", _as(user)
    subprocess.run(
        [programs() / "initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust",
         "--encoding", "UTF8", "--locale", "C", "--no-sync"],
        **own, env=_libraries(), cwd="/", check=True, capture_output=True, timeout=300,
    )  # type: ignore[call-overload] # fmt: skip
    (data / "pg_hba.conf").write_text(
        f"local all postgres trust\nhostssl all all {_NETWORK} scram-sha-256\n"
    )
    options = {
        **SETTINGS, **NOT_DURABLE, "listen_addresses": ADDRESS, "ssl": "on",
        "ssl_cert_file": key, "ssl_key_file": key, "ssl_min_protocol_version": "TLSv1.3",
        "max_connections": "200",
    }  # fmt: skip
    return ServiceProcess(
        [str(programs() / "postgres"), "-D", str(data), "-k", str(folder / "services"),
         *(f"--{name}={value}" for name, value in options.items())],
        user=user, log=folder / "postgres.log", environment=_libraries(), patience=_PATIENCE,
    )  # fmt: skip


def _redis(folder: Path, key: Path, authority: Path, user: ServiceUser) -> ServiceProcess:
    program = next(found for name in PROGRAMS if (found := shutil.which(name)))
    options = {
        "port": "0", "tls-port": "6379", "bind": ADDRESS, "tls-cert-file": key,
        "tls-key-file": key, "tls-ca-cert-file": authority, "tls-auth-clients": "no",
        "tls-protocols": "TLSv1.3", "aclfile": folder / "services" / "users.acl",
        "dir": folder / "services", "save": "", "appendonly": "no", "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ServiceProcess(
        [program, *words],
        user=user, log=folder / "redis.log", environment=ENVIRONMENT, patience=_PATIENCE,
    )  # fmt: skip


def _write_users(secrets: Path, file: Path, user: ServiceUser) -> None:
    made = subprocess.run(
        [ROOT / "deploy" / "redis-users", secrets], check=True, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    file.write_text(made.stdout)
    _owned(file, user)


def _as(user: ServiceUser) -> dict[str, object]:
    groups: list[int] | None = [] if user.uid is not None else None
    return {"user": user.uid, "group": user.gid, "extra_groups": groups}


def _libraries() -> dict[str, str]:
    """Return the environment in which an unpacked PostgreSQL finds the libraries beside it."""
    folders = sorted((programs().parents[2]).glob("*-linux-gnu"))
    path = {} if Path("/usr/lib") in programs().parents else {"LD_LIBRARY_PATH": str(*folders)}
    return {**ENVIRONMENT, **path}


def _answers(url: str, process: ServiceProcess) -> bool:
    process.check()
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def _pings(made: SharedEngine, process: ServiceProcess) -> bool:
    process.check()
    try:
        with redis.Redis.from_url(page_environment(made)["REDIS_API"]) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False
