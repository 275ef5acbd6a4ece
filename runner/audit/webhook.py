"""Deliveries by HTTPS, signed as Standard Webhooks says (standardwebhooks.com, version 1).

`webhook-signature` is `v1,` and base64 of HMAC-SHA256, keyed with the bytes behind `whsec_`, over
`{webhook-id}.{webhook-timestamp}.{body}`. Only the status of the answer is read. A 2xx means that
the receiver took the batch; everything else, including a redirect, means that it did not.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import ssl
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore

from runner import __version__
from runner.audit.delivery import Batch, Undelivered
from runner.audit.export import line
from runner.audit.outbound import Destination, Guard
from runner.network.names import BadName, normalise

PREFIX = "whsec_"
SECRET_BYTES = 32
MAX_URL = 2048
CONNECT_S = 5.0
ANSWER_S = 10.0
_SHORTEST = 24
"""Length of a secret in bytes, by the standard."""
_SUCCESS = range(200, 300)
_REDIRECTS = range(300, 400)


def new_secret() -> str:
    """Return a new signing secret, in the form that the receiver gets."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """Return the bytes that sign. Raises ValueError if the text is not a signing secret."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or len(key) < _SHORTEST:
        raise ValueError(f"must be {PREFIX} and base64 of at least {_SHORTEST} random bytes")
    return key


def sign(key: bytes, id_: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`."""
    mac = hmac.new(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def parse_url(url: str) -> tuple[str, int, str]:
    """Return host, port and target of a webhook's address, with the host normalised.

    Raises ValueError unless it is `https://host[:port][/path][?query]` in plain ASCII.
    """
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"must be printable ASCII without spaces, at most {MAX_URL} characters")
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        raise ValueError("must be an address such as https://host/path") from None
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("must begin with https:// and a host")
    if "@" in parts.netloc or "#" in url or "\\" in url:
        raise ValueError("must have no user information, no fragment and no backslash")
    bracketed = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    try:
        host = normalise(bracketed)
    except BadName as error:
        raise ValueError(f"its host is {error}") from None
    target = parts.path or "/"
    return host, port, f"{target}?{parts.query}" if parts.query else target


class Webhooks:
    """Posts batches."""

    def __init__(self, guard: Guard, tls: ssl.SSLContext, *, answer_s: float = ANSWER_S) -> None:
        self._guard = guard
        self._tls = tls
        self._timeouts = {
            "connect": CONNECT_S, "read": answer_s, "write": answer_s, "pool": answer_s,
        }  # fmt: skip

    async def post(self, url: str, key: bytes, batch: Batch) -> None:
        """Deliver a batch. Raises Undelivered."""
        try:
            host, port, path = parse_url(url)
        except ValueError as error:
            raise Undelivered(f"its address {error}") from None
        target = await self._guard.resolve(host, port)
        status = await self._status(target, path, key, batch)
        if status in _REDIRECTS:
            raise Undelivered(f"it answered {status}; redirects are not followed")
        if status not in _SUCCESS:
            raise Undelivered(f"it answered {status}")

    async def _status(self, target: Destination, path: str, key: bytes, batch: Batch) -> int:
        body = payload(batch)
        authority = target.host if target.port == 443 else f"{target.host}:{target.port}"  # noqa: PLR2004
        try:
            # Each delivery has a connection pool of its own: no connection is shared between
            # tenants.
            async with (
                httpcore.AsyncConnectionPool(
                    ssl_context=self._tls, network_backend=_Decided(target), http2=False
                ) as pool,
                pool.stream(
                    "POST",
                    httpcore.URL(
                        scheme=b"https",
                        host=target.host.strip("[]").encode(),
                        port=target.port,
                        target=path.encode(),
                    ),
                    headers=_headers(key, batch, body, authority),
                    content=body,
                    extensions={"timeout": self._timeouts},
                ) as response,
            ):
                return response.status
        except httpcore.TimeoutException as error:
            raise Undelivered("it did not answer in time", repr(error)) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError) as error:
            raise Undelivered(_why(error), repr(error)) from None


class _Decided(httpcore.AsyncNetworkBackend):
    """Connects to the addresses of one target, whatever name it is asked for."""

    def __init__(self, target: Destination) -> None:
        self._target = target
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the address was decided on
        port: int,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ASYNC109 - the library's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection to the first address that answers."""
        problem: Exception | None = None
        for address in self._target.addresses:
            try:
                return await self._network.connect_tcp(
                    str(address),
                    self._target.port,
                    timeout=timeout,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem or httpcore.ConnectError("no address")


def payload(batch: Batch) -> bytes:
    """Return a batch as canonical JSON: its tenant, and the records as in an export."""
    records = ",".join(line(each) for each in batch.links)
    return f'{{"records":[{records}],"tenant":"{batch.tenant}"}}'.encode()


def _headers(
    key: bytes, batch: Batch, body: bytes, authority: str
) -> dict[bytes | str, bytes | str]:
    id_ = f"audit-{batch.tenant}-{batch.first}-{batch.last}"
    timestamp = int(time.time())
    return {
        "Host": authority,
        "User-Agent": f"agent-runner/{__version__}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "webhook-id": id_,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(key, id_, timestamp, body),
    }


def _why(error: Exception) -> str:
    if isinstance(error, httpcore.ConnectError) and "certificate" in str(error).lower():
        return "its certificate is not valid for its name"
    if isinstance(error, httpcore.ConnectError):
        return "it cannot be connected to"
    return "it did not answer in HTTP"
