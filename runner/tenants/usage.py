"""The usage of a tenant, by day, and the rest of its quotas."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

from runner.quotas.standing import Standing
from runner.store import quotas, usage
from runner.store.transaction import Transaction
from runner.store.usage import Day
from runner.words.errors import Invalid

DAYS_SHOWN = 30
MOST_DAYS = 366


@dataclass(frozen=True, slots=True)
class Used:
    """A tenant's use from `first` to `last` (both included), and its quotas now."""

    standing: Standing
    first: date
    last: date
    days: Sequence[Day]
    """Only days on which something was used."""


async def used(tx: Transaction, first: date | None, last: date | None) -> Used:
    """Return the use from `first` (default: 30 days back) to `last` (default: today).

    Raises Invalid if `first` is after `last` or too long before it. Needs a snapshot transaction.
    """
    standing = await quotas.standing(tx)
    last = last or standing.now.astimezone(UTC).date()
    first = first or max(last, date.min + timedelta(DAYS_SHOWN)) - timedelta(DAYS_SHOWN - 1)
    if not timedelta(0) <= last - first < timedelta(MOST_DAYS):
        raise Invalid(f"must not be after `to`, nor {MOST_DAYS} days or more before it", "from")
    return Used(standing, first, last, await usage.days(tx, first, last))
