"""Deliveries by syslog: RFC 5424 messages over TCP or TLS (RFC 5425), by octet counting (RFC 6587).

Syslog has no acknowledgements. A batch counts as delivered once the receiver's host has
acknowledged every byte (SIOCOUTQ of tcp(7)) and the connection is still open.
"""

import asyncio
import fcntl
import json
import ssl
import struct
import termios
from dataclasses import dataclass
from urllib.parse import urlsplit

from runner.audit.chain import Link
from runner.audit.delivery import Batch, Undelivered
from runner.audit.export import line
from runner.audit.outbound import Destination, Guard
from runner.network.names import BadName, normalise
from runner.words.errors import SetupError

FACILITY_AUDIT = 13
INFORMATIONAL, WARNING = 6, 4
ENTERPRISE = 32473
"""The number for documentation (RFC 5612): it names our structured data and belongs to nobody."""
CONNECT_S = 5.0
ACKNOWLEDGED_S = 10.0
_POLL_S = 0.005
_NIL = "-"


@dataclass(frozen=True, slots=True)
class Receiver:
    """The address that messages go to."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> "Receiver":
        """Return the receiver in `tcp://host:port` or `tls://host:port`. Raises SetupError."""
        try:
            parts = urlsplit(url)
            host, port = normalise(parts.netloc.rpartition(":")[0]), parts.port
        except (ValueError, BadName):
            host, port = "", None
        if parts.scheme not in {"tcp", "tls"} or not host or not port or parts.path.strip("/"):
            raise SetupError("RUNNER_AUDIT_SYSLOG_URL must be tcp://host:port or tls://host:port")
        return cls(host, port, parts.scheme == "tls")


class Syslog:
    """Sends each batch on a connection of its own."""

    def __init__(
        self, guard: Guard, tls: ssl.SSLContext, receiver: Receiver, *, hostname: str
    ) -> None:
        self._guard = guard
        self._tls = tls
        self._receiver = receiver
        self._hostname = hostname

    async def deliver(self, batch: Batch) -> None:
        """Send a batch. Raises Undelivered."""
        target = await self._guard.resolve(self._receiver.host, self._receiver.port)
        frames = b"".join(
            framed(message(batch, each, hostname=self._hostname)) for each in batch.links
        )
        try:
            reader, writer = await self._connect(target)
        except (OSError, TimeoutError) as error:
            raise Undelivered("it cannot be connected to", repr(error)) from None
        try:
            async with asyncio.timeout(ACKNOWLEDGED_S):
                writer.transport.set_write_buffer_limits(0)
                writer.write(frames)
                await writer.drain()
                # The kernel answers when asked, but announces nothing.
                while _unacknowledged(writer):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
            if reader.at_eof() or reader.exception() is not None:
                raise Undelivered("it closed the connection")
        except TimeoutError:
            raise Undelivered("it did not take the records in time") from None
        except OSError as error:
            raise Undelivered("it closed the connection", repr(error)) from None
        finally:
            writer.close()

    async def _connect(
        self, target: Destination
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        problem: Exception = OSError("no address")
        for address in target.addresses:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(
                        str(address),
                        target.port,
                        ssl=self._tls if self._receiver.tls else None,
                        server_hostname=target.host.strip("[]") if self._receiver.tls else None,
                    )
            except (OSError, TimeoutError) as error:
                problem = error
        raise problem


def message(batch: Batch, link: Link, *, hostname: str) -> bytes:
    """Return a record as an RFC 5424 message, whose text is the record's line of an export."""
    record = json.loads(link.body)
    severity = INFORMATIONAL if record["outcome"] == "success" else WARNING
    head = " ".join(
        (
            f"<{FACILITY_AUDIT * 8 + severity}>1",
            record["at"],
            hostname,
            "agent-runner",
            _NIL,
            record["action"][:32],
            f'[audit@{ENTERPRISE} tenant="{batch.tenant}" seq="{link.seq}"]',
        )
    )
    return f"{head} {line(link)}".encode()


def framed(text: bytes) -> bytes:
    """Return a message with its length in front (RFC 6587, 3.4.1)."""
    return b"%d %s" % (len(text), text)


def _unacknowledged(writer: asyncio.StreamWriter) -> int:
    """Return how many bytes the receiver's host has not acknowledged."""
    if writer.transport.is_closing():
        raise ConnectionResetError("the connection was closed")
    descriptor = writer.get_extra_info("socket").fileno()
    waiting: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
    return waiting
