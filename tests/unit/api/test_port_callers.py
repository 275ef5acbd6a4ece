"""A port's callers have a cookie, a bounded number of places, and a bounded cost."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from fastapi.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from runner.api.edge.rates import BYTES_FOR_ONE, CHARGE
from runner.api.edge.routing import Body
from runner.api.problems import Answered
from runner.api.traffic.callers import PortCallers
from runner.api.traffic.carried import Carried
from runner.api.traffic.cookies import PortCookie
from runner.api.traffic.destination import DESTINATION, PortAddresses, PortTarget
from runner.api.traffic.proxy import MOST_AT_ONCE, MOST_WITHOUT_KEY, PortPlaces
from runner.base.rates import RateLimits
from runner.sandboxes.ports import _digest, last_moment, opens
from runner.store.ports import FoundPort
from runner.words.errors import NodeAway
from runner.words.principal import Principal, PrincipalKind, Role, Tier

SANDBOX = UUID("0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2")
TOKEN = "pt_" + "a" * 43
LATER = datetime(2100, 1, 1, tzinfo=UTC)
MIB = BYTES_FOR_ONE[Body.STREAMED]


def port(token: str | None) -> FoundPort:
    """Return an opened port; without a token, a public one."""
    digest = None if token is None else _digest(token)
    return FoundPort(SANDBOX, LATER, Tier.FREE, digest)


class Gates:
    """One port that is open."""

    def __init__(self, found: FoundPort) -> None:
        self._found = found

    def knows(self, _sandbox_id: UUID, _port: int) -> bool:
        """Return that it was seen open."""
        return True

    async def find(self, _sandbox_id: UUID, _port: int) -> FoundPort:
        """Return it."""
        return self._found


async def asked(found: FoundPort, query: str) -> tuple[list[Message], bytes | None]:
    """Ask for a page by name; return our answer, or what would go inside."""
    sent: list[Message] = []
    went_in: list[bytes] = []

    async def let_in(scope: Scope, _receive: Receive, _send: Send) -> None:
        target: PortTarget = scope[DESTINATION]
        went_in.append(target.target)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "scheme": "https", "path": "/", "raw_path": b"/a",
        "query_string": query.encode(), "client": ("203.0.113.7", 1), "state": {},
        "headers": [(b"host", f"8000-{SANDBOX}.ports.example".encode())],
    }  # fmt: skip
    scope[DESTINATION] = PortAddresses("ports.example").find(scope)
    callers = PortCallers(
        let_in, let_in, gates=cast("Any", Gates(found)), cookie=PortCookie(secure=True),
        issuer=None, limiter=None, rates=RateLimits(),
    )  # fmt: skip
    await callers(scope, cast("Any", None), send)
    return sent, went_in[0] if went_in else None


async def test_a_private_port_leads_on_with_a_cookie_and_without_the_token() -> None:
    for name in ("runner_token", "runner%5Ftoken"):
        sent, inside = await asked(port(TOKEN), f"x=1&{name}={TOKEN}")
        headers = dict(sent[0]["headers"])
        assert (sent[0]["status"], inside) == (303, None)
        assert headers[b"location"] == b"/a?x=1"
        assert headers[b"set-cookie"].startswith(f"__Host-runner_port={TOKEN};".encode())


async def test_a_public_port_writes_no_cookie_of_what_it_is_told() -> None:
    for told in (TOKEN, "x;%20Domain=example", "x%0d%0aSet-Cookie:%20a"):
        assert await asked(port(None), f"x=1&runner_token={told}") == ([], b"/a?x=1")


def test_what_has_not_the_form_of_a_token_opens_nothing() -> None:
    assert opens(port(TOKEN), TOKEN)
    assert not opens(port("pt_x; a"), "pt_x; a")


def test_visitors_leave_places_for_keys() -> None:
    places = PortPlaces()
    with ExitStack() as stack:
        for _ in range(MOST_WITHOUT_KEY):
            stack.enter_context(places.held(SANDBOX, keyed=False))
        with pytest.raises(NodeAway), places.held(SANDBOX, keyed=False):
            pass
        for _ in range(MOST_AT_ONCE - MOST_WITHOUT_KEY):
            stack.enter_context(places.held(SANDBOX, keyed=True))
        with pytest.raises(NodeAway), places.held(SANDBOX, keyed=True):
            pass
    with places.held(SANDBOX, keyed=False):
        pass


class Sink:
    """A connection inside that takes everything."""

    def __init__(self) -> None:
        self.taken = 0

    async def send(self, data: bytes) -> None:
        """Take bytes."""
        self.taken += len(data)


async def test_a_body_of_no_declared_length_is_charged_as_it_comes() -> None:
    """The request has paid for the first MiB; after one more, its rate is used up."""
    charged: list[int] = []

    async def charge(length: int) -> JSONResponse | None:
        charged.append(length)
        return None if len(charged) == 1 else JSONResponse({}, 429)

    pieces = [b"x" * MIB] * 5

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    sink = Sink()
    target = PortTarget(SANDBOX, 8000, b"/", b"", by_name=True)
    scope: Scope = {"type": "http", "headers": [], DESTINATION: target, CHARGE: charge}
    carried = Carried(scope, receive, cast("Any", None), cast("Any", sink), PortCookie(secure=True))
    head = [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    await carried._exchange.ask("POST", b"/", head)
    with pytest.raises(Answered):
        await carried._feed()
    assert len(charged) == 2 and 2 * MIB <= sink.taken < 3 * MIB


def test_a_port_closes_with_the_token_of_whoever_opened_it() -> None:
    by_key = Principal(SANDBOX, SANDBOX, PrincipalKind.KEY, "k", Role.DEVELOPER)
    by_token = Principal(
        SANDBOX, SANDBOX, PrincipalKind.USER, "u", Role.DEVELOPER, ends_at=LATER.timestamp()
    )
    sooner = LATER - timedelta(hours=1)
    assert last_moment(None, by_key) is None
    assert last_moment(LATER, by_key) == LATER
    assert last_moment(None, by_token) == LATER
    assert last_moment(sooner, by_token) == sooner
