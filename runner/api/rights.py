"""Ends every request whose right ends. Pure ASGI."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.callers import SESSION
from runner.api.context import request_id
from runner.api.edge.sockets import SOCKET, Socket
from runner.api.middleware import PRINCIPAL
from runner.api.problems import closing, of
from runner.auth.operating import OperatorRights, OperatorSession
from runner.auth.rights import HELD, Rights
from runner.words.errors import RightEnded, RightUnconfirmed
from runner.words.principal import Operator, Principal

_log = structlog.get_logger("runner.api")


class EndsWithRight:
    """Ends a request when its right ends: a stream, download, upload, or slow body."""

    def __init__(
        self, app: ASGIApp, rights: Rights, operators: OperatorRights | None = None
    ) -> None:
        self._app = app
        self._rights = rights
        self._operators = operators

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. An answer that has begun is cut off, visibly incomplete."""
        principal = scope.get(PRINCIPAL)
        if principal is None:
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            with self._hold(principal, scope):
                await self._app(scope, receive, noted)
        except (RightEnded, RightUnconfirmed) as error:
            request = Request(scope)
            event = "right_ended" if isinstance(error, RightEnded) else "right_unconfirmed"
            _log.info(event, actor=principal.actor, request=request_id(request))
            if not started:
                await of(request, error)(scope, receive, send)
            elif isinstance(socket := scope.get(SOCKET), Socket):
                await socket.close(*closing(error))

    @contextmanager
    def _hold(self, principal: Principal | Operator, scope: Scope) -> Iterator[None]:
        if isinstance(principal, Principal):
            with self._rights.hold(principal) as scope[HELD]:
                yield
            return
        if self._operators is None:
            raise RuntimeError("an operator calls where nobody can tell whether the right holds")
        session = scope.get(SESSION)
        id_ = session.id if isinstance(session, OperatorSession) else None
        with self._operators.hold(principal, id_):
            yield
