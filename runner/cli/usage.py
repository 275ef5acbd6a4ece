"""`runner usage`: what the tenant used, and what is left of its quotas."""

from datetime import datetime
from typing import Annotated, Any

import typer

from runner.cli import human
from runner.cli.console import out, read_settings, reports_errors
from runner.cli.listing import AsJson, Column, print_json, print_rows
from runner.cli.session import client

SHOWN = {
    "attempts": "attempts",
    "cpu_s": "CPU",
    "sandbox_cpu_s": "in sandboxes",
    "memory_gib_s": "GiB·s",
    "egress_bytes_up": "sent",
    "egress_bytes_down": "received",
    "artifact_bytes": "artifacts",
}
"""Titles of the columns, by the API's names."""


@reports_errors
def usage(
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day, UTC.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, UTC.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what was used by day, and what is left of each quota."""
    with client(read_settings()) as api:
        report = api.usage(first=_iso(first), last=_iso(last))
    if as_json:
        print_json(report)
        return
    out.print(f"tier {report['tier']}", highlight=False)
    print_rows(
        (Column("quota", whole=True), "used", "of", "left", "some is free (UTC)"),
        map(_quota, report["quotas"]),
        none="there are no quotas",
    )
    days = [(day["day"], day["used"]) for day in report["days"]]
    print_rows(
        (Column("day (UTC)", whole=True), *SHOWN.values()),
        (
            (name, *(human.quantity(column, used[column]) for column in SHOWN))
            for name, used in [*days, ("total", report["total"])]
        ),
        none="nothing was used",
    )


def _quota(quota: dict[str, Any]) -> tuple[str, ...]:
    name = quota["name"]
    amounts = (human.quantity(name, quota[each]) for each in ("used", "limit", "remaining"))
    return name, *amounts, human.moment(quota["frees_at"]) if quota["frees_at"] else ""


def _iso(day: datetime | None) -> str | None:
    return day.date().isoformat() if day else None
