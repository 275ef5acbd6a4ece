"""E2B's network rules as egress rules, and back.

With E2B, everything is permitted that is not denied. Here it is the other way round: nothing is
permitted that no rule names. So a list of what is denied changes nothing, unless the tenant has
opened its internet access by an egress policy.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from runner.api.e2b.requests import NetworkRules
from runner.egress.policy import rule_from_json
from runner.sandboxes.egress import EgressOrder
from runner.words.errors import Invalid
from runner.words.execution import JSON

INTERNET = "internet"
"""The tenant's egress policy that says what E2B's internet access means: without it, nothing."""
ALL = "0.0.0.0/0"
NO_INTERNET = (
    f"internet access is off: this tenant has no egress policy named {INTERNET!r}. An admin of the"
    f" tenant opens it with PUT /v1/egress-policies/{INTERNET}"
)
DENIED_BESIDE = (
    "an address cannot be denied beside internet access: the egress policy"
    f" {INTERNET!r} names what may be reached, and nothing else can be"
)


def order(network: NetworkRules | None, *, internet: bool | None, opened: bool) -> EgressOrder:
    """Return the egress rules for what a client asks.

    `internet` is whether it asked for internet access, None if it did not say; `opened` is whether
    the tenant has the policy for that. Raises Invalid for what rules cannot express.
    """
    allowed = network.allow_out if network else []
    denied = network.deny_out if network else []
    wants_all = ALL in allowed or (internet is True and ALL not in denied)
    if wants_all and not opened:
        raise Invalid(NO_INTERNET, "network")
    base = opened and (wants_all or (internet is not False and ALL not in denied))
    if base and set(denied) - {ALL}:
        raise Invalid(DENIED_BESIDE, "network")
    for each in denied:
        _require_network(each)
    entries = tuple(_host(each) for each in allowed if each != ALL)
    return EgressOrder(entries, INTERNET if base else None)


def shown(egress: Sequence[Mapping[str, JSON]]) -> dict[str, list[str]]:
    """Return egress rules as E2B shows them: what is permitted, and that the rest is denied."""
    return {
        "allowOut": [rule_from_json(rule).name for rule in egress],
        "denyOut": [ALL],
    }


def _host(destination: str) -> str:
    """Return the host of a destination: a name, or the only address in a network."""
    if "/" not in destination or "://" in destination:
        return destination
    network = _require_network(destination)
    if network.num_addresses != 1:
        raise Invalid(
            f"{destination} is more than one address: permit addresses one by one, or names",
            "network",
        )
    return str(network.network_address)


def _require_network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise Invalid(f"{text!r} is neither an address nor a network", "network") from None
