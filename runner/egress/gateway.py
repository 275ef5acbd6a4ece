"""The worker's side of the egress proxy: keeps it running, opens and closes sessions.

If the proxy dies, its connections are lost, and nothing else. The worker holds the listening
sockets as well, so new connections of a sandbox wait in them for the next proxy.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from runner.base.duties import Duties
from runner.base.tasks import uninterrupted
from runner.egress.certificates import load_or_make_authority
from runner.egress.control import Control
from runner.egress.opened import OpenSession, added, confirm, including
from runner.egress.policy import Policy, policy_to_json
from runner.egress.session import NOTHING, Decision, Summary
from runner.words.errors import NotReady, SetupError

READY_S = 20.0
CLOSE_S = 5.0
COUNT_S = 1.0
_PACKAGES = Path(__file__).resolve().parents[2]

_log = structlog.get_logger("runner.egress")


class EgressGateway:
    """The running proxy."""

    def __init__(self, begin: Mapping[str, Any], ca_pem: str, patience: int) -> None:
        self.ca_pem = ca_pem
        self.pid: int | None = None
        self._begin = begin
        self._patience = patience
        self._sessions: dict[str, OpenSession] = {}
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
        """Keep a proxy running inside the context; `patience` multiplies the waits for it.

        `roots` are certificates (PEM) of further authorities. Raises SetupError if the proxy does
        not start.
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
        """Let the proxy serve connections to this socket by this policy; it takes the socket over.

        All sessions of a tenant use the same share of the proxy.
        """
        opened = OpenSession(
            tenant=tenant,
            policy=policy,
            listener=listener,
            secrets=secrets,
            on_decision=on_decision,
        )
        self._sessions[session] = opened
        try:
            await self._hand_over(session, opened)
        except BaseException:
            # The caller does not have the session yet, so nobody else could close it.
            await uninterrupted(self.close_session(session))
            raise
        return GatewaySession(self, session)

    async def count_session(self, session: str) -> Summary:
        """Return the sums of an open session so far, including its open connections.

        If the proxy does not answer in time, it returns what the proxy has reported before.
        """
        opened = self._sessions.get(session)
        if opened is None:
            return NOTHING
        if self._control is not None:
            answer = opened.answer
            if answer is None:
                answer = opened.answer = asyncio.get_running_loop().create_future()
                with contextlib.suppress(ConnectionError):
                    await self._control.send({"do": "count", "session": session})
            await asyncio.wait({answer}, timeout=COUNT_S * self._patience)
        return added(opened.before, opened.known)

    async def change_session(
        self, session: str, policy: Policy, secrets: Mapping[str, str]
    ) -> None:
        """Decide by another policy from now on; connections that it does not permit are cut.

        Raises NotReady if the proxy does not confirm it in time: it decides so as soon as it can.
        """
        opened = self._sessions.get(session)
        if opened is None:
            # The sandbox ends, and its way out with it.
            return
        async with opened.changing:
            opened.policy, opened.secrets = policy, secrets
            opened.changes += 1
            if self._control is None:
                # The next proxy begins with these.
                return
            opened.changed = asyncio.get_running_loop().create_future()
            try:
                await self._control.send(
                    {
                        "do": "change",
                        "session": session,
                        "number": opened.changes,
                        "policy": policy_to_json(policy),
                        "secrets": dict(secrets),
                    }
                )
            except ConnectionError:
                return
            done, _ = await asyncio.wait({opened.changed}, timeout=CLOSE_S * self._patience)
            if not done:
                raise NotReady("the egress proxy did not confirm the new rules in time")

    async def close_session(self, session: str) -> Summary:
        """Cut every connection of the session and return its sums.

        If the proxy dies meanwhile, they are cut with it.
        """
        opened = self._sessions[session]
        opened.closed = asyncio.get_running_loop().create_future()
        try:
            if self._control is not None:
                await self._control.send({"do": "close", "session": session})
                async with asyncio.timeout(CLOSE_S * self._patience):
                    await opened.closed
        except (ConnectionError, TimeoutError) as error:
            _log.warning("session_closed_without_proxy", session=session, why=type(error).__name__)
        finally:
            del self._sessions[session]
            opened.listener.close()
        return added(opened.before, opened.known)

    async def _hand_over(self, session: str, opened: OpenSession) -> None:
        if self._control is None:
            return
        # If the proxy dies during this, the next one gets every open session.
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
                # Pass on nothing of the worker's environment: it may hold the database's password.
                env={
                    "PYTHONPATH": str(_PACKAGES),
                    "PATH": "/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    # A silent name server then does not occupy a thread for long (resolv.conf(5)).
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
            code = await uninterrupted(self._end())
            if isinstance(error, ConnectionError | TimeoutError):
                raise SetupError(
                    f"the egress proxy did not start (exit code {code}); its log says why"
                ) from error
            raise
        if answer["say"] == "failed":
            control.close()
            await uninterrupted(self._end())
            raise SetupError(f"the egress proxy does not start: {answer['why']}")
        self.pid = process.pid
        self._control = control

    async def _keep(self) -> None:
        """Start a proxy if none runs, give it every session, and follow it until it dies."""
        if self._control is None:
            await self._spawn()
            for session, opened in list(self._sessions.items()):
                opened.before = added(opened.before, opened.known)
                opened.told = opened.counted = NOTHING
                await self._hand_over(session, opened)
                confirm(opened.changed)
        try:
            while self._control is not None:
                self._heard(await self._control.receive())
        except ConnectionError:
            code = await uninterrupted(self._end())
            raise NotReady(f"the egress proxy died (exit code {code})") from None
        except Exception:
            # After a message that makes no sense, the next ones cannot be trusted either.
            await uninterrupted(self._end())
            raise

    async def _end(self) -> int | None:
        """End the process if there is one, and return its exit code."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            control.close()
        for opened in self._sessions.values():
            # Nobody says more than is known.
            confirm(opened.closed)
            confirm(opened.answer)
            opened.answer = None
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
            if opened := self._sessions.get(message["session"]):
                opened.counted = Summary(**message["summary"])
                confirm(opened.closed)
        elif message["say"] == "changed":
            opened = self._sessions.get(message["session"])
            # The word on a change that came too late is none on the next one.
            if opened and opened.changes == message["number"]:
                confirm(opened.changed)
        elif message["say"] == "counted":
            if opened := self._sessions.get(message["session"]):
                opened.counted = Summary(**message["summary"])
                confirm(opened.answer)
                opened.answer = None
        elif message["say"] == "decided":
            fields = message["decision"]
            decision = Decision(**{**fields, "at": datetime.fromisoformat(fields["at"])})
            if opened := self._sessions.get(decision.session):
                opened.told = including(opened.told, decision)
                opened.on_decision(decision)


@dataclass(frozen=True, slots=True)
class GatewaySession:
    """One sandbox's way out."""

    _gateway: EgressGateway
    id: str

    async def count(self) -> Summary:
        """Return its sums so far, as far as they are known within a moment."""
        return await self._gateway.count_session(self.id)

    async def change(self, policy: Policy, secrets: Mapping[str, str]) -> None:
        """Decide by another policy from now on. Raises NotReady if that is not confirmed."""
        await self._gateway.change_session(self.id, policy, secrets)

    async def close(self) -> Summary:
        """Cut all its connections and return its sums, even if the caller is cancelled."""
        return await uninterrupted(self._gateway.close_session(self.id))
