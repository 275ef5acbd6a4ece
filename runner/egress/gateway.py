"""The worker's side of the egress proxy: keeps it running, and opens and closes sessions.

A proxy that dies takes every connection with it and nothing else: the listening sockets are held
here, too, so that what a sandbox asks for meanwhile waits for the next one.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from runner.base.duties import Duties
from runner.base.tasks import uninterrupted
from runner.egress.certificates import load_or_make_authority
from runner.egress.control import Control
from runner.egress.policy import Policy, policy_to_json
from runner.egress.session import Decision, Summary
from runner.words.errors import NotReady, SetupError

READY_S = 20.0
CLOSE_S = 5.0
_PACKAGES = Path(__file__).resolve().parents[2]

_log = structlog.get_logger("runner.egress")
_NOTHING = Summary(0, 0, 0, 0, 0)


@dataclass(slots=True)
class _Open:
    """A session as the gateway knows it."""

    tenant: str
    policy: Policy
    listener: socket.socket
    secrets: Mapping[str, str] = field(repr=False)
    on_decision: Callable[[Decision], None]
    closed: asyncio.Future[Summary]
    told: Summary = _NOTHING
    """What this proxy has told of the session; what an earlier one told is in `before`."""
    before: Summary = _NOTHING


class EgressGateway:
    """The running proxy."""

    def __init__(self, begin: Mapping[str, Any], ca_pem: str, patience: int) -> None:
        self.ca_pem = ca_pem
        self.pid: int | None = None
        self._begin = begin
        self._patience = patience
        self._sessions: dict[str, _Open] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._control: Control | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        uid: int,
        trusted_networks: Sequence[str],
        hosts: Mapping[str, str],
        roots: str,
        profiles_dir: Path,
        state_dir: Path,
        patience: int = 1,
        duties: Duties | None = None,
    ) -> AsyncIterator["EgressGateway"]:
        """Keep a proxy running while the context lasts; `patience` multiplies the waits on it.

        `roots` are certificates (PEM) of further authorities. Raises SetupError when the proxy
        does not start.
        """
        key, certificate = load_or_make_authority(state_dir / "egress")
        begin = {
            "do": "begin",
            "uid": uid,
            "trusted": list(trusted_networks),
            "hosts": dict(hosts),
            "roots": roots,
            "profiles_dir": str(profiles_dir),
            "ca_key": key,
            "ca_certificate": certificate,
        }
        gateway = cls(begin, certificate, patience)
        await gateway._spawn()
        try:
            keeping = (duties or Duties()).doing(
                "keeping the egress proxy", gateway._keep, lasting=True
            )
            async with keeping:
                yield gateway
        finally:
            await gateway._end()

    async def open_session(
        self,
        session: str,
        tenant: str,
        policy: Policy,
        listener: socket.socket,
        secrets: Mapping[str, str],
        on_decision: Callable[[Decision], None],
    ) -> "GatewaySession":
        """Have connections to this socket served by this policy; the socket is taken over.

        All sessions of a tenant share its part of the proxy.
        """
        opened = _Open(
            tenant=tenant,
            policy=policy,
            listener=listener,
            secrets=secrets,
            on_decision=on_decision,
            closed=asyncio.get_running_loop().create_future(),
        )
        self._sessions[session] = opened
        try:
            await self._hand_over(session, opened)
        except BaseException:
            # Nobody has the session then, who could close it.
            await uninterrupted(self.close_session(session))
            raise
        return GatewaySession(self, session)

    async def close_session(self, session: str) -> Summary:
        """Cut every connection of the session and return what it came to."""
        opened = self._sessions[session]
        try:
            if self._control is not None:
                await self._control.send({"do": "close", "session": session})
                async with asyncio.timeout(CLOSE_S * self._patience):
                    return _sum(opened.before, await opened.closed)
        except (ConnectionError, TimeoutError) as error:
            _log.warning("session_closed_without_proxy", session=session, why=type(error).__name__)
        finally:
            del self._sessions[session]
            opened.listener.close()
        return _sum(opened.before, opened.told)

    async def _hand_over(self, session: str, opened: _Open) -> None:
        if self._control is None:
            return
        # When the proxy dies now, the next one is handed every open session.
        with contextlib.suppress(ConnectionError):
            await self._control.send(
                {
                    "do": "open",
                    "session": session,
                    "tenant": opened.tenant,
                    "policy": policy_to_json(opened.policy),
                    "secrets": dict(opened.secrets),
                },
                opened.listener.fileno(),
            )

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "runner.egress",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # Nothing of the worker's environment: it may hold the database's password.
                env={
                    "PYTHONPATH": str(_PACKAGES),
                    "PATH": "/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    # A name server that is silent does not hold a thread for long (resolv.conf(5)).
                    "RES_OPTIONS": "timeout:2 attempts:2",
                },
            )
        control = Control(ours)
        try:
            async with asyncio.timeout(READY_S * self._patience):
                await control.send(self._begin)
                answer = await control.receive()
        except BaseException as error:
            control.close()
            code = await self._end()
            if isinstance(error, ConnectionError | TimeoutError):
                raise SetupError(
                    f"the egress proxy did not start (exit code {code}); its log says why"
                ) from error
            raise
        if answer["say"] == "failed":
            control.close()
            await self._end()
            raise SetupError(f"the egress proxy does not start: {answer['why']}")
        self.pid = process.pid
        self._control = control

    async def _keep(self) -> None:
        """Have a proxy, and hear it until it dies; a new one is handed every session."""
        if self._control is None:
            await self._spawn()
            for session, opened in list(self._sessions.items()):
                opened.before, opened.told = _sum(opened.before, opened.told), _NOTHING
                await self._hand_over(session, opened)
        try:
            while self._control is not None:
                self._heard(await self._control.receive())
        except ConnectionError:
            code = await self._end()
            raise NotReady(f"the egress proxy died (exit code {code})") from None
        except Exception:
            # What it says cannot be followed any more.
            await self._end()
            raise

    async def _end(self) -> int | None:
        """End the process, if there is one; return its exit code."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            control.close()
        if process is None:
            return None
        try:
            async with asyncio.timeout(CLOSE_S * self._patience):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

    def _heard(self, message: Mapping[str, Any]) -> None:
        if message["say"] == "closed":
            opened = self._sessions.get(message["session"])
            if opened and not opened.closed.done():
                opened.closed.set_result(Summary(**message["summary"]))
        elif message["say"] == "decided":
            fields = message["decision"]
            decision = Decision(**{**fields, "at": datetime.fromisoformat(fields["at"])})
            if opened := self._sessions.get(decision.session):
                opened.told = _with(opened.told, decision)
                opened.on_decision(decision)


@dataclass(frozen=True, slots=True)
class GatewaySession:
    """One sandbox's way out."""

    _gateway: EgressGateway
    id: str

    async def close(self) -> Summary:
        """Cut all its connections and return what it came to, also for one who is cancelled."""
        return await uninterrupted(self._gateway.close_session(self.id))


def _sum(first: Summary, second: Summary) -> Summary:
    return Summary(
        allowed=first.allowed + second.allowed,
        denied=first.denied + second.denied,
        connections=first.connections + second.connections,
        bytes_up=first.bytes_up + second.bytes_up,
        bytes_down=first.bytes_down + second.bytes_down,
    )


def _with(told: Summary, decision: Decision) -> Summary:
    allowed = decision.outcome == "allowed"
    return replace(
        told,
        allowed=told.allowed + allowed,
        denied=told.denied + (not allowed),
        connections=told.connections + 1,
        bytes_up=told.bytes_up + decision.bytes_up,
        bytes_down=told.bytes_down + decision.bytes_down,
    )
