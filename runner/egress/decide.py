"""The one decision: from what a client asks for to the address that is connected to.

Name, rule, lookup, address, in this order, each once. What is connected to is what was decided
on: nothing looks the name up again.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from runner.egress.addresses import Network, may_connect
from runner.egress.names import Address, BadName, address_in, normalise
from runner.egress.policy import Policy, Rule, Scheme

Lookup = Callable[[str], Awaitable[Sequence[Address]]]
Asking = Literal["tunnel", "http"]


class Denied(Exception):
    """A request that is refused. `reason` is for programs, `detail` tells the agent what to do."""

    def __init__(self, reason: str, detail: str, *, rule: Rule | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.rule = rule
        self.address: Address | None = None


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
    literal = address_in(name)
    found = [literal] if literal is not None else await _looked_up(lookup, name, rules[0])
    addresses = tuple(address for address in found if may_connect(address, trusted))
    if not addresses:
        denied = Denied(
            "private_address",
            f"{name} is at {found[0]}, which is not a public address",
            rule=rules[0],
        )
        denied.address = found[0]
        raise denied
    return Target(name, port, rules, addresses, holds_secret)


def _rules(policy: Policy, asking: Asking, name: str, port: int) -> tuple[Rule, ...]:
    matching = [rule for rule in policy.rules if rule.matches(name, port)]
    if asking == "http":
        matching = [rule for rule in matching if rule.scheme == "http"]
    if not matching:
        wanted = Rule(name, port, "http" if asking == "http" else "https")
        raise Denied(
            "no_rule",
            f"no rule permits {wanted.name}; the execution would need "
            f'egress: ["{wanted.name}"], or a policy with that rule',
        )
    # Of several schemes for one port the strictest is meant: a tunnel has one reading only.
    for scheme in ("https", "http", "tcp"):
        if found := tuple(rule for rule in matching if rule.scheme == scheme):
            return found
    raise AssertionError("a rule of no known scheme")


async def _looked_up(lookup: Lookup, name: str, rule: Rule) -> Sequence[Address]:
    try:
        found = await lookup(name)
    except OSError as error:
        raise Denied("lookup_failed", f"{name} was not found: {error}", rule=rule) from None
    if not found:
        raise Denied("lookup_failed", f"{name} has no address", rule=rule)
    return found


def system_lookup(hosts: Mapping[str, str], timeout_s: float | None) -> Lookup:
    """Return a lookup by the host's resolver; `hosts` are the operator's own answers.

    Without `timeout_s` it lasts until the resolver gives up.
    """
    fixed = {normalise(name): ip_address(address) for name, address in hosts.items()}

    async def lookup(name: str) -> Sequence[Address]:
        if name in fixed:
            return [fixed[name]]
        loop = asyncio.get_running_loop()
        # With a trailing dot no search domain of the host is tried.
        async with asyncio.timeout(timeout_s):
            answers = await loop.getaddrinfo(f"{name}.", None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(ip_address(answer[4][0]) for answer in answers))

    return lookup
