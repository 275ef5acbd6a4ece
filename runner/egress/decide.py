"""The one decision: from what a client asks for to the address that is connected to.

Name, rule, lookup, address, in this order, each once. What is connected to is what was decided
on: nothing looks the name up again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runner.egress.policy import PORTS, Policy, Rule, Scheme
from runner.network.addresses import Network
from runner.network.lookup import Lookup, NoAddress, reachable
from runner.network.names import Address, BadName, address_in, normalise

Asking = Literal["tunnel", "http"]

_OWN = frozenset({"localhost", "sandbox"})
"""Names of the sandbox itself, the second as its host name."""


class Denied(Exception):
    """A request that is refused. `reason` is for programs, `detail` tells the agent what to do."""

    def __init__(
        self, reason: str, detail: str, *, rule: Rule | None = None, address: Address | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.rule = rule
        self.address = address


@dataclass(frozen=True, slots=True)
class Target:
    """What a client may be connected to."""

    host: str
    port: int
    rules: tuple[Rule, ...]
    """Every rule for this host and port, all of one scheme."""
    addresses: tuple[Address, ...]
    holds_secret: bool = False
    """Whether a rule sets a secret on requests to this host, be it at another port."""

    @property
    def scheme(self) -> Scheme:
        """What must be spoken there."""
        return self.rules[0].scheme

    @property
    def intercepts(self) -> bool:
        """Whether TLS is ended here, which one rule that asks for it is enough for."""
        return self.holds_secret or any(rule.intercepts for rule in self.rules)


async def decide(
    policy: Policy,
    asking: Asking,
    host: str,
    port: int,
    *,
    lookup: Lookup,
    trusted: Sequence[Network],
) -> Target:
    """Return what to connect to. Raises Denied."""
    try:
        name = normalise(host)
    except BadName as error:
        raise Denied("bad_name", f"the host is {error}") from None
    rules = _rules(policy, asking, name, port)
    holds_secret = any(rule.inject and rule.covers(name) for rule in policy.rules)
    if holds_secret and rules[0].scheme == "tcp":
        raise Denied(
            "not_looked_into",
            f"another rule sets a secret on requests to {name}, so nothing is carried from there "
            "that cannot be looked into, as tcp cannot",
            rule=rules[0],
        )
    try:
        addresses = await reachable(name, lookup, trusted)
    except NoAddress as error:
        raise Denied(error.reason, error.detail, rule=rules[0], address=error.address) from None
    return Target(name, port, rules, addresses, holds_secret)


def _rules(policy: Policy, asking: Asking, name: str, port: int) -> tuple[Rule, ...]:
    matching = [rule for rule in policy.rules if rule.matches(name, port)]
    if asking == "http":
        matching = [rule for rule in matching if rule.scheme == "http"]
    if not matching:
        raise Denied("no_rule", _wanting(asking, name, port))
    # Of several schemes for one port the strictest is meant: a tunnel has one reading only.
    for scheme in ("https", "http", "tcp"):
        if found := tuple(rule for rule in matching if rule.scheme == scheme):
            return found
    raise AssertionError("a rule of no known scheme")


def _wanting(asking: Asking, name: str, port: int) -> str:
    """Return what an execution needs that is to reach this."""
    address = address_in(name)
    if name in _OWN or (address and (address.is_loopback or address.is_unspecified)):
        return f"{name} is the sandbox itself, which a client reaches without the proxy (NO_PROXY)"
    wanted = Rule(name, port, "http" if asking == "http" else "https")
    needed = f'egress: ["{wanted.name}"]'
    if asking == "tunnel" and port not in PORTS.values():
        needed += f' for TLS, or ["{Rule(name, port, "tcp").name}"] for another protocol'
    return f"no rule permits {wanted.name}; the execution would need {needed}"
