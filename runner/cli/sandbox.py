"""`runner sandbox`: sandboxes that live, over HTTP: made, listed, looked at, used and killed."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from agent_runner import SandboxInfo
from runner.cli import human, sandbox_ports, sandbox_shell, sandbox_use, sandbox_watch
from runner.cli.console import out, read_settings, reports_errors
from runner.cli.ids import find_sandbox, shortened
from runner.cli.listing import (
    AsJson,
    Cell,
    Column,
    print_facts,
    print_json,
    print_older,
    print_rows,
)
from runner.cli.passing_on import PassesOn
from runner.cli.run import EgressOption, ImageOption, IsolationOption, pairs
from runner.cli.sandbox_use import SandboxArgument
from runner.cli.session import client

sandbox = typer.Typer(help="Sandboxes that live.", no_args_is_help=True)

STATE_STYLES = {"running": "green", "ended": "dim", "paused": "yellow"}
SHOWN = (
    "id", "state", "reason", "detail", "created_at", "started_at", "ended_at", "expires_at",
    "lives_until", "on_timeout", "auto_resume", "on_shortage", "kept_as", "project",
    "image", "size", "isolation",
)  # fmt: skip

Labels = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="NAME=VALUE", help="A label; repeatable."),
]


@sandbox.command("create")
@reports_errors
def create(
    image: ImageOption = None,
    size: Annotated[
        str | None,
        typer.Option(help="A size of limits; by default small, or the snapshot's or template's."),
    ] = None,
    isolation: IsolationOption = None,
    egress: EgressOption = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable; repeatable."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIABLE=NAME", help="A secret in a variable; repeatable."),
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(help="The id of a snapshot whose files it begins with.")
    ] = None,
    metadata: Labels = None,
    project: Annotated[str | None, typer.Option(help="The project that it belongs to.")] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0, help="Seconds for which it lives from now on; 0 for no limit.")
    ] = 300,
    on_timeout: Annotated[
        Literal["kill", "pause"], typer.Option(help="What happens to it then.")
    ] = "kill",
    on_shortage: Annotated[
        Literal["keep", "snapshot"],
        typer.Option(help="What happens to it if its host is short of memory while it is paused."),
    ] = "keep",
    *,
    auto_resume: Annotated[
        bool,
        typer.Option("--auto-resume", help="Resume it when somebody uses it while it is paused."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a sandbox, and print its id once it takes commands."""
    wanted: dict[str, Any] = {
        "image": image,
        **({} if size is None else {"size": size}),
        **({} if snapshot is None else {"snapshot": snapshot}),
        "isolation": isolation and isolation.value,
        "egress": list(egress or ()),
        "env": pairs("-e", env or ()),
        "secret_env": pairs("--secret", secret or ()),
        "metadata": pairs("-m", metadata or ()),
        "project": project,
        "timeout_s": timeout_s or None,
        "on_timeout": on_timeout,
        "auto_resume": auto_resume,
        "on_shortage": on_shortage,
    }
    with client(read_settings()) as api:
        made = api.sandboxes.create(**wanted)
    if as_json:
        print_json(made.info)
    else:
        out.print(made.id, highlight=False)


