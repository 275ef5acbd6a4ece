"""What a tenant used, by day, and how it stands to its quotas."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

from runner.quotas.tiers import Standing
from runner.store import quotas, usage
from runner.store.transaction import Transaction
from runner.store.usage import Day
from runner.words.errors import Invalid

DAYS_SHOWN = 30
MOST_DAYS = 366


@dataclass(frozen=True, slots=True)
class Used:
    """A tenant's use from `first` to `last`, both included, and its standing now."""

    standing: Standing
    first: date
    last: date
    days: Sequence[Day]
    """Those on which something ended."""


async def used(tx: Transaction, first: date | None, last: date | None) -> Used:
    """Return the use in these days: without `last` up to today, without `first` for 30 days.

    Raises Invalid when `first` is after `last`, or too long before it. The reads need one snapshot.
    """
    standing = await quotas.standing(tx)
    last = last or standing.now.astimezone(UTC).date()
    first = first or max(last, date.min + timedelta(DAYS_SHOWN)) - timedelta(DAYS_SHOWN - 1)
    if not timedelta(0) <= last - first < timedelta(MOST_DAYS):
        raise Invalid(f"must not be after `to`, nor {MOST_DAYS} days or more before it", "from")
    return Used(standing, first, last, await usage.days(tx, first, last))
