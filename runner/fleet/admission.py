"""`runner nodes admit`: gives certificates to hosts that bring an invitation's token.

It is the only process that needs the key of the deployment's authority, so it is apart from what
serves tenants, and need only run while hosts join. Whoever connects is a stranger: how often one
address may try, and how many may try at once, is bounded before anything else is done for it.
"""

import asyncio
import ipaddress
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog

from runner.audit.events import Origin
from runner.auth.caller import By
from runner.base.duties import Duties
from runner.base.sockets import accept
from runner.door import identity, joining
from runner.door.identity import DoorRole, Issued
from runner.door.joining import JOIN_REPLIES, JOIN_REQUESTS, JoinedReply, JoinMessage, JoinRequest
from runner.door.wire import READ_AHEAD, DoorLine, Hung
from runner.fleet import invitations
from runner.network.addresses import site
from runner.store.db import Database
from runner.words.errors import ProtocolViolation, SetupError

ACTOR = "system:admission"
WITHIN_S = 5.0
"""Seconds in which a host shows the handshake and says what it wants."""
MOST_AT_ONCE = 16
MINUTE_S = 60.0
PER_ADDRESS = 10
"""Attempts of one address in a minute."""
IN_ALL = 100
"""Attempts of all addresses in a minute: each may leave a record in the audit log."""
CONTEXT_S = 86_400.0
"""How soon the admission makes a new certificate for itself."""
_log = structlog.get_logger("runner.admission")


class Attempts:
    """Counts attempts in the last minute, in bounded memory."""

    def __init__(self, *, per_address: int = PER_ADDRESS, in_all: int = IN_ALL) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._lately: deque[tuple[float, str]] = deque()

    def allow(self, address: str, now: float) -> bool:
        """Return whether this address may try once more, and count the attempt if so."""
        while self._lately and self._lately[0][0] <= now - MINUTE_S:
            self._lately.popleft()
        client = site(ipaddress.ip_address(address))
        mine = sum(each == client for _, each in self._lately)
        if mine >= self._per_address or len(self._lately) >= self._in_all:
            return False
        self._lately.append((now, client))
        return True


@dataclass(frozen=True, slots=True)
class AdmissionTerms:
    """What each host that joins is given."""

    authority: Path
    """The folder of the authority."""
    lasting: timedelta
    """How long a node's certificate is good."""
    settings: Mapping[str, str]


class NodeAdmission:
    """Answers hosts that join. `answer` is a duty."""

    def __init__(
        self,
        database: Database,
        terms: AdmissionTerms,
        listener: socket.socket,
        attempts: Attempts | None = None,
        *,
        within_s: float = WITHIN_S,
    ) -> None:
        """Take the operator's database. Raises SetupError if the authority cannot be read."""
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._database = database
        self._terms = terms
        self._listener = listener
        self._attempts = attempts or Attempts()
        self._within_s = within_s
        self._hosts: set[asyncio.Task[None]] = set()
        self._shown = (time.monotonic(), joining.admission_context(terms.authority))

    async def answer(self) -> None:
        """Answer whoever connects, for ever. Raises OSError if there are no descriptors left."""
        while True:
            link = await accept(self._listener)
            self._meet(link)
            # A flood of connections must not keep the loop from everything else.
            await asyncio.sleep(0)

    def _meet(self, link: socket.socket) -> None:
        try:
            address = str(link.getpeername()[0])
        except OSError:
            # It has hung up already.
            link.close()
            return
        full = len(self._hosts) >= MOST_AT_ONCE
        if full or not self._attempts.allow(address, time.monotonic()):
            # Strangers decide how often this happens, and must not fill the log.
            _log.debug("host_turned_away", address=address)
            link.close()
            return
        task = asyncio.create_task(self._serve(link, address))
        self._hosts.add(task)
        task.add_done_callback(partial(self._served, link))

    def _served(self, link: socket.socket, task: asyncio.Task[None]) -> None:
        self._hosts.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("host_not_answered", exc_info=error)
        # A task that was cancelled before its first step has closed nothing.
        link.close()

    async def _serve(self, link: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_AHEAD)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            async with asyncio.timeout(self._within_s):
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol,
                    link,
                    ssl=self._context(),
                    ssl_handshake_timeout=self._within_s,
                )
                writer = asyncio.StreamWriter(transport, protocol, reader, loop)
                line = DoorLine[JoinMessage, JoinMessage](
                    reader, writer, says=JOIN_REPLIES, hears=JOIN_REQUESTS
                )
                try:
                    wanted = await line.hear()
                    if isinstance(wanted, JoinRequest):
                        await line.tell(await self._decide(wanted, address))
                    line.close()
                    with suppress(OSError):
                        await writer.wait_closed()
                finally:
                    line.abort()
        except (OSError, Hung, ProtocolViolation, TimeoutError) as error:
            _log.info("host_said_nothing", address=address, why=str(error) or type(error).__name__)

    async def _decide(self, wanted: JoinRequest, address: str) -> JoinMessage:
        """Return the certificate, or a refusal that does not tell why."""
        node = joining.invited_name(wanted.node_id)
        key = joining.requested_key(wanted.request)
        issued: Issued | None = None
        if node is not None and key is not None:
            terms = self._terms

            def sign() -> Issued:
                return identity.certificate_for(
                    terms.authority, DoorRole.NODE, wanted.node_id, key, terms.lasting
                )

            by = By(ACTOR, Origin(ip=address))
            issued = await invitations.admit(
                self._database, wanted.secret, node, wanted.node_id, by, sign
            )
        if issued is None:
            _log.warning("host_refused", address=address)
            return joining.RefusedReply()
        _log.info("host_admitted", address=address, node=wanted.node_id)
        return JoinedReply(
            issued.certificate.decode(),
            issued.authority.decode(),
            issued.revoked.decode() if issued.revoked is not None else None,
            self._terms.settings,
        )

    def _context(self) -> ssl.SSLContext:
        """Return the context for a connection; its certificate is never near its end."""
        if time.monotonic() > self._shown[0] + CONTEXT_S:
            self._shown = (time.monotonic(), joining.admission_context(self._terms.authority))
        return self._shown[1]

    async def close(self) -> None:
        """Cut all hosts that are being answered."""
        for task in self._hosts:
            task.cancel()
        await asyncio.gather(*self._hosts, return_exceptions=True)


@asynccontextmanager
async def open_admission(
    database: Database,
    terms: AdmissionTerms,
    place: str,
    attempts: Attempts | None = None,
    *,
    within_s: float = WITHIN_S,
) -> AsyncIterator[NodeAdmission]:
    """Answer at `place`, a host and a port, inside the context. Raises SetupError."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, int(port)), family=family, backlog=MOST_AT_ONCE)
    except OSError as error:
        raise SetupError(f"cannot listen at {place}: {error}") from error
    with listener:
        admission = NodeAdmission(database, terms, listener, attempts, within_s=within_s)
        duties = Duties()
        try:
            async with duties.doing("answering hosts that join", admission.answer, lasting=True):
                yield admission
        finally:
            await admission.close()
