"""Weaknesses of the deployment's own secrets: logins, keys, and who may read their files.

Checked at start-up, where a well-known password is fatal, and by `runner doctor`. Nothing that this
module returns or raises holds a secret, a part of one, or its length.
"""

import base64
import binascii
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from runner.base.settings import Settings
from runner.cli.service_urls import ServiceUrl
from runner.words.errors import SetupError

MIN_PASSWORD = 16
MIN_VARIETY = 12
"""Fewest different bytes in a key: 32 random bytes have fewer once in 10**20 times."""
WELL_KNOWN = frozenset(
    {
        "admin", "agent-runner", "changeme", "default", "example", "letmein", "password",
        "postgres", "qwerty", "redis", "root", "runner", "secret", "test", "123456", "12345678",
    }
)  # fmt: skip
"""Found in images, manuals and lists of the most frequent passwords."""
LOGINS = (
    "database_superuser_url", "database_owner_url", "database_operator_url", "database_api_url",
    "database_worker_url", "redis_url",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weakness:
    """Something that is wrong with a secret. If it is `fatal`, nothing starts."""

    where: str
    what: str
    advice: str
    fatal: bool = False


def weaknesses(settings: Settings) -> list[Weakness]:
    """Return all weaknesses, each with its variable or file."""
    return [*_urls(settings), *_environment_key(settings), *_files(settings)]


def require_sound(settings: Settings) -> None:
    """Raise SetupError if a secret is one that everybody knows."""
    for found in weaknesses(settings):
        if found.fatal:
            raise SetupError(f"{found.where}: {found.what}; {found.advice}")


def _urls(settings: Settings) -> Iterator[Weakness]:
    users: dict[tuple[str, str], str] = {}
    for name in LOGINS:
        secret: SecretStr | None = getattr(settings, name)
        if secret is None:
            continue
        variable = f"RUNNER_{name.upper()}"
        url = urlsplit(secret.get_secret_value())
        read = ServiceUrl.read(secret.get_secret_value())
        for fault in read.faults():
            yield Weakness(
                variable, fault, "correct the URL: docs/operations/tls.md shows one", fatal=True
            )
        # For a socket, its permissions say who may use it.
        if read.host:
            yield from _login(variable, read.password)
            yield from _transport(variable, read)
        if url.scheme.startswith("postgres") and url.username:
            first = users.setdefault((url.username, read.host), variable)
            if first != variable:
                yield Weakness(
                    variable,
                    f"logs in as {first} does",
                    "give each process the login that `runner migrate` makes for it",
                )


def _login(variable: str, password: str) -> Iterator[Weakness]:
    if not password:
        # The login may be proved in another way: by a certificate, or a file that libpq reads.
        yield Weakness(variable, "holds no password", "see that not everybody is let in")
    elif password.lower() in WELL_KNOWN:
        yield Weakness(
            variable,
            "has a password that everybody knows",
            "set a random one, such as `openssl rand -hex 32` prints",
            fatal=True,
        )
    elif len(password) < MIN_PASSWORD:
        yield Weakness(
            variable, "has a short password", f"use {MIN_PASSWORD} random characters at least"
        )


def _transport(variable: str, url: ServiceUrl) -> Iterator[Weakness]:
    if (option := url.turned_off) is not None:
        yield Weakness(
            variable,
            f"trusts whoever answers: it has {option}",
            "take the option out, and name the authority in ssl_ca_certs",
        )
    # A name without a dot belongs to the same host or to a container network.
    elif not (url.is_verified or _is_loopback(url.host) or "." not in url.host):
        yield Weakness(
            variable,
            "may go over the network unencrypted, or to somebody else",
            "use rediss://, or sslmode=verify-full: docs/operations/tls.md",
        )


def _environment_key(settings: Settings) -> Iterator[Weakness]:
    if settings.secrets_key is None:
        return
    yield from _keys("RUNNER_SECRETS_KEY", settings.secrets_key.get_secret_value())


def _keys(where: str, text: str) -> Iterator[Weakness]:
    for word in text.split():
        try:
            raw = base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            continue  # Reading the key ring refuses it.
        if len(set(raw)) < MIN_VARIETY:
            yield Weakness(
                where,
                "holds a key that is not random",
                "make one with `openssl rand -base64 32`, then `runner secrets rotate`",
                fatal=True,
            )


def _files(settings: Settings) -> Iterator[Weakness]:
    folder = settings.state_dir / "keys"
    private = [*folder.glob("*.pem"), *folder.glob("*.kek"), *folder.glob("*.key")]
    for path in (settings.secrets_key_path, settings.egress_secrets, *private):
        if path is not None and path.exists():
            yield from _file(path)
    ring = settings.secrets_key_path
    if settings.secrets_key is None and os.access(ring, os.R_OK):
        yield from _keys(str(ring), ring.read_text("utf-8", "replace"))


def _file(path: Path) -> Iterator[Weakness]:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        yield Weakness(str(path), f"has mode {mode:04o}", f"`chmod 600 {path}`")
    if status.st_uid not in {0, os.geteuid()}:
        yield Weakness(
            str(path), "belongs to another user", "give it to the user that the process runs as"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
