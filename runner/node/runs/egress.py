"""A sandbox's way out: opened for one run, its decisions recorded, closed and summed up."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace

from runner.audit import events as audit
from runner.egress.gateway import EgressGateway
from runner.egress.policy import Policy, Rule, rule_from_json
from runner.egress.session import Decision, Summary
from runner.node.runs.recorder import Recorder
from runner.node.runs.secrets import Secrets
from runner.sandbox.guest.sandbox import Bridge, Sandbox
from runner.words.errors import Invalid
from runner.words.execution import Claim, EgressUsage, ExecutionRequest

_PROXY = "127.0.0.1:3128"
_TRUST = "/tmp/.egress/trusted.pem"  # noqa: S108 - written by the supervisor, inside

_OWN = "localhost,sandbox,127.0.0.0/8,127.0.0.1,127.0.0.2,0.0.0.0,::1,::,[::1],[::]"
"""What is the sandbox's own: its host name, the address that has (nss-myhostname(8)), and loopback.
Not every client knows networks, and urllib wants brackets."""
_NETWORKS_FAULT = frozenset({"unreachable", "lookup_failed"})
MAX_NOTES = 8
"""Refusals that an execution's stderr tells of; each once."""

_ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy"), f"http://{_PROXY}"),
    **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), f"http://{_PROXY}"),
    # By HTTP, too: not every client that heeds this one speaks SOCKS5, though the proxy does.
    **dict.fromkeys(("ALL_PROXY", "all_proxy"), f"http://{_PROXY}"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), _OWN),
    # pip repeats every CONNECT that is refused, whatever the answer: six times in eight seconds.
    "PIP_RETRIES": "2",
    # Node's fetch heeds none of them by itself.
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


@dataclass(slots=True)
class WayOut:
    """What a run is given of the network, and afterwards what it made of it."""

    environment: Mapping[str, str] = field(default_factory=dict)
    bridge: Bridge | None = None
    policy_hash: str | None = None
    usage: EgressUsage | None = None


class Egress:
    """Opens ways out."""

    def __init__(self, *, gateway: EgressGateway, ceiling: Policy, secrets: Secrets) -> None:
        self._gateway = gateway
        self._ceiling = ceiling
        self._secrets = secrets

    @asynccontextmanager
    async def open(
        self,
        claim: Claim,
        request: ExecutionRequest,
        sandbox: Sandbox,
        recorder: Recorder,
        bytes_left: int,
    ) -> AsyncIterator[WayOut]:
        """Connect the sandbox to the proxy while the context lasts, if its request has rules.

        It may carry `bytes_left` at most, however much the ceiling leaves to one execution.

        Raises Invalid when a rule names a secret that the tenant does not have, KeyUnavailable
        when one cannot be opened.
        """
        rules = tuple(rule_from_json(rule) for rule in request.egress)
        if not rules:
            yield WayOut()
            return
        secrets = await self._values(claim, rules)
        await recorder.hide(secrets.values())
        trust = self._gateway.ca_pem if any(rule.intercepts for rule in rules) else ""
        policy = replace(self._ceiling, rules=rules)
        way = WayOut(
            environment=proxy_environment(trust),
            bridge=Bridge(trust=trust),
            policy_hash=policy.hash(),
        )

        notes = Notes(recorder.note)

        def record(decision: Decision) -> None:
            recorder.decide(*_records(claim, decision))
            notes.hear(decision)

        listener = sandbox.listen_for_egress()
        # What the day leaves is not part of the policy that the receipt names by its hash.
        bounded = replace(policy, max_bytes=min(policy.max_bytes, bytes_left))
        session = await self._gateway.open_session(
            sandbox.id, str(claim.tenant_id), bounded, listener, secrets, record
        )
        try:
            yield way
        finally:
            way.usage = _usage(await session.close())

    async def _values(self, claim: Claim, rules: tuple[Rule, ...]) -> dict[str, str]:
        values = {}
        for name in {rule.inject.secret for rule in rules if rule.inject}:
            value = await self._secrets.use(claim, name, "egress")
            if value is None:
                raise Invalid(f"the tenant has no secret {name!r}", "egress")
            values[name] = value
        return values


class Notes:
    """Tells the program's reader of what was refused: not every client shows the proxy's answer."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: set[tuple[object, ...]] = set()

    def hear(self, decision: Decision) -> None:
        """Tell of a refusal, unless the same was told or too many were."""
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
    """Return the variables that lead clients to the bridge, and to the proxy's certificate."""
    return _ENVIRONMENT | (dict.fromkeys(_TRUSTING, _TRUST) if trust else {})


def _usage(summary: Summary) -> EgressUsage:
    return EgressUsage(**asdict(summary))


def _records(claim: Claim, decision: Decision) -> tuple[dict[str, object], audit.AuditEvent]:
    facts = {
        name: value for name, value in asdict(decision).items() if name not in {"session", "at"}
    }
    allowed = decision.outcome == "allowed"
    return facts, audit.AuditEvent(
        actor=f"execution:{claim.execution_id}",
        action=audit.Action.EGRESS_CONNECT,
        outcome=audit.Outcome.SUCCESS if allowed else audit.Outcome.DENIED,
        resource_type="execution",
        resource_id=str(claim.execution_id),
        metadata={"attempt": claim.attempt, "decided_at": audit.timestamp(decision.at), **facts},
    )
