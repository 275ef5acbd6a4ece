"""`runner snapshot`: the files of sandboxes that are kept, over HTTP."""

from typing import Annotated

import typer

from runner.cli import human
from runner.cli.console import read_settings, reports_errors
from runner.cli.listing import AsJson, Column, print_json, print_older, print_rows
from runner.cli.session import client

snapshots = typer.Typer(help="Snapshots: files of sandboxes, kept.", no_args_is_help=True)


@snapshots.command("list")
@reports_errors
def list_snapshots(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Continue where the listing that printed this ended.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List snapshots, newest first."""
    with client(read_settings()) as api:
        found, next_cursor = api.snapshots.list(limit=limit, cursor=cursor)
    if as_json:
        print_json({"items": found, "next_cursor": next_cursor})
        return
    print_rows(
        (Column("id", whole=True), "name", "image", "size", "bytes", "created"),
        (
            (
                each.id,
                each.name or "",
                each.image,
                each.size,
                human.size(each.size_bytes),
                human.age(each.created_at),
            )
            for each in found
        ),
        none="there are no snapshots",
    )
    print_older(next_cursor)


@snapshots.command("delete")
@reports_errors
def delete(
    snapshot_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Snapshots' ids.")],
) -> None:
    """Delete snapshots. Sandboxes that were made from them keep their files."""
    with client(read_settings()) as api:
        for each in snapshot_ids:
            api.snapshots.delete(each)
