"""The one decision: from the request of a client to the address that the proxy connects to.

It checks the name, finds a rule, looks the name up and chooses an address, in this order and each
once. The proxy connects to this address and never looks the name up again.
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
"""Names of the sandbox itself; the second is its host name."""


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
    """A host and port that a client may be connected to."""

    host: str
    port: int
    rules: tuple[Rule, ...]
    """Every rule for this host and port; all have the same scheme."""
    addresses: tuple[Address, ...]
    holds_secret: bool = False
    """Whether a rule puts a secret into requests to this host, even if at another port."""

    @property
    def scheme(self) -> Scheme:
        """The protocol that the client must speak there."""
        return self.rules[0].scheme

    @property
    def intercepts(self) -> bool:
        """Whether the proxy ends TLS here; one rule that needs it is enough."""
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
            f"another rule sets a secret on requests to {name}, so the proxy has to "
            "see into all traffic with it, and a tcp rule does not let it",
            rule=rules[0],
        )
    try:
        addresses = await reachable(name, lookup, trusted)
    except NoAddress as error:
        raise Denied(error.reason, error.detail, rule=rules[0], address=error.address) from None
    return Target(name, port, rules, addresses, holds_secret)


def still_permits(policy: Policy, asking: Asking, target: Target) -> bool:
    """Return whether a policy decides as the one did by which this target was found."""
    try:
        rules = _rules(policy, asking, target.host, target.port)
    except Denied:
        return False
    holds_secret = any(rule.inject and rule.covers(target.host) for rule in policy.rules)
    return (rules, holds_secret) == (target.rules, target.holds_secret)


def _rules(policy: Policy, asking: Asking, name: str, port: int) -> tuple[Rule, ...]:
    matching = [rule for rule in policy.rules if rule.matches(name, port)]
    if asking == "http":
        matching = [rule for rule in matching if rule.scheme == "http"]
    if not matching:
        raise Denied("no_rule", _wanting(asking, name, port))
    # If rules give several schemes for one port, the strictest holds: a tunnel has one reading
    # only.
    for scheme in ("https", "http", "tcp"):
        if found := tuple(rule for rule in matching if rule.scheme == scheme):
            return found
    raise AssertionError("a rule of no known scheme")


def _wanting(asking: Asking, name: str, port: int) -> str:
    """Return why no rule permits this, and which rule would."""
    address = address_in(name)
    if name in _OWN or (address and (address.is_loopback or address.is_unspecified)):
        return f"{name} is the sandbox itself, which a client reaches without the proxy (NO_PROXY)"
    wanted = Rule(name, port, "http" if asking == "http" else "https")
    needed = f'egress: ["{wanted.name}"]'
    if asking == "tunnel" and port not in PORTS.values():
        needed += f' for TLS, or ["{Rule(name, port, "tcp").name}"] for another protocol'
    return f"no rule permits {wanted.name}; the execution would need {needed}"
