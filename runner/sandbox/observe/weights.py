"""How processor time is divided between tenants when it is short, however many sandboxes each has.

The kernel divides it between control groups by their weights, and each sandbox is one group. With
equal weights, a tenant that computes in fifty sandboxes would get fifty parts of fifty-one, and
another tenant's single command the last one. One group for each tenant would say what is meant. But
sandboxes are started before they have a tenant, and Docker moves no container to another group. So
the weight of a sandbox is divided by its tenant's spread.

A tenant's spread is what its sandboxes use together, in units of what its busiest one uses. None
uses more than its weight gives it, so together they use no more than a single sandbox of the usual
weight would, whatever each of them does.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import ceil
from threading import Lock

from runner.sandbox.observe.cgroups import Cgroups

_MODEST = 2
"""A tenant that uses less than half of an equal part takes nothing from others: it may spread."""
_UNUSED = 100
"""A tenant that uses less than a hundredth of all does not make the equal part smaller."""
_NOISE = 0.1
"""A spread is rounded up from here: what idle sandboxes use does not make another one of them."""
_REMEMBERED = 0.9
"""How much of a spread is left after a second. It halves in 6.6 s, so a tenant whose sandboxes stop
and start again together finds them about as light as they were."""


class Weights:
    """Knows whose sandboxes are, and what each has used. Methods may be called by any thread."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._tenants: dict[str, str] = {}
        self._before: dict[str, float] = {}
        self._spreads = Spreads()
        self._lock = Lock()

    def assign(self, container: str, tenant: str) -> None:
        """Note whose a container is from now on; those that nobody has keep the usual weight."""
        with self._lock:
            self._tenants[container] = tenant

    def weigh(self) -> None:
        """Set weights by what was used since the last time, about a second ago.

        What cannot be read or set is passed over until the next time. Raises the last such OSError.
        """
        with self._lock:
            tenants = dict(self._tenants)
        used: defaultdict[str, list[float]] = defaultdict(list)
        for container, tenant in tenants.items():
            now = self._cgroups.cpu_s(container)
            if now is not None:
                used[tenant].append(max(0.0, now - self._before.get(container, now)))
                self._before[container] = now
            elif not self._cgroups.lives(container):
                self._forget(container)
        parts = self._spreads.after(used)
        failed = None
        for container, tenant in tenants.items():
            try:
                self._cgroups.set_weight(container, parts.get(tenant, 1))
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    def _forget(self, container: str) -> None:
        self._before.pop(container, None)
        with self._lock:
            self._tenants.pop(container, None)


class Spreads:
    """Over how many sandboxes each tenant spreads its use of the processors.

    A spread grows at once and shrinks slowly: so nobody is light again by stopping for a moment.
    """

    def __init__(self) -> None:
        self._spreads: dict[str, float] = {}
        """The spread of each tenant that has one above 1."""

    def after(self, used: Mapping[str, Iterable[float]]) -> dict[str, int]:
        """Return by what weights are divided after a further second, where that is not one.

        `used` is the processor time that each sandbox has used in that second, by tenant.
        """
        own = {tenant: tuple(each) for tenant, each in used.items()}
        whole = sum(map(sum, own.values()))
        users = sum(sum(each) * _UNUSED >= whole > 0 for each in own.values())
        spreads = {tenant: each * _REMEMBERED for tenant, each in self._spreads.items()}
        for tenant, each in own.items():
            if sum(each) * _MODEST * users >= whole > 0:
                spreads[tenant] = max(spreads.get(tenant, 1), sum(each) / max(each))
        self._spreads = {tenant: spread for tenant, spread in spreads.items() if spread > 1}
        return {tenant: ceil(spread - _NOISE) for tenant, spread in self._spreads.items()}
