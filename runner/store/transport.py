"""How a login reaches PostgreSQL: asked once, by a connection of its own, for `runner doctor`."""

from dataclasses import dataclass

import psycopg
from pydantic import SecretStr

from runner.store.db import CONNECT_TIMEOUT_S
from runner.words.errors import StoreUnavailable

_TLS = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl"


@dataclass(frozen=True, slots=True)
class Transport:
    """A connection to PostgreSQL: the server's version, and that of TLS, if it is encrypted."""

    server: int
    """As PostgreSQL numbers itself: 180001 is 18.1."""
    tls: str | None
    socket: bool
    """Whether it is a socket of this host, which nobody else can listen to."""


def transport(url: SecretStr) -> Transport:
    """Return how this login reaches PostgreSQL. Raises StoreUnavailable with the reason."""
    try:
        with psycopg.connect(
            url.get_secret_value(), connect_timeout=CONNECT_TIMEOUT_S, autocommit=True
        ) as connection:
            row = connection.execute(_TLS).fetchone()
            return Transport(
                server=connection.info.server_version,
                tls=str(row[0]) if row else None,
                socket=connection.info.host.startswith("/"),
            )
    except psycopg.Error as error:
        raise StoreUnavailable(" ".join(str(error).split())) from error
