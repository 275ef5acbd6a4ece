"""Quotas of a tenant: numbers by tier, a tenant's own instead of them, and refusals.

There are four kinds of quota. `concurrent` makes executions wait and refuses nothing. Quotas by
day, and the length of the queue, refuse until some of the quota is free again. Storage refuses
until the tenant deletes something. Quotas of living sandboxes refuse until one ends. A day is one
of UTC; what an execution used counts on the day on which it ended.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, ValidationError
from pydantic.dataclasses import dataclass as checked

from runner.words.errors import Invalid, QuotaExceeded, SetupError
from runner.words.execution import JSON
from runner.words.principal import Tier
from runner.words.resources import Limits

QUEUE_RETRY_S = 5
"""Nobody knows when the next place in a queue is free; this keeps clients from asking without
pause."""

MOST_KEYS = 5000
"""Most usable API keys of any tenant: more than anybody manages, and few enough to end at once."""
MOST = 2**62
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Few = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Amount = Annotated[int, Field(ge=0, le=MOST)]


@checked(frozen=True, slots=True, config=ConfigDict(extra="forbid", strict=True))
class Quotas:
    """The quotas of a tenant. `weight` is its share of the slots while others wait, too."""

    concurrent: _Count
    queued: _Count
    cpu_s_per_day: Annotated[int, Field(ge=1, le=MOST)]
    egress_bytes_per_day: _Amount
    storage_bytes: _Amount
    stored_objects: _Amount
    max_size: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    weight: Annotated[int, Field(ge=1, le=1000)]
    sandboxes: _Few
    sandbox_memory_mb: _Few
    sandbox_hours_per_day: _Few
    snapshot_bytes: _Amount
    snapshot_days: Annotated[int, Field(ge=0, le=36_500)]
    """For how long snapshots are kept at most; 0 until somebody deletes them."""
    templates: _Few
    template_bytes: _Amount
    template_days: Annotated[int, Field(ge=0, le=36_500)]
    """For how long a template is kept that no tag stands for; 0 until somebody deletes it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant's quotas and what it uses, on the day that ends at `day_ends`."""

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
    sandboxes: int = 0
    sandbox_memory_mb: int = 0
    sandbox_hours: float = 0.0
    """For how long the tenant's sandboxes ran today, all together."""
    sandboxes_end_at: datetime | None = None
    """The time at which the clock ends the first of the living sandboxes, if any."""
    snapshot_bytes: int = 0
    snapshots_expire_at: datetime | None = None
    """The time at which the first of the snapshots expires, if any."""
    templates: int = 0
    template_bytes: int = 0
    templates_expire_at: datetime | None = None
    """The time at which the first of the templates without a tag is removed, if any."""

    @property
    def cpu_left(self) -> float:
        """CPU-seconds that may still be used today."""
        return max(0.0, self.quotas.cpu_s_per_day - self.cpu_s)

    @property
    def egress_left(self) -> int:
        """Bytes that may still pass through the egress proxy today."""
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
            Figure("sandboxes", quotas.sandboxes, self.sandboxes, frees_at=self.sandboxes_end_at),
            Figure(
                "sandbox_memory_mb",
                quotas.sandbox_memory_mb,
                self.sandbox_memory_mb,
                frees_at=self.sandboxes_end_at,
            ),
            Figure(
                "sandbox_hours_per_day",
                quotas.sandbox_hours_per_day,
                round(self.sandbox_hours, 3),
                frees_at=day,
            ),
            Figure(
                "snapshot_bytes",
                quotas.snapshot_bytes,
                self.snapshot_bytes,
                frees_at=self.snapshots_expire_at,
            ),
            Figure("templates", quotas.templates, self.templates, self.templates_expire_at),
            Figure(
                "template_bytes",
                quotas.template_bytes,
                self.template_bytes,
                frees_at=self.templates_expire_at,
            ),
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """A quota and what is used of it; `frees_at` if that time is known."""

    name: str
    limit: int
    used: float
    frees_at: datetime | None = None


RUNNING = ("cpu_s_per_day", "sandbox_hours_per_day")
"""Quotas that a sandbox uses up by running. Once one is used up, it is paused."""
_OVERRIDABLE = frozenset(Quotas.__dataclass_fields__) - {"concurrent"}


def load_tiers(profiles_dir: Path, sizes: Mapping[str, Limits]) -> dict[Tier, Quotas]:
    """Read `tiers.toml`. Raises SetupError that says what to correct."""
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
    sandboxes=0,
    sandbox_memory_mb=0,
    sandbox_hours_per_day=0,
    snapshot_bytes=0,
    snapshot_days=0,
    templates=0,
    template_bytes=0,
    template_days=0,
)


def ceiling(terms: Limits, quotas: Quotas, sizes: Mapping[str, Limits]) -> Limits:
    """Return the most that one execution may ask for, within the tenant's terms and its tier.

    A size that this process does not know sets no bounds; the terms still do.
    """
    size = sizes.get(quotas.max_size, terms)
    return Limits(**{name: min(value, getattr(size, name)) for name, value in _items(terms)})


