"""Requests are counted by their credential, and signed addresses in time, without services."""

from typing import Any, cast
from uuid import UUID

import pytest
from starlette.types import Message, Receive, Scope, Send

from runner.api.edge.doubt import DOUBT
from runner.api.edge.groups import Group
from runner.api.edge.ratelimit import Allowance, RateLimiter, Window
from runner.api.edge.rates import PrincipalRates, StrangerRates, _credential
from runner.api.edge.routing import BODY, TEMPLATE, Body
from runner.api.middleware import PRINCIPAL
from runner.api.traffic.destination import DESTINATION
from runner.base.rates import Rate, RateLimits
from runner.words.principal import Principal, PrincipalKind, Role

SIGNED = b"path=/a&signature=v1_x"
ID = b"0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"


def asked(path: str, query: bytes = b"", **headers: bytes) -> Scope:
    """Return the scope of a request."""
    raw = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": query, "headers": raw, "client": ("192.0.2.1", 1), TEMPLATE: path,
    }  # fmt: skip


@pytest.mark.parametrize("query", [SIGNED, b"signatur%65=v1_x&path=/a", b"%73ignature=v1_y"])
def test_a_signature_is_a_credential_however_it_is_written(query: bytes) -> None:
    """Each query is another one, and no header that nobody reads makes another of it."""
    plain = _credential(asked("/files", query))
    assert plain is not None
    assert plain != _credential(asked("/files", query + b"&x=1"))
    for name in ("x_api_key", "authorization", "cookie", "e2b_traffic_access_token"):
        assert _credential(asked("/files", query, **{name: b"1"})) == plain
    assert _credential(asked("/files", query, x_access_token=b"st_")) != plain


@pytest.mark.parametrize(
    ("path", "counts"),
    [("/files", "x_access_token"), ("/health", "x_access_token"), ("/v2/sandboxes", "x_api_key"),
     ("/contexts", "x_access_token"), ("/v1/sandboxes", "authorization")],
)  # fmt: skip
def test_one_header_counts_on_each_route(path: str, counts: str) -> None:
    """So nobody makes new credentials of one by headers that nobody reads."""
    others = {"x_access_token", "x_api_key", "authorization", "cookie", "e2b_traffic_access_token"}
    alone = _credential(asked(path, SIGNED, **{counts: b"1"}))
    assert alone is not None
    for other in others - {counts}:
        assert _credential(asked(path, SIGNED, **{counts: b"1", other: b"2"})) == alone
    assert _credential(asked(path, SIGNED, **{counts: b"2"})) != alone


def test_what_a_port_and_contexts_take_counts_there_alone() -> None:
    traffic: dict[str, bytes] = {"e2b_traffic_access_token": b"tt_"}
    assert _credential(asked("/contexts", **traffic)) is not None
    assert _credential(asked("/health", **traffic)) is None
    at_port = asked("/v1/sandboxes/x/ports/1/", authorization=b"1", **traffic)
    alone = _credential(at_port)
    assert _credential({**at_port, DESTINATION: object()}) not in {alone, None}


class Counting:
    """Stands for Redis: notes what is counted, and what is looked at."""

    def __init__(self, *, allowed: bool) -> None:
        self.noted: list[tuple[str, str]] = []
        self._answer = Allowance(allowed, (Window("minute", 1, 60, int(allowed), 60),))

    async def hit(self, _rate: Rate, *key: str, cost: int = 1) -> Allowance:  # noqa: ARG002
        """Count."""
        self.noted.append(("hit", key[-1]))
        return self._answer

    async def look(self, _rate: Rate, *key: str) -> Allowance:
        """Look."""
        self.noted.append(("look", key[-1]))
        return self._answer


async def served(scope: Scope, *, allowed: bool = True, right: bool = False) -> list[Any]:
    """Serve a request; return what was counted before its credential was verified, and after."""
    limiter, before = Counting(allowed=allowed), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        before.extend([*limiter.noted, *(["doubt"] if DOUBT in scope else [])])
        if right:
            scope[PRINCIPAL] = "somebody"
        await send({"type": "http.response.start", "status": 401, "headers": []})

    async def send(_message: Message) -> None:
        pass

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    rates = StrangerRates(app, cast(RateLimiter, limiter), RateLimits())
    await rates(scope, receive, send)
    return [before, limiter.noted[sum(each != "doubt" for each in before) :]]


async def test_a_search_is_counted_before_it_begins() -> None:
    """Right or wrong, it costs the same, and too many wait for a turn."""
    for right in (False, True):
        assert await served(asked("/files", SIGNED), right=right) == [[("hit", "searches")], []]
    in_doubt = await served(asked("/files", SIGNED), allowed=False)
    assert in_doubt == [[("hit", "searches"), "doubt"], []]


async def test_what_costs_no_search_is_counted_if_it_was_wrong() -> None:
    for scope in (
        asked("/files", SIGNED, e2b_sandbox_id=ID),
        asked("/files", SIGNED, x_access_token=b"st_"),
    ):
        looked = [("look", "credentials")]
        assert await served(dict(scope)) == [looked, [("hit", "credentials")]]
        assert await served(dict(scope), right=True) == [looked, []]


async def test_who_uses_a_signed_address_uses_none_of_its_signers_rate() -> None:
    """A leaked address must not stop the agent that signed it."""
    limiter = Counting(allowed=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    rates = PrincipalRates(app, cast(RateLimiter, limiter), RateLimits())
    signer = Principal(
        tenant_id=UUID(int=1), id=UUID(int=2), kind=PrincipalKind.KEY, name="abcdefghijkl",
        role=Role.DEVELOPER,
    )  # fmt: skip
    for scope in (asked("/files", SIGNED), asked("/files", SIGNED, x_access_token=b"st_")):
        scope.update({PRINCIPAL: signer, BODY: Body.NONE})
        await rates(scope, cast(Receive, None), cast(Send, None))
    assert limiter.noted == [("hit", Group.SIGNED.value), ("hit", Group.USE.value)]
