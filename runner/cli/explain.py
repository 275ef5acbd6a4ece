"""`runner explain`: why an execution or a sandbox waited, was refused or ended."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from agent_runner import Client, NotFound
from runner.cli import human
from runner.cli.console import out, read_settings, reports_errors, shown
from runner.cli.ids import of_either
from runner.cli.listing import AsJson, Column, print_json, print_rows
from runner.cli.session import client

_DIGITS = 12
"""Of a sandbox's id: enough to find its container by."""


@reports_errors
def explain(
    given: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="An execution's or a sandbox's id, or enough of its beginning."
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Explain why an execution or a sandbox waited, was refused or ended."""
    with client(read_settings()) as api:
        found = _found(api, of_either(api, given))
    if as_json:
        print_json(found)
        return
    out.print(f"{found['kind']} {found['id']}: {found['state']}", highlight=False, soft_wrap=True)
    print_rows(
        (Column("at (UTC)", whole=True), Column("after", whole=True), "stage", "facts"),
        map(_row, _with_gap(found)),
        none="nothing is on record of it",
    )
    for line in _verdict(found):
        out.print(shown(line), highlight=False, soft_wrap=True)


def _found(api: Client, id_: str) -> dict[str, Any]:
    try:
        return api.explain(id_)
    except NotFound:
        return api.sandboxes.explain(id_)


def _with_gap(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    first, *others = found["stages"]
    yield first
    if found["omitted"]:
        yield {"stage": f"… {found['omitted']} stages …", "at": None, "after_s": None}
    yield from others


def _row(stage: Mapping[str, Any]) -> tuple[str, ...]:
    after, at = stage["after_s"], stage["at"]
    return (
        "" if at is None else human.moment(at),
        "" if after is None else human.duration(after),
        stage["stage"].replace("_", " "),
        ", ".join(_facts(stage)),
    )


def _facts(stage: Mapping[str, Any]) -> Iterator[str]:
    if stage.get("attempt"):
        yield f"attempt {stage['attempt']}"
    if stage.get("node"):
        yield f"on node {stage['node']}"
    if stage.get("sandbox"):
        source = f" ({stage['source']})" if stage.get("source") else ""
        yield f"in sandbox {stage['sandbox'][:_DIGITS]}{source}"
    if stage.get("detail"):
        yield stage["detail"]


def _verdict(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the sentences below the table: why it waits, or why it ended and what to do."""
    if wait := found["wait"]:
        yield f"It waits ({wait['why']}): {wait['detail']}."
        if wait["starts_in_s"] is not None:
            yield f"It starts in about {human.duration(wait['starts_in_s'])}."
    if end := found["end"]:
        yield f"It ended ({end['reason']}): {end['means']}."
        if end["detail"]:
            yield end["detail"]
        yield end["advice"]
