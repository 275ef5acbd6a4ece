"""A sandbox's egress: opened for one run or life; decisions are recorded and summed up."""

import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Protocol

from runner.audit import events as audit
from runner.egress.gateway import EgressGateway, GatewaySession
from runner.egress.policy import Policy, Rule, rule_from_json
from runner.egress.session import Decision, Summary
from runner.node.measures import Measures
from runner.node.runs.actor import SandboxUser
from runner.node.runs.secrets import Secrets
from runner.sandbox.guest.sandbox import Bridge
from runner.words.errors import Invalid
from runner.words.execution import JSON, EgressUsage

_PROXY = "127.0.0.1:3128"
TRUST = "/tmp/.egress/trusted.pem"  # noqa: S108 - written by the supervisor, inside

_OWN = "localhost,sandbox,127.0.0.0/8,127.0.0.1,127.0.0.2,0.0.0.0,::1,::,[::1],[::]"
"""Hosts of the sandbox itself: its host name, that name's address (nss-myhostname(8)) and loopback.
Not every client understands networks, and urllib wants brackets."""
_NETWORKS_FAULT = frozenset({"unreachable", "lookup_failed"})
MAX_NOTES = 8
"""How many refusals an execution's stderr reports; each different one once."""

MOST_PASSAGES = 32
"""How many decisions a trace shows."""

_ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy"), f"http://{_PROXY}"),
    **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), f"http://{_PROXY}"),
    # An HTTP address, although the proxy speaks SOCKS5, too: not every client of it does.
    **dict.fromkeys(("ALL_PROXY", "all_proxy"), f"http://{_PROXY}"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), _OWN),
    # pip repeats every refused CONNECT, whatever the answer: six times in eight seconds.
    "PIP_RETRIES": "2",
    # Node's fetch uses none of these variables by itself.
    "NODE_OPTIONS": "--require=/opt/supervisor/fetch.cjs",
}
_TRUSTING = (
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)


@dataclass(frozen=True, slots=True)
class Passage:
    """What is kept of a decision for a trace: nothing that the program chose."""

    at: datetime
    duration_s: float
    outcome: str
    reason: str
    method: str
    bytes_up: int
    bytes_down: int


@dataclass(slots=True)
class WayOut:
    """A run's access to the network, and its use once that is closed."""

    environment: Mapping[str, str] = field(default_factory=dict)
    bridge: Bridge | None = None
    policy_hash: str | None = None
    usage: EgressUsage | None = None
    """Set once the access is closed."""
    session: GatewaySession | None = None
    max_bytes: int = 0
    """What it may carry in all."""
    passages: list[Passage] = field(default_factory=list)
    """The first decisions."""

    async def carried(self) -> tuple[int, int]:
        """Return the bytes up and down so far."""
        if self.usage is not None:
            return self.usage.bytes_up, self.usage.bytes_down
        if self.session is None:
            return 0, 0
        so_far = await self.session.count()
        return so_far.bytes_up, so_far.bytes_down


class EgressWatch(Protocol):
    """Receives what the proxy reports about one sandbox."""

    async def hide(self, values: Iterable[str]) -> None:
        """Mask these values from now on in what the sandbox writes."""

    def decide(self, data: Mapping[str, JSON], record: audit.AuditEvent) -> None:
        """Record a decision."""

    def note(self, text: str) -> None:
        """Tell whoever reads the program's output of a refusal."""


class Listening(Protocol):
    """A sandbox that can listen for its own connections to the proxy."""

    @property
    def id(self) -> str:
        """Its name on this node."""

    def listen_for_egress(self) -> socket.socket:
        """Return a listening socket that only this sandbox can reach."""


