"""One sandbox's session with the proxy: its policy, what is left of its budgets, its records."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Literal

from runner.egress.decide import Asking, Denied, Target, still_permits
from runner.egress.hide import Hidden
from runner.egress.places import MAX_WAITING, Full, Places
from runner.egress.policy import Policy, Rule
from runner.egress.share import Share
from runner.network.names import Address
from runner.words.text import counted, printable

Method = Literal["connect", "http", "socks5"]
MAX_RECORDS = 256
"""How many decisions of a session are reported one by one; further ones are only counted."""
MAX_TEXT = 40 * 1024
"""Most characters of a decision's host and detail. This is far more than is kept, because whoever
stores them must mask the secrets first, and shorten the text afterwards."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The proxy's decision on one request, and how it went.

    The proxy reports a refusal at once, and a permitted request when it has ended.
    """

    session: str
    at: datetime
    outcome: Literal["allowed", "denied"]
    method: Method
    host: str
    port: int
    address: str | None
    rule: str | None
    reason: str
    detail: str
    bytes_up: int = 0
    bytes_down: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """The sums of a session."""

    allowed: int
    denied: int
    connections: int
    bytes_up: int
    bytes_down: int


NOTHING = Summary(0, 0, 0, 0, 0)


class Meter:
    """Counts the bytes of one connection and charges them to its session's budget.

    They are counted on both sides of the proxy, and the larger number is charged: the bytes that a
    server sends load the host's network whether or not the sandbox receives them.
    """

    def __init__(self, session: "ProxySession") -> None:
        self._session = session
        self._refused = False
        self._sandbox = (0, 0)
        self._servers = (0, 0)
        self.up = 0
        self.down = 0
        self.asked: Asked | None = None
        """The last request of the connection."""

    def count(self, received: int, sent: int) -> None:
        """Count bytes from and to the sandbox. Raises Denied if the budget is used up."""
        self._sandbox = self._sandbox[0] + received, self._sandbox[1] + sent
        self._charge()

    def count_server(self, received: int, sent: int) -> None:
        """Count bytes from and to a server. Raises Denied if the budget is used up."""
        self._servers = self._servers[0] + sent, self._servers[1] + received
        self._charge()

    def _charge(self) -> None:
        up = max(self._sandbox[0], self._servers[0])
        down = max(self._sandbox[1], self._servers[1])
        more = up - self.up, down - self.down
        self.up, self.down = up, down
        try:
            self._session.carried(*more)
        except Denied:
            if not self._refused:
                raise

    def refused(self) -> None:
        """Let the refusal that ends this connection through, even if the budget is used up."""
        self._refused = True


class Asked:
    """A request of a client, with what it has used from here on."""

    def __init__(
        self,
        method: Method,
        host: str,
        port: int,
        *,
        meter: Meter,
        after: tuple[int, int] = (0, 0),
    ) -> None:
        """`after` is what the connection had carried before this request."""
        self.method = method
        self.host = host
        self.port = port
        self.told = False
        """Whether it was reported."""
        self._meter = meter
        self._meter.asked = self
        self._since = monotonic()
        self._up, self._down = after

    def refused(self) -> None:
        """Let the client be told of the refusal, even if its budget is used up."""
        self._meter.refused()

    def measured(self) -> tuple[int, int, float]:
        """Return the bytes up and down, and the seconds, that the request has taken so far."""
        seconds = round(monotonic() - self._since, 6)
        return self._meter.up - self._up, self._meter.down - self._down, seconds


class ProxySession:
    """The proxy's side of one sandbox."""

    def __init__(
        self,
        id_: str,
        policy: Policy,
        secrets: Mapping[str, str],
        report: Callable[[Decision], None],
        share: Share,
    ) -> None:
        self.id = id_
        self.share = share
        self.policy = policy
        self.secrets = secrets
        self.hidden = Hidden(())
        """The secrets that no answer may bring back."""
        self._sent: set[str] = set()
        self._changing = asyncio.Lock()
        self._report = report
        self._records = 0
        self._allowed = 0
        self._denied = 0
        self._connections = 0
        self._open = 0
        self._places = Places(policy.max_concurrent)
        self._up = 0
        self._down = 0
        self._held: dict[asyncio.Task[Any], tuple[Asking, Target]] = {}
        """By the task of a connection, what it was last permitted to reach."""

    async def prepare(self) -> None:
        """Prepare to mask the secrets that the proxy sets for this sandbox, by whichever rule."""
        async with self._changing:
            await self._hide(self.policy, self.secrets)

    async def _hide(self, policy: Policy, secrets: Mapping[str, str]) -> None:
        injected = [rule.inject for rule in policy.rules if rule.inject]
        # A secret that no header may hold is never sent, so no server can repeat it.
        sent = {secrets[each.secret] for each in injected if each.value(secrets)}
        if not self._sent.issuperset(sent):
            self._sent |= sent
            async with self.share.preparing:
                self.hidden = await asyncio.to_thread(Hidden, self._sent)

    async def change(self, policy: Policy, secrets: Mapping[str, str]) -> None:
        """Decide by other rules from now on, and cut what these do not permit as before.

        What earlier rules have sent stays masked: a server may still repeat it.
        """
        async with self._changing:
            await self._hide(policy, secrets)
            self.policy, self.secrets = policy, secrets
            for connection, (asking, target) in list(self._held.items()):
                if not still_permits(policy, asking, target):
                    connection.cancel()

    def hold(self, asking: Asking, target: Target) -> None:
        """Note what the current task's connection is permitted to reach, until it leaves."""
        if (connection := asyncio.current_task()) is not None:
            self._held[connection] = asking, target

    async def enter(self, patience_s: float) -> None:
        """Count a new connection, and wait for a place. Raises Denied if it gets none."""
        self._connections += 1
        self._open += 1
        if self._connections > self.policy.max_connections:
            raise Denied(
                "connection_budget",
                f"this execution has made {counted(self.policy.max_connections, 'connection')}, "
                "as many as it may make in all (max_connections)",
            )
        try:
            await self._places.take(patience_s)
        except Full as error:
            raise Denied(
                "too_many_at_once",
                f"this execution has {counted(self.policy.max_concurrent, 'open connection')}, as "
                f"many as it may have at once (max_concurrent), and {error}",
            ) from None

    @property
    def crowded(self) -> bool:
        """Whether so many connections are open that a further one is closed without a reason."""
        return self._open > self.policy.max_concurrent + 2 * MAX_WAITING

    @property
    def others_wait(self) -> bool:
        """Whether a connection waits that could have the place of an idle one."""
        return self._places.awaited

    def leave(self, *, entered: bool) -> None:
        """Count a connection's end; if it had a place, the next one gets that."""
        if (connection := asyncio.current_task()) is not None:
            self._held.pop(connection, None)
        self._open -= 1
        if entered:
            self._places.give()

    def carried(self, up: int, down: int) -> None:
        """Charge bytes that the sandbox sent and received. Raises Denied if none are left."""
        self._up += up
        self._down += down
        if self._up + self._down > self.policy.max_bytes:
            raise Denied(
                "byte_budget",
                f"this execution has used its {counted(self.policy.max_bytes, 'byte')}",
            )

    def deny(self, asked: Asked, why: Denied) -> None:
        """Report a refusal."""
        self._denied += 1
        asked.refused()
        self._tell(asked, "denied", why.address, why.rule, why.reason, why.detail)

    def fail(self, asked: Asked, error: Exception) -> None:
        """Report a request that a fault of the proxy has ended, unless it was reported before."""
        if not asked.told:
            why = f"the proxy failed ({type(error).__name__}); the worker's log says how"
            self.deny(asked, Denied("proxy_failed", why))

    def allow(self, asked: Asked, address: Address | None, rule: Rule, detail: str) -> None:
        """Report a permitted request that has ended."""
        self._allowed += 1
        self._tell(asked, "allowed", address, rule, "rule", detail)

    def _tell(
        self,
        asked: Asked,
        outcome: Literal["allowed", "denied"],
        address: Address | None,
        rule: Rule | None,
        reason: str,
        detail: str,
    ) -> None:
        asked.told = True
        self._records += 1
        if self._records > MAX_RECORDS:
            return
        if self._records == MAX_RECORDS:
            detail += f" (further decisions of this execution, after {MAX_RECORDS}, are counted)"
        up, down, seconds = asked.measured()
        self._report(
            Decision(
                session=self.id,
                at=datetime.now(UTC),
                outcome=outcome,
                method=asked.method,
                host=printable(asked.host[:MAX_TEXT]),
                port=asked.port,
                address=str(address) if address else None,
                rule=rule.name if rule else None,
                reason=reason,
                detail=printable(detail[:MAX_TEXT]),
                bytes_up=up,
                bytes_down=down,
                duration_s=seconds,
            )
        )

    def summary(self) -> Summary:
        """Return the sums of the session so far."""
        return Summary(self._allowed, self._denied, self._connections, self._up, self._down)
