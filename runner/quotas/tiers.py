"""What a tenant may use: numbers by tier, a tenant's own in their place, and what is refused.

Three kinds. `concurrent` makes executions wait and refuses nothing. What is counted by day, and
the queue's length, refuse until some of it is free again. Storage refuses until the tenant
deletes something. A day is one of UTC; what an execution used counts on the day of its end.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, ValidationError
from pydantic.dataclasses import dataclass as checked

from runner.words.errors import Invalid, Overloaded, QuotaExceeded, SetupError
from runner.words.execution import JSON
from runner.words.principal import Tier
from runner.words.resources import Limits

LONGEST_RETRY_S = 60
QUEUE_RETRY_S = 5
"""Nobody knows when the next place in a queue is free; this keeps who asks from asking all day."""

MOST_KEYS = 5000
"""Usable API keys of any tenant: more than anybody manages, and few enough to be ended at once."""
MOST = 2**62
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Amount = Annotated[int, Field(ge=0, le=MOST)]


@checked(frozen=True, slots=True, config=ConfigDict(extra="forbid", strict=True))
class Quotas:
    """What a tenant may use. `weight` is its share of the slots while others wait, too."""

    concurrent: _Count
    queued: _Count
    cpu_s_per_day: Annotated[int, Field(ge=1, le=MOST)]
    egress_bytes_per_day: _Amount
    storage_bytes: _Amount
    stored_objects: _Amount
    max_size: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    weight: Annotated[int, Field(ge=1, le=1000)]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a tenant may use and uses; `cpu_s` and `egress_bytes` of the day that ends then."""

    tier: Tier
    quotas: Quotas
    active: int
    queued: int
    cpu_s: float
    egress_bytes: int
    storage_bytes: int
    stored_objects: int
    now: datetime
    day_ends: datetime

    @property
    def egress_left(self) -> int:
        """Bytes that may still go through the egress proxy today."""
        return max(0, self.quotas.egress_bytes_per_day - self.egress_bytes)

    def figures(self) -> tuple["Figure", ...]:
        """Return each quota beside what is used of it."""
        quotas, day = self.quotas, self.day_ends
        return (
            Figure("concurrent", quotas.concurrent, self.active),
            Figure("queued", quotas.queued, self.queued),
            Figure("cpu_s_per_day", quotas.cpu_s_per_day, self.cpu_s, frees_at=day),
            Figure(
                "egress_bytes_per_day", quotas.egress_bytes_per_day, self.egress_bytes, frees_at=day
            ),
            Figure("storage_bytes", quotas.storage_bytes, self.storage_bytes),
            Figure("stored_objects", quotas.stored_objects, self.stored_objects),
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """A quota and what is used of it; `frees_at` where that is known."""

    name: str
    limit: int
    used: float
    frees_at: datetime | None = None


_OVERRIDABLE = frozenset(Quotas.__dataclass_fields__) - {"concurrent"}


def load_tiers(profiles_dir: Path, sizes: Mapping[str, Limits]) -> dict[Tier, Quotas]:
    """Read `tiers.toml`. Raises SetupError saying what to mend."""
    path = profiles_dir / "tiers.toml"
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
        tiers = {Tier(name): Quotas(**table) for name, table in tables.items()}
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(f"{path}: cannot read the quotas of the tiers: {error}") from error
    if missing := sorted(set(Tier) - set(tiers)):
        raise SetupError(f"{path} lacks {', '.join(missing)}")
    for tier, quotas in tiers.items():
        if quotas.max_size not in sizes:
            raise SetupError(f"{path}: {tier}: there is no size {quotas.max_size!r}")
    return tiers


def overrides(given: Mapping[str, JSON], sizes: Mapping[str, Limits]) -> dict[str, JSON]:
    """Return a tenant's own quotas, checked. Raises Invalid with `field` set.

    How many of its executions run at once is not among them: `max_concurrency` says that.
    """
    for name in given:
        if name not in _OVERRIDABLE:
            known = ", ".join(sorted(_OVERRIDABLE))
            raise Invalid(f"there is no quota {name!r}; choose one of {known}", f"quotas.{name}")
    try:
        replace(_ANY, **given)
    except ValidationError as error:
        first = error.errors()[0]
        raise Invalid(str(first["msg"]), f"quotas.{first['loc'][0]}") from None
    size = given.get("max_size")
    if size is not None and size not in sizes:
        raise Invalid(f"there is no size {size!r}", "quotas.max_size")
    return dict(given)


_ANY = Quotas(
    concurrent=1,
    queued=1,
    cpu_s_per_day=1,
    egress_bytes_per_day=0,
    storage_bytes=0,
    stored_objects=0,
    max_size="small",
    weight=1,
)


def ceiling(terms: Limits, quotas: Quotas, sizes: Mapping[str, Limits]) -> Limits:
    """Return the most that one execution may ask for: within the tenant's terms and its tier.

    A size that this process does not know bounds nothing that the terms do not.
    """
    size = sizes.get(quotas.max_size, terms)
    return Limits(**{name: min(value, getattr(size, name)) for name, value in _items(terms)})


def refusal(standing: Standing, *, egress: bool) -> QuotaExceeded | None:
    """Return why one more execution may not be accepted now; None if it may.

    `egress` is whether it asks for a way out: without one, that day's bytes are nothing to it.
    """
    figures = {figure.name: figure for figure in standing.figures()}
    for name in (
        "storage_bytes",
        "stored_objects",
        "cpu_s_per_day",
        "egress_bytes_per_day",
        "queued",
    ):
        figure = figures[name]
        if figure.used < figure.limit or (name == "egress_bytes_per_day" and not egress):
            continue
        return QuotaExceeded(
            f"{_WORDS[name]}: {figure.used:g} of {figure.limit} used; {_frees(figure)}",
            quota=name,
            limit=figure.limit,
            used=figure.used,
            frees_at=figure.frees_at,
            retry_after_s=_retry_after(figure, standing.now),
        )
    return None


def too_many_keys(usable: int) -> QuotaExceeded | None:
    """Return why a tenant with so many usable API keys gets no more; None if it does."""
    if usable < MOST_KEYS:
        return None
    return QuotaExceeded(
        f"this tenant has {usable} of at most {MOST_KEYS} usable API keys; revoke some first",
        quota="api_keys",
        limit=MOST_KEYS,
        used=usable,
        frees_at=None,
        retry_after_s=None,
    )


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in the whole deployment. `interval_s` is None while no pace is known."""

    executions: int
    tenants: int
    interval_s: float | None


def overload(waiting: Waiting, most: int, own: int) -> Overloaded | None:
    """Return why a deployment that is full takes no more of this tenant now; None if it does.

    What is full of one tenant's executions is open to another: a tenant with less than its equal
    share of the places waiting is let in, so that no tenant can shut out the others.
    """
    if waiting.executions < most or own < most / (waiting.tenants + (own == 0)):
        return None
    beyond = waiting.executions - most + 1
    soon = math.ceil(beyond * (waiting.interval_s or 0))
    return Overloaded(
        f"the queue of this deployment is full ({waiting.executions} of {most}); try again",
        retry_after_s=min(max(soon, 1), LONGEST_RETRY_S),
    )


_WORDS = {
    "storage_bytes": "this tenant's storage is full",
    "stored_objects": "this tenant stores as many files and artifacts as it is allowed",
    "cpu_s_per_day": "this tenant has used up its CPU-seconds for today",
    "egress_bytes_per_day": "this tenant has used up its egress bytes for today",
    "queued": "this tenant's queue is full",
}


def _frees(figure: Figure) -> str:
    if figure.frees_at is not None:
        return f"the quota is renewed at {figure.frees_at:%Y-%m-%dT%H:%M:%SZ}"
    if figure.name == "queued":
        return "try again when an execution has started or been cancelled"
    return "delete something, or ask the operator for more"


def _retry_after(figure: Figure, now: datetime) -> int | None:
    if figure.frees_at is not None:
        return max(1, round((figure.frees_at - now).total_seconds()))
    return QUEUE_RETRY_S if figure.name == "queued" else None


def _items(limits: Limits) -> list[tuple[str, Any]]:
    return list(asdict(limits).items())
