"""The living sandbox that a caller orders by names, and the request that it resolves to."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from runner.quotas.sizes import DEFAULT_SIZE
from runner.sandboxes.catalogue import SandboxOffer
from runner.tenants.policies import Entry
from runner.words.errors import Invalid
from runner.words.lives import OnShortage, OnTimeout
from runner.words.living import SandboxRequest
from runner.words.resources import Limits, Resources
from runner.words.sandbox import Isolation, SandboxSpec

DEFAULT_TIMEOUT_S = 300.0
_RESOURCES = frozenset(each.name for each in fields(Resources))


@dataclass(frozen=True, slots=True, kw_only=True)
class LivingOrder:
    """A sandbox to make, with sizes, images and policies by name. None means left out."""

    size: str | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    """Limits that differ from those of the size."""
    image: str | None = None
    isolation: Isolation | None = None
    egress: tuple[Entry, ...] = ()
    egress_policy: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_env: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    """How long it lives from now on; None until somebody ends it."""
    on_timeout: OnTimeout = OnTimeout.KILL
    auto_resume: bool = False
    on_shortage: OnShortage = OnShortage.KEEP
    max_life_s: float | None = None
    builds: bool = False
    """Whether a template is built in it, by root."""


def resolve_sandbox(order: LivingOrder, offer: SandboxOffer) -> SandboxRequest:
    """Return the order with numbers for names. Raises Invalid naming the field."""
    spec = SandboxSpec(
        offer.image(order.image),
        _resources(order, offer),
        offer.isolation(order.isolation),
        order.builds,
    )
    return SandboxRequest(
        spec=spec,
        size=order.size or DEFAULT_SIZE,
        egress=offer.egress(order.egress, order.egress_policy),
        egress_policy=order.egress_policy,
        env=offer.environment(order.env, order.secret_env),
        secret_env=order.secret_env,
        metadata=order.metadata,
        project=order.project,
        timeout_s=order.timeout_s,
        on_timeout=order.on_timeout,
        auto_resume=order.auto_resume,
        on_shortage=order.on_shortage,
        max_life_s=order.max_life_s,
        workdir=offer.template.workdir if offer.template else None,
        user=offer.template.user if offer.template else None,
    )


def _resources(order: LivingOrder, offer: SandboxOffer) -> Resources:
    for name in order.limits.keys() - _RESOURCES:
        raise Invalid(f"a sandbox has no limit named {name!r}", f"limits.{name}")
    size, most = offer.size(order.size or DEFAULT_SIZE), offer.max_limits
    # A size also bounds a single run. Processes in a sandbox have bounds of their own, so no size
    # is refused for its bounds on a run.
    bounds = {name: min(getattr(size, name), getattr(most, name)) for name in _bounds()}
    bounded, named = replace(size, **bounds), order.size is not None
    return offer.limits(bounded, order.limits, named=named).resources


def _bounds() -> frozenset[str]:
    return frozenset(each.name for each in fields(Limits)) - _RESOURCES
