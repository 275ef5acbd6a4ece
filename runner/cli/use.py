"""Commands that speak HTTP to a deployment: run, look, follow, cancel."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from runner.cli.console import err, fail, out, read_settings, reports_errors
from runner.cli.omitted import tell_gap, tell_omitted
from runner.cli.session import client
from runner.client import Client, Execution
from runner.words.resources import OutputKeep

executions = typer.Typer(help="Executions.", no_args_is_help=True)

LANGUAGES = {".py": "python", ".sh": "bash"}
SIGNAL_EXIT = 128
EX_SOFTWARE = 70
STATE_STYLES = {"succeeded": "green", "queued": "dim", "starting": "cyan", "running": "cyan"}

SHOWN = (
    "id", "state", "reason", "detail", "exit_code", "signal", "attempt", "created_at",
    "started_at", "ended_at", "image", "size", "queue_position", "estimated_start_s",
    "limits_hit",
)  # fmt: skip

ExecutionArgument = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.")]


@reports_errors
def run(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .py or .sh file.")],
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", exists=True, dir_okay=False, help="An input file; repeatable."
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="A size of limits.")] = "small",
    timeout_s: Annotated[float | None, typer.Option(help="Wall-clock limit.")] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIABLE=NAME", help="A secret in the environment; repeatable."),
    ] = None,
    egress: Annotated[
        list[str] | None,
        typer.Option(help="What it may reach: host, host:port, http://host; repeatable."),
    ] = None,
    output_kb: Annotated[int | None, typer.Option(help="KiB kept of stdout and of stderr.")] = None,
    output_keep: Annotated[
        OutputKeep, typer.Option(help="Which part is kept of output that is longer.")
    ] = "head",
    save_to: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the artifacts.")
    ] = None,
) -> None:
    """Run FILE in a sandbox, stream its output, and exit with its code."""
    language = LANGUAGES.get(file.suffix)
    if language is None:
        fail(f"{file}: the suffix must be one of {', '.join(LANGUAGES)}")
    limits = {"timeout_s": timeout_s, "output_kb": output_kb}
    secret_env = dict(each.partition("=")[::2] for each in secret or ())
    with client(read_settings()) as api:
        submitted = api.submit(
            code=file.read_text("utf-8"),
            language=language,
            files={path.name: path.read_bytes() for path in inputs or ()},
            size=size,
            limits={name: value for name, value in limits.items() if value is not None},
            output_keep=output_keep,
            secret_env=secret_env,
            egress=list(egress or ()),
        )
        follow(api, submitted.id)
        ended = api.get(submitted.id)
        if save_to is not None:
            save(api, ended, save_to)
    tell_omitted(ended)
    if ended.state != "succeeded":
        err.print(f"[bold]{ended.state}[/] ({ended.reason}): {ended.detail}", highlight=False)
    raise typer.Exit(exit_code(ended))


@executions.command("list")
@reports_errors
def list_executions(
    state: Annotated[list[str] | None, typer.Option(help="Only these states; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
) -> None:
    """List executions, newest first."""
    table = Table("id", "state", "reason", "image", "size", "created")
    with client(read_settings()) as api:
        found, _ = api.list(state=state or (), limit=limit)
    for each in found:
        style = STATE_STYLES.get(each.state, "red")
        table.add_row(
            each.id, f"[{style}]{each.state}[/]", each.reason or "", each.image, each.size,
            each.created_at,
        )  # fmt: skip
    out.print(table)


@executions.command("show")
@reports_errors
def show(execution: ExecutionArgument) -> None:
    """Show one execution with its output."""
    with client(read_settings()) as api:
        found = api.get(execution)
    table = Table.grid(padding=(0, 2))
    for name in SHOWN:
        value = getattr(found, name)
        if value not in (None, ()):
            table.add_row(f"[dim]{name}[/]", str(value))
    for name, value in found.usage.items():
        table.add_row(f"[dim]{name}[/]", str(value))
    for artifact in found.artifacts:
        table.add_row("[dim]artifact[/]", f"{artifact.path}  {artifact.size} bytes")
    out.print(table)
    for stream, sink in ((found.stdout, out), (found.stderr, err)):
        if stream is not None and stream.raw:
            sink.print(stream.text, markup=False, highlight=False, end="")
    tell_omitted(found)


@executions.command("cancel")
@reports_errors
def cancel(execution: ExecutionArgument) -> None:
    """Cancel an execution."""
    with client(read_settings()) as api:
        out.print(api.cancel(execution).state)


@executions.command("logs")
@reports_errors
def logs(
    execution: ExecutionArgument,
    *,
    follow_on: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends.")] = False,
) -> None:
    """Print an execution's output."""
    with client(read_settings()) as api:
        if follow_on or api.get(execution).ended:
            follow(api, execution)
            tell_omitted(api.get(execution))
            return
        fail("it has not ended: give -f to follow it")


def follow(api: Client, execution_id: str) -> None:
    """Print output as it comes: the program's bytes as they are, to the streams they belong to."""
    sinks = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    for event in api.events(execution_id):
        if event.kind in sinks:
            tell_gap(event)
            sinks[event.kind].write(event.raw)
            sinks[event.kind].flush()


def save(api: Client, ended: Execution, folder: Path) -> None:
    """Download the artifacts below a folder."""
    for artifact in ended.artifacts:
        target = folder / artifact.path
        if not target.resolve().is_relative_to(folder.resolve()):
            fail(f"artifact {artifact.path!r} would leave {folder}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file, api.download(ended.id, artifact.path) as chunks:
            file.writelines(chunks)


def exit_code(ended: Execution) -> int:
    """Return the program's exit code, 128 + n for a signal as shells do, 70 for none."""
    if ended.exit_code is not None and ended.state in {"succeeded", "failed"}:
        return ended.exit_code
    if ended.signal is not None and ended.state == "failed":
        return SIGNAL_EXIT + signal.Signals[ended.signal].value
    return EX_SOFTWARE