def refusal(standing: Standing, *, egress: bool) -> QuotaExceeded | None:
    """Return why one more execution may not be accepted now; None if it may.

    `egress` says whether it asks for egress; if not, the day's bytes do not matter.
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
        return _exceeded(figure, standing.now)
    return None


def sandbox_refusal(standing: Standing, *, memory_mb: int, egress: bool) -> QuotaExceeded | None:
    """Return why one more sandbox of so much memory may not live now; None if it may."""
    figures = {figure.name: figure for figure in standing.figures()}
    more = {"sandboxes": 1, "sandbox_memory_mb": memory_mb}
    day = (*RUNNING, "egress_bytes_per_day") if egress else RUNNING
    for figure in (figures[name] for name in (*more, *day)):
        asked = more.get(figure.name, 0)
        if figure.used >= figure.limit or figure.used + asked > figure.limit:
            return _exceeded(figure, standing.now, asked)
    return None


def egress_refusal(standing: Standing) -> QuotaExceeded | None:
    """Return why a sandbox may not be given a way out now; None if it may."""
    (figure,) = (each for each in standing.figures() if each.name == "egress_bytes_per_day")
    return _exceeded(figure, standing.now) if standing.egress_left <= 0 else None


def resume_refusal(standing: Standing) -> QuotaExceeded | None:
    """Return why a sandbox that is paused may not go on now; None if it may."""
    for figure in standing.figures():
        if figure.name in RUNNING and figure.used >= figure.limit:
            return _exceeded(figure, standing.now)
    return None


def snapshot_refusal(standing: Standing) -> QuotaExceeded | None:
    """Return why no snapshot may be taken now, however small; None if one may."""
    (figure,) = (each for each in standing.figures() if each.name == "snapshot_bytes")
    return _exceeded(figure, standing.now) if figure.used >= figure.limit else None


def template_refusal(standing: Standing, more_bytes: int = 0) -> QuotaExceeded | None:
    """Return why no template may be built, or none with so many bytes be kept; None if it may."""
    figures = {figure.name: figure for figure in standing.figures()}
    if more_bytes == 0 and (count := figures["templates"]).used >= count.limit:
        return _exceeded(count, standing.now)
    stored = figures["template_bytes"]
    if stored.used >= stored.limit or stored.used + more_bytes > stored.limit:
        return _exceeded(stored, standing.now, more_bytes)
    return None


def _exceeded(figure: Figure, now: datetime, more: int = 0) -> QuotaExceeded:
    asked = f", and this takes {more}" if more > 1 else ""
    return QuotaExceeded(
        f"{_WORDS[figure.name]}: {figure.used:g} of {figure.limit} used{asked}; {_frees(figure)}",
        quota=figure.name,
        limit=figure.limit,
        used=figure.used,
        frees_at=figure.frees_at,
        retry_after_s=_retry_after(figure, now),
    )


def too_many_keys(usable: int) -> QuotaExceeded | None:
    """Return why a tenant with this many usable API keys gets no more; None if it does."""
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


_WORDS = {
    "storage_bytes": "this tenant's storage is full",
    "stored_objects": "this tenant stores as many files and artifacts as it is allowed",
    "cpu_s_per_day": "this tenant has used up its CPU-seconds for today",
    "egress_bytes_per_day": "this tenant has used up its egress bytes for today",
    "queued": "this tenant's queue is full",
    "sandboxes": "this tenant has as many living sandboxes as it may have at once",
    "sandbox_hours_per_day": "this tenant's sandboxes have run for as many hours as they may today",
    "snapshot_bytes": "this tenant's snapshots take as many bytes as they may",
    "templates": "this tenant has as many templates as it may have",
    "template_bytes": "this tenant's templates take as many bytes as they may",
    "sandbox_memory_mb": "this tenant's sandboxes together have as much memory (MiB) as they may",
}


def _frees(figure: Figure) -> str:
    if figure.name in ("sandboxes", "sandbox_memory_mb"):
        return "kill one, or ask the operator for more"
    if figure.name in ("snapshot_bytes", "templates", "template_bytes"):
        first = f"; the first expires at {_at(figure.frees_at)}" if figure.frees_at else ""
        return f"delete one, or ask the operator for more{first}"
    if figure.frees_at is not None:
        return f"the quota is renewed at {_at(figure.frees_at)}"
    if figure.name == "queued":
        return "try again when an execution has started or been cancelled"
    return "delete something, or ask the operator for more"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _retry_after(figure: Figure, now: datetime) -> int | None:
    if figure.frees_at is not None:
        return max(1, round((figure.frees_at - now).total_seconds()))
    return QUEUE_RETRY_S if figure.name == "queued" else None


def _items(limits: Limits) -> list[tuple[str, Any]]:
    return list(asdict(limits).items())
