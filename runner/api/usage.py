"""`/v1/usage`: what a tenant used, by day, and what is left of its quotas."""

import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field

from runner.api.deps import Allow, Parts
from runner.api.problems import responses
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.quotas.standing import Figure
from runner.store.db import Database
from runner.store.usage import Day
from runner.tenants.usage import used
from runner.words.errors import Invalid
from runner.words.principal import Tier

router = APIRouter(prefix="/v1/usage", tags=["usage"])

CanReadUsage = Annotated[Caller, Depends(Allow(Permission.USAGE_READ))]


def _iso_date(value: object) -> object:
    """Refuse numbers and times of day, which pydantic would take as dates."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        raise ValueError("must be a date such as 2026-03-01 (RFC 3339)")
    return value


_Date = Annotated[date, BeforeValidator(_iso_date)]
FirstDay = Annotated[_Date | None, Query(alias="from", description="First day, UTC.")]
LastDay = Annotated[_Date | None, Query(alias="to", description="Last day, UTC.")]


class UsageView(View):
    """The usage of a period: by executions that ended in it, and by living sandboxes."""

    attempts: int = Field(description="Attempts that ended. An execution usually has one.")
    wall_s: float = Field(description="Seconds for which programs ran.")
    cpu_s: float = Field(description="CPU-seconds of programs.")
    memory_gib_s: float = Field(
        description="GiB-seconds: the memory limit (not the peak) times the time it was held."
    )
    egress_bytes_up: int
    egress_bytes_down: int
    artifact_bytes: int = Field(description="Bytes of executions' artifacts.")
    sandbox_wall_s: float = Field(
        description="How much of `wall_s` living sandboxes used. Time in which they are paused is "
        "not among it."
    )
    sandbox_cpu_s: float = Field(description="How much of `cpu_s` living sandboxes used.")
    sandbox_memory_gib_s: float = Field(
        description="How much of `memory_gib_s` living sandboxes used, also while they were paused."
    )
    port_bytes_in: int = Field(
        description="Through ports of living sandboxes, to servers inside. No quota bounds them."
    )
    port_bytes_out: int

    @classmethod
    def of(cls, days: Sequence[Day]) -> Self:
        """Return the sum of these days."""
        return cls(
            attempts=sum(day.attempts for day in days),
            wall_s=_sum(day.wall_s for day in days),
            cpu_s=_sum(day.cpu_s for day in days),
            memory_gib_s=_sum(day.memory_gib_s for day in days),
            egress_bytes_up=sum(day.egress_bytes_up for day in days),
            egress_bytes_down=sum(day.egress_bytes_down for day in days),
            artifact_bytes=sum(day.artifact_bytes for day in days),
            sandbox_wall_s=_sum(day.sandbox_wall_s for day in days),
            sandbox_cpu_s=_sum(day.sandbox_cpu_s for day in days),
            sandbox_memory_gib_s=_sum(day.sandbox_memory_gib_s for day in days),
            port_bytes_in=sum(day.port_bytes_in for day in days),
            port_bytes_out=sum(day.port_bytes_out for day in days),
        )


def _sum(seconds: Iterable[Decimal]) -> float:
    return float(sum(seconds, Decimal(0)))


class DayView(View):
    """The usage of one day."""

    day: date = Field(
        description="In UTC. An execution counts on the day it ended, a sandbox while it lives."
    )
    used: UsageView


class QuotaView(View):
    """A quota, and how much of it is left."""

    name: str = Field(examples=["cpu_s_per_day"])
    limit: int
    used: float
    remaining: float = Field(description="0 if the tenant is above the limit.")
    frees_at: datetime | None = Field(
        description="When all of it is free again; null if time alone does not free it."
    )

    @classmethod
    def of(cls, figure: Figure) -> Self:
        """Return the view of a figure."""
        return cls(
            name=figure.name,
            limit=figure.limit,
            used=figure.used,
            remaining=max(0, figure.limit - figure.used),
            frees_at=figure.frees_at,
        )


class UsageReport(View):
    """The usage of a tenant, and its quotas."""

    tier: Tier
    max_size: str = Field(description="The largest size that executions may ask for.")
    weight: int = Field(description="Share of the slots while other tenants are waiting as well.")
    quotas: list[QuotaView]
    first: date
    last: date
    total: UsageView
    days: list[DayView] = Field(description="Days on which something was used.")


@router.get("", summary="Read usage and quotas", responses=responses())
async def read(
    caller: CanReadUsage,
    parts: Parts,
    first: FirstDay = None,
    last: LastDay = None,
    granularity: Literal["day"] = "day",  # noqa: ARG001 - the one there is, named for the next
) -> UsageReport:
    """Return the sums of the days asked for, the last 30 if none are, and every quota's standing.

    An execution is counted when it ends, a living sandbox about twice a minute.
    """
    return await report_of(parts.database, caller.tenant_id, first, last)


async def report_of(
    database: Database, tenant_id: UUID, first: date | None, last: date | None
) -> UsageReport:
    """Return the usage of a tenant. Raises RequestValidationError for a range that is none."""
    async with database.tenant(tenant_id, snapshot=True) as tx:
        try:
            found = await used(tx, first, last)
        except Invalid as error:
            raise _wrong_range(error) from None
    standing = found.standing
    return UsageReport(
        tier=standing.tier,
        max_size=standing.quotas.max_size,
        weight=standing.quotas.weight,
        quotas=[QuotaView.of(figure) for figure in standing.figures()],
        first=found.first,
        last=found.last,
        total=UsageView.of(found.days),
        days=[DayView(day=day.day, used=UsageView.of([day])) for day in found.days],
    )


def _wrong_range(error: Invalid) -> RequestValidationError:
    """Return the error as one of a query parameter; in other routes, the field is in a body."""
    return RequestValidationError(
        [{"type": "value_error", "loc": ("query", error.field), "msg": error.detail}]
    )