class Egress:
    """Connects sandboxes to the egress proxy."""

    def __init__(
        self, *, gateway: EgressGateway, ceiling: Policy, secrets: Secrets, measures: Measures
    ) -> None:
        self._gateway = gateway
        self._ceiling = ceiling
        self._secrets = secrets
        self._measures = measures

    @asynccontextmanager
    async def open(
        self,
        user: SandboxUser,
        entries: Sequence[Mapping[str, JSON]],
        sandbox: Listening,
        watch: EgressWatch,
        bytes_left: int,
        *,
        lenient: bool = False,
    ) -> AsyncIterator[WayOut]:
        """Connect the sandbox to the proxy inside the context, if there are rules for it.

        It may carry at most `bytes_left` bytes, however much the ceiling permits one sandbox.

        Raises Invalid if a rule names a secret that the tenant does not have, and KeyUnavailable if
        a secret cannot be opened. With `lenient`, a rule whose secret is missing permits nothing.
        """
        way = WayOut()
        try:
            await self.change(way, user, entries, sandbox, watch, bytes_left, lenient=lenient)
            yield way
        finally:
            if way.session is not None:
                way.usage = _usage(await way.session.close())

    async def change(
        self,
        way: WayOut,
        user: SandboxUser,
        entries: Sequence[Mapping[str, JSON]],
        sandbox: Listening,
        watch: EgressWatch,
        bytes_left: int,
        *,
        lenient: bool = False,
    ) -> None:
        """Let a way out permit what these rules permit, and nothing else.

        Connections that they do not permit as before are cut. What it may carry in all stays as it
        was when its first rules were set. Raises what `open` raises, and NotReady.
        """
        rules = tuple(rule_from_json(rule) for rule in entries)
        if not rules and way.session is None:
            return
        secrets = await self._values(user, rules, lenient=lenient)
        rules = tuple(rule for rule in rules if not rule.inject or rule.inject.secret in secrets)
        await watch.hide(secrets.values())
        trust = self._gateway.ca_pem if any(rule.intercepts for rule in rules) else ""
        policy = replace(self._ceiling, rules=rules)
        way.environment = proxy_environment(trust) if rules else {}
        way.bridge = Bridge(trust=trust)
        way.policy_hash = policy.hash()
        if way.session is None:
            # What the day leaves is not part of the policy that the receipt names by its hash.
            way.max_bytes = min(policy.max_bytes, bytes_left)
            way.session = await self._opened(way, user, policy, sandbox, watch, secrets)
        else:
            await way.session.change(replace(policy, max_bytes=way.max_bytes), secrets)

    async def _opened(
        self,
        way: WayOut,
        user: SandboxUser,
        policy: Policy,
        sandbox: Listening,
        watch: EgressWatch,
        secrets: Mapping[str, str],
    ) -> GatewaySession:
        notes = Notes(watch.note)

        def record(decision: Decision) -> None:
            self._measures.decided(decision.outcome, decision.reason)
            if len(way.passages) < MOST_PASSAGES:
                way.passages.append(_passage(decision))
            watch.decide(*_records(user, decision))
            notes.hear(decision)

        return await self._gateway.open_session(
            sandbox.id,
            str(user.tenant_id),
            replace(policy, max_bytes=way.max_bytes),
            sandbox.listen_for_egress(),
            secrets,
            record,
        )

    async def _values(
        self, user: SandboxUser, rules: tuple[Rule, ...], *, lenient: bool
    ) -> dict[str, str]:
        values = {}
        for name in {rule.inject.secret for rule in rules if rule.inject}:
            value = await self._secrets.use(user, name, "egress")
            if value is None and lenient:
                continue
            if value is None:
                raise Invalid(f"the tenant has no secret {name!r}", "egress")
            values[name] = value
        return values


class Notes:
    """Reports refusals in the program's output: not every client shows the proxy's answer."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: set[tuple[object, ...]] = set()

    def hear(self, decision: Decision) -> None:
        """Report a refusal, unless the same one was reported or too many were."""
        what = decision.host, decision.port, decision.reason, decision.rule
        if decision.outcome == "allowed" or what in self._told or len(self._told) > MAX_NOTES:
            return
        self._told.add(what)
        if len(self._told) > MAX_NOTES:
            self._tell("[egress] more was refused: see the execution's events of the kind egress")
            return
        verb = "not reached" if decision.reason in _NETWORKS_FAULT else "refused"
        where = f"{decision.host}:{decision.port}" if decision.host else "a connection"
        self._tell(f"[egress] {verb}: {where}: {decision.detail} ({decision.reason})")


def proxy_environment(trust: str = "") -> dict[str, str]:
    """Return the variables that make clients use the proxy and trust its certificate."""
    return _ENVIRONMENT | (dict.fromkeys(_TRUSTING, TRUST) if trust else {})


def _passage(decision: Decision) -> Passage:
    return Passage(
        decision.at,
        decision.duration_s,
        decision.outcome,
        decision.reason,
        decision.method,
        decision.bytes_up,
        decision.bytes_down,
    )


def _usage(summary: Summary) -> EgressUsage:
    return EgressUsage(**asdict(summary))


def _records(user: SandboxUser, decision: Decision) -> tuple[dict[str, JSON], audit.AuditEvent]:
    facts = {
        name: value for name, value in asdict(decision).items() if name not in {"session", "at"}
    }
    allowed = decision.outcome == "allowed"
    return facts, user.did(
        audit.Action.EGRESS_CONNECT,
        {"decided_at": audit.timestamp(decision.at), **facts},
        outcome=audit.Outcome.SUCCESS if allowed else audit.Outcome.DENIED,
    )
