"""Commands about executions, over HTTP: list, show, follow, cancel."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from agent_runner import Execution
from runner.cli import human
from runner.cli.console import err, fail, out, read_settings, reports_errors
from runner.cli.ids import whole
from runner.cli.listing import (
    AsJson,
    Cell,
    Column,
    print_facts,
    print_json,
    print_older,
    print_rows,
)
from runner.cli.omitted import tell_omitted
from runner.cli.run import Follower, pairs
from runner.cli.session import client

executions = typer.Typer(help="Executions.", no_args_is_help=True)

STATE_STYLES = {"succeeded": "green", "queued": "dim", "starting": "cyan", "running": "cyan"}

SHOWN = (
    "id", "state", "reason", "detail", "exit_code", "signal", "attempt", "created_at",
    "started_at", "ended_at", "project", "image", "size", "queue_position", "estimated_start_s",
    "limits_hit",
)  # fmt: skip

ExecutionArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The execution's id, as `executions list` shows it, or enough of its beginning.",
    ),
]


@executions.command("list")
@reports_errors
def list_executions(
    state: Annotated[list[str] | None, typer.Option(help="Only these states; repeatable.")] = None,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", "-m", metavar="NAME=VALUE", help="Only those with this label; repeatable."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Continue where the listing that printed this ended.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List executions, newest first."""
    with client(read_settings()) as api:
        found, next_cursor = api.list(
            state=state or (),
            project=project,
            metadata=pairs("-m", metadata or ()),
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        print_json({"items": found, "next_cursor": next_cursor})
        return
    print_rows(
        (Column("id", whole=True), "state", "reason", Column("created", whole=True)),
        ((each.id, _state(each), each.reason or "", human.age(each.created_at)) for each in found),
        none="there are no such executions"
        if state or project or metadata
        else "there are no executions",
    )
    print_older(next_cursor)


@executions.command("show")
@reports_errors
def show(execution: ExecutionArgument, *, as_json: AsJson = False) -> None:
    """Show one execution with its output."""
    with client(read_settings()) as api:
        found = api.get(whole(api, execution))
    if as_json:
        print_json(found)
        return
    print_facts(_facts(found))
    for stream, sink in ((found.stdout, out), (found.stderr, err)):
        if stream is not None and stream.raw:
            sink.print(stream.text, markup=False, highlight=False, end="", soft_wrap=True)
    tell_omitted(found)


@executions.command("cancel")
@reports_errors
def cancel(execution: ExecutionArgument) -> None:
    """Cancel an execution."""
    with client(read_settings()) as api:
        out.print(api.cancel(whole(api, execution)).state)


@executions.command("logs")
@reports_errors
def logs(
    execution: ExecutionArgument,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends.")] = False,
) -> None:
    """Print an execution's output."""
    with client(read_settings()) as api:
        execution = whole(api, execution)
        if follow or api.get(execution).ended:
            Follower(api, execution).follow()
            tell_omitted(api.get(execution))
            return
    fail("it has not ended: give -f to follow it")


def _facts(found: Execution) -> Iterator[tuple[str, Cell]]:
    for name in SHOWN:
        value = getattr(found, name)
        if value not in (None, "", ()):
            yield name, _state(found) if name == "state" else _value(name, value)
    for name, value in found.usage.items():
        if value is not None:
            yield name, _value(name, value)
    for artifact in found.artifacts:
        yield "artifact", f"{artifact.path}  {human.size(artifact.size)}"


def _value(name: str, value: object) -> str:
    if isinstance(value, int | float):
        return human.quantity(name, value)
    if name.endswith("_at"):
        return f"{human.moment(str(value))} UTC"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _state(execution: Execution) -> Text:
    return Text(execution.state, STATE_STYLES.get(execution.state, "red"))
