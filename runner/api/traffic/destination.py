"""The sandbox and port that a request is for: by its path, or by the name of its host."""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes
from uuid import UUID

from starlette.types import Scope

DESTINATION = "runner.destination"
"""In the scope of a request to a port: its `PortTarget`."""
MAX_PORT = 65535
IN_QUERY = b"runner_token"
"""The parameter of a query that holds a port's token; it never goes inside."""

_PATH = re.compile(rb"(/v1/sandboxes/([^/?]{1,64})/ports/([^/?]{1,64}))(/.*)", re.DOTALL)
_LABEL = re.compile(r"([1-9][0-9]{0,4})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PortTarget:
    """A port of a sandbox, and what is asked of the server there."""

    sandbox_id: UUID
    port: int
    target: bytes
    """The path and the query as the server gets them, without a token of ours."""
    prefix: bytes
    """The part of the path that was taken from the front of it; empty by name."""
    by_name: bool
    token: str | None = field(default=None, repr=False)
    """The port's token, if the query had it."""


class Nowhere(Exception):
    """The request is for a port, but for none that there can be."""


@dataclass(frozen=True, slots=True)
class PortAddresses:
    """The addresses of the ports of sandboxes; by name only below `domain`."""

    domain: str | None

    def is_name(self, host: bytes) -> bool:
        """Return whether a Host header names something below the ports' domain, or the domain."""
        return self.domain is not None and _is_below(_name(host), self.domain)

    def find(self, scope: Scope) -> PortTarget | None:
        """Return what a request is for; None if it is for the API. Raises Nowhere."""
        host = dict(scope["headers"]).get(b"host", b"")
        if self.domain is not None and _is_below(name := _name(host), self.domain):
            return _by_name(name.removesuffix(f".{self.domain}"), scope)
        return _by_path(scope)

    def url(self, sandbox_id: UUID, port: int, *, secure: bool, host: str) -> str:
        """Return where a port is reached; without a domain, relative to the API's own address.

        `host` is the API's Host header, whose port belongs to the address where TLS is not used.
        """
        if self.domain is None:
            return f"/v1/sandboxes/{sandbox_id}/ports/{port}/"
        beside = re.search(r":[0-9]{1,5}$", host)
        where = "" if secure or beside is None else beside[0]
        return f"{'https' if secure else 'http'}://{port}-{sandbox_id}.{self.domain}{where}/"


def _by_name(label: str, scope: Scope) -> PortTarget:
    found = _LABEL.fullmatch(label)
    path: bytes = scope["raw_path"]
    if found is None or not path.startswith(b"/"):
        raise Nowhere
    target, token = _asked(path, scope)
    return PortTarget(UUID(found[2]), _number(found[1]), target, b"", by_name=True, token=token)


def _by_path(scope: Scope) -> PortTarget | None:
    found = _PATH.fullmatch(scope["raw_path"])
    if found is None:
        return None
    try:
        sandbox_id = UUID(found[2].decode("ascii"))
        port = _number(found[3].decode("ascii"))
    except ValueError:
        raise Nowhere from None
    target, token = _asked(found[4], scope)
    return PortTarget(sandbox_id, port, target, found[1], by_name=False, token=token)


def _number(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > MAX_PORT:
        raise Nowhere
    return int(text)


def _asked(path: bytes, scope: Scope) -> tuple[bytes, str | None]:
    """Return what the server inside is asked for, and our token from the query.

    The token is found by its decoded name, and the rest of the query stays as it is.
    """
    query: bytes = scope["query_string"]
    parts = query.split(b"&")
    kept = [each for each in parts if not _is_token(each)]
    if len(kept) == len(parts):
        return (path + b"?" + query if query else path), None
    tokens = [unquote_to_bytes(each.partition(b"=")[2]) for each in parts if _is_token(each)]
    target = path + b"?" + b"&".join(kept) if any(kept) else path
    return target, tokens[-1].decode("latin-1") or None


def _is_token(parameter: bytes) -> bool:
    return unquote_to_bytes(parameter.partition(b"=")[0].replace(b"+", b" ")) == IN_QUERY


def _name(host: bytes) -> str:
    return re.sub(r":[0-9]*$", "", host.decode("latin-1").strip().lower()).removesuffix(".")


def _is_below(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")
