"""How a tenant stands: its quotas beside what it uses of them, and what is refused for that.

There are four kinds of quota. `concurrent` makes executions wait and refuses nothing. Quotas by
day, and the length of the queue, refuse until some of the quota is free again. Storage refuses
until the tenant deletes something. Quotas of living sandboxes refuse until one ends. A day is one
of UTC; what an execution used counts on the day on which it ended.
"""

from dataclasses import dataclass
from datetime import datetime

from runner.quotas.tiers import Quotas
from runner.words.errors import QuotaExceeded
from runner.words.principal import Tier

QUEUE_RETRY_S = 5
"""Nobody knows when the next place in a queue is free; this keeps clients from asking without
pause."""

MOST_KEYS = 5000
"""Most usable API keys of any tenant: more than anybody manages, and few enough to end at once."""
RUNNING = ("cpu_s_per_day", "sandbox_hours_per_day")
"""Quotas that a sandbox uses up by running. Once one is used up, it is paused."""


@dataclass(frozen=True, slots=True)
class RunStanding:
    """A tenant's quotas, and what executions and files use of them, on the day until `day_ends`."""

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
    def cpu_left(self) -> float:
        """CPU-seconds that may still be used today."""
        return max(0.0, self.quotas.cpu_s_per_day - self.cpu_s)

    @property
    def egress_left(self) -> int:
        """Bytes that may still pass through the egress proxy today."""
        return max(0, self.quotas.egress_bytes_per_day - self.egress_bytes)

    def figures(self) -> tuple["Figure", ...]:
        """Return each of these quotas beside what is used of it."""
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
class Standing(RunStanding):
    """A tenant's quotas and all that it uses of them."""

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

    def figures(self) -> tuple["Figure", ...]:
        """Return each quota beside what is used of it."""
        quotas, day = self.quotas, self.day_ends
        return (
            *RunStanding.figures(self),
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


def refusal(standing: RunStanding, *, egress: bool) -> QuotaExceeded | None:
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
