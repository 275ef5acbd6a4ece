"""What the URLs of PostgreSQL and Redis say of TLS: files that they name, checks they turn off.

libpq and redis-py read these options only when they connect. A wrong one would look like a service
that is away: the process would try again for ever, and no error would name the setting.
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

ENCRYPTED = frozenset({"verify-ca", "verify-full"})
"""The values of `sslmode` with which libpq does not speak to somebody else."""
SSLMODES = frozenset({"disable", "allow", "prefer", "require", *ENCRYPTED})
_REDIS = frozenset({"db", "client_name", "protocol"})
_REDIS_TLS = frozenset(
    {
        "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname",
        "ssl_ciphers", "ssl_keyfile", "ssl_min_version", "ssl_password",
    }
)  # fmt: skip
_AUTHORITIES = {"sslrootcert", "ssl_ca_certs"}
_FILES = {*_AUTHORITIES, "sslcert", "sslkey", "sslcrl", "ssl_certfile", "ssl_keyfile"}
_BUILT_IN = "system"
"""With this value, libpq trusts the authorities that the host's OpenSSL trusts."""
_OFF = {"ssl_cert_reqs": {"none"}, "ssl_check_hostname": {"0", "f", "false", "n", "no"}}


@dataclass(frozen=True, slots=True)
class ServiceUrl:
    """A URL of PostgreSQL or Redis, read."""

    scheme: str
    host: str
    """The host or hosts that it leads to; empty for a socket."""
    password: str = field(repr=False)
    options: tuple[tuple[str, str], ...] = field(repr=False)

    @classmethod
    def read(cls, url: str) -> "ServiceUrl":
        """Return what a URL says."""
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True)
        named, places = dict(options), parts.netloc.rpartition("@")[2]
        # libpq takes several hosts, and prefers those of the options (its manual, Connection URIs).
        host = places if "," in places else parts.hostname or ""
        host = named.get("hostaddr") or named.get("host") or host
        return cls(
            parts.scheme,
            "" if host.startswith("/") else host,
            unquote(parts.password or "") or named.get("password", ""),
            tuple(options),
        )

    @property
    def is_redis(self) -> bool:
        """Whether it leads to Redis."""
        return not self.scheme.startswith("postgres")

    @property
    def is_verified(self) -> bool:
        """Whether its connections are encrypted, and end at the service itself."""
        if self.is_redis:
            return self.scheme == "rediss" and not self.turned_off
        return dict(self.options).get("sslmode") in ENCRYPTED

    @property
    def turned_off(self) -> str | None:
        """The option by which a connection over TLS trusts everybody."""
        return next((name for name, v in self.options if v.lower() in _OFF.get(name, ())), None)

    def faults(self) -> Iterator[str]:
        """Yield what makes it unusable."""
        if self.is_redis:
            yield from self._unknown()
        for name, value in self.options:
            if name == "sslmode" and value not in SSLMODES:
                yield f"has sslmode={value!r}, which is none of {', '.join(sorted(SSLMODES))}"
            if name in _FILES and not (name == "sslrootcert" and value == _BUILT_IN):
                yield from _file(name, Path(value))

    def _unknown(self) -> Iterator[str]:
        for name, _ in self.options:
            if name in _REDIS_TLS and self.scheme != "rediss":
                yield f"has {name}, which needs rediss://"
            elif name not in _REDIS | _REDIS_TLS:
                yield f"has the option {name!r}, which is not one of Redis's here"


def _file(name: str, path: Path) -> Iterator[str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        yield f"names {path} in {name}, which cannot be read: {error.strerror}"
        return
    if name in _AUTHORITIES:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode())
        except (ssl.SSLError, ValueError):
            yield f"names {path} in {name}, which holds no certificate"