@sandbox.command("list")
@reports_errors
def list_sandboxes(
    state: Annotated[list[str] | None, typer.Option(help="Only these states; repeatable.")] = None,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    metadata: Labels = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Continue where the listing that printed this ended.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List sandboxes, newest first: those that live, and those that have ended."""
    with client(read_settings()) as api:
        found, next_cursor = api.sandboxes.list(
            state=state or (),
            project=project,
            metadata=pairs("-m", metadata or ()),
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        print_json({"items": found, "next_cursor": next_cursor})
        return
    ids = shortened([each.id for each in found])
    print_rows(
        (Column("id", whole=True), "state", "reason", "image", "size", "created", "expires"),
        (
            (
                ids[each.id],
                _state(each),
                each.reason or "",
                each.image,
                each.size,
                human.age(each.created_at),
                human.ahead(each.expires_at) if each.expires_at and not each.ended else "",
            )
            for each in found
        ),
        none="there are no such sandboxes"
        if state or project or metadata
        else "there are no sandboxes",
    )
    print_older(next_cursor)


@sandbox.command("show")
@reports_errors
def show(sandbox_id: SandboxArgument, *, as_json: AsJson = False) -> None:
    """Show one sandbox."""
    with client(read_settings()) as api:
        found = find_sandbox(api, sandbox_id).info
    if as_json:
        print_json(found)
    else:
        print_facts(_facts(found))


@sandbox.command("extend")
@reports_errors
def extend(
    sandbox_id: SandboxArgument,
    timeout_s: Annotated[float, typer.Argument(metavar="SECONDS", min=0, help="0 for no end.")],
) -> None:
    """Set how long a sandbox lives from now on."""
    with client(read_settings()) as api:
        changed = find_sandbox(api, sandbox_id).update(timeout_s=timeout_s or None)
    until = f"{human.moment(changed.expires_at)} UTC" if changed.expires_at else "killed"
    out.print(f"lives until {until}", highlight=False)


@sandbox.command("egress")
@reports_errors
def set_egress(
    sandbox_id: SandboxArgument,
    rules: Annotated[
        list[str] | None,
        typer.Argument(metavar="HOST…", help="What it may reach from now on; none for nothing."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="An egress policy whose rules are added.")
    ] = None,
) -> None:
    """Replace what a running sandbox may reach."""
    with client(read_settings()) as api:
        changed = find_sandbox(api, sandbox_id).update(
            egress=list(rules or ()), egress_policy=policy
        )
    for rule in changed.egress:
        out.print(f"{rule['host']}:{rule['port']} {rule['scheme']}", highlight=False)
    if not changed.egress:
        out.print("nothing")


@sandbox.command("pause")
@reports_errors
def pause(sandbox_id: SandboxArgument) -> None:
    """Freeze a sandbox's processes."""
    with client(read_settings()) as api:
        out.print(find_sandbox(api, sandbox_id).pause().state)


@sandbox.command("resume")
@reports_errors
def resume(sandbox_id: SandboxArgument) -> None:
    """Let a paused sandbox's processes go on."""
    with client(read_settings()) as api:
        out.print(find_sandbox(api, sandbox_id).resume().state)


@sandbox.command("snapshot")
@reports_errors
def snapshot_of(
    sandbox_id: SandboxArgument,
    name: Annotated[str | None, typer.Option(help="A label of your own.")] = None,
    metadata: Labels = None,
    expires_s: Annotated[
        float | None,
        typer.Option(min=1, help="How long it is kept; by default, until deleted."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Keep the files of a sandbox's workspace, and print the snapshot's id."""
    with client(read_settings()) as api:
        found = find_sandbox(api, sandbox_id)
        kept = found.snapshot(name, metadata=pairs("-m", metadata or ()), expires_s=expires_s)
    if as_json:
        print_json(kept)
    else:
        out.print(kept.id, highlight=False)


@sandbox.command("fork")
@reports_errors
def fork(
    sandbox_id: SandboxArgument,
    count: Annotated[int, typer.Option(min=1, max=16, help="How many copies.")] = 1,
    timeout_s: Annotated[
        float, typer.Option(min=0, help="Seconds for which each lives from now on; 0 for no limit.")
    ] = 300,
) -> None:
    """Make copies of a running sandbox, with its files, and print their ids."""
    with client(read_settings()) as api:
        for each in find_sandbox(api, sandbox_id).fork(count, timeout_s=timeout_s or None):
            out.print(each.id, highlight=False)


@sandbox.command("kill")
@reports_errors
def kill(
    sandbox_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Sandboxes' ids.")],
) -> None:
    """End sandboxes, whatever they are doing."""
    with client(read_settings()) as api:
        for each in sandbox_ids:
            find_sandbox(api, each).kill()


sandbox.command("exec", cls=PassesOn)(sandbox_use.execute)
sandbox.command("shell", cls=PassesOn)(sandbox_shell.shell)
sandbox.command("processes")(sandbox_use.processes)
sandbox.command("logs")(sandbox_use.logs)
sandbox.command("events")(sandbox_watch.events)
sandbox.command("metrics")(sandbox_watch.metrics)
sandbox.command("cp")(sandbox_use.copy)
sandbox.command("forward")(sandbox_ports.forward)


def _facts(found: SandboxInfo) -> Iterator[tuple[str, Cell]]:
    for name in SHOWN:
        value = getattr(found, name)
        if name == "state":
            yield name, _state(found)
        elif value is not None:
            is_moment = name.endswith(("_at", "_until"))
            shown = ("no", "yes")[value] if isinstance(value, bool) else value
            yield name, f"{human.moment(value)} UTC" if is_moment else shown
    for name, number in found.limits.items():
        yield name, human.quantity(name, number)
    for name, value in found.metadata.items():
        yield "metadata", f"{name}={value}"


def _state(found: SandboxInfo) -> Text:
    return Text(found.state, STATE_STYLES.get(found.state, "cyan"))
