"""How often strangers have failed at the door lately, by where they come from.

A handshake costs the event loop a signature. A site from which nobody shows a certificate of this
deployment may begin some at once and then some each second, and is hung up on otherwise.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address

from runner.network.addresses import site

AT_ONCE = 100
"""Failures after which a site is not greeted. An API has some, too: clients hang up while it calls.
So one handshake that succeeds makes up for all of them."""
PER_S = 10.0
"""How many of them are forgotten in a second."""
MOST_SITES = 4096
"""Sites that are remembered, those with the latest failures."""


class Failures:
    """The failures of each site: an IPv4 address, or an IPv6 /64."""

    def __init__(
        self,
        at_once: float = AT_ONCE,
        per_s: float = PER_S,
        *,
        most_sites: int = MOST_SITES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_once = at_once
        self._per_s = per_s
        self._most_sites = most_sites
        self._clock = clock
        self._sites: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By site: how many failures are not forgotten, and when that was so."""

    def too_many(self, host: str) -> bool:
        """Return whether this host is not to be greeted now."""
        return self._count(_site(host)) >= self._at_once

    def add(self, host: str) -> None:
        """Note a failure of this host."""
        where = _site(host)
        self._sites[where] = self._count(where) + 1, self._clock()
        self._sites.move_to_end(where)
        if len(self._sites) > self._most_sites:
            self._sites.popitem(last=False)

    def forget(self, host: str) -> None:
        """Forget the failures of this host: it has shown a certificate of this deployment."""
        self._sites.pop(_site(host), None)

    def _count(self, where: str) -> float:
        count, at = self._sites.get(where, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at) * self._per_s)


def _site(host: str) -> str:
    # A zone (RFC 4007 11) names an interface of ours.
    return site(ip_address(host.partition("%")[0]))
