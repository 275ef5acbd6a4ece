"""Commands about what sandboxes may do: seccomp profiles and sizes of limits."""

import asyncio
import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.base.seccomp import Document, compile_filter, load_profile, read_profile
from runner.base.settings import Settings
from runner.cli.console import err, fail, out, read_settings, reports_errors
from runner.cli.listing import AsJson, print_json, print_rows
from runner.cli.passing_on import PassesOn
from runner.cli.session import operated
from runner.profiles.dangerous import DANGEROUS
from runner.quotas.sizes import load_sizes
from runner.words.errors import SetupError
from runner.words.execution import InputFile
from runner.words.resources import Limits
from runner.words.sandbox import SandboxSpec

if TYPE_CHECKING:
    from runner.egress.session import Decision
    from runner.profiles.learn import Observation
    from runner.profiles.propose import Proposal

profile = typer.Typer(help="Seccomp profiles and sizes of limits.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A seccomp profile's name.")]


@profile.command("list")
@reports_errors
def list_profiles(*, as_json: AsJson = False) -> None:
    """List the seccomp profiles and the sizes that requests may name."""
    settings = read_settings()
    files = sorted((settings.profiles_path / "seccomp").glob("*.json"))
    profiles = [(path.stem, len(read_profile(path)[1].allowed), path) for path in files]
    sizes = sorted(load_sizes(settings.profiles_path).items(), key=lambda each: each[1].memory_mb)
    if as_json:
        names = ("name", "calls_allowed", "file")
        print_json(
            {
                "seccomp": [dict(zip(names, each, strict=True)) for each in profiles],
                "sizes": dict(sizes),
            }
        )
        return
    print_rows(
        ("seccomp profile", "calls allowed", "file"),
        ((name, str(calls), str(path)) for name, calls, path in profiles),
        none="there is no seccomp profile",
    )
    print_rows(
        ("size", *(each.name for each in dataclasses.fields(Limits))),
        (
            (name, *(f"{value:g}" for value in dataclasses.astuple(limits)))
            for name, limits in sizes
        ),
        none="there is no size",
    )


@profile.command("show")
@reports_errors
def show(name: NameArgument = "default") -> None:
    """Show what a profile allows, group by group, each with its reason."""
    loaded = load_profile(read_settings().profiles_path, name)
    _, document = read_profile(_path(read_settings(), name))
    for entry in document.entries:
        answer = "" if entry.is_allowed else f"[yellow]errno {entry.errno_ret}[/] "
        where = "".join(f" [dim](argument {test.index} tested)[/]" for test in entry.args)
        out.print(f"{answer}[bold]{' '.join(entry.names)}[/]{where}", highlight=False)
        out.print(f"  {entry.comment}", highlight=False, markup=False)
    out.print(
        f"\n{len(loaded.allowed)} system calls by name; entries: {len(document.entries)}; "
        f"everything else gets errno {document.default_errno}\n{loaded.hash}",
        highlight=False,
    )


@profile.command("check")
@reports_errors
def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            dir_okay=False, help="A file, or a profile's name; by default the one in force."
        ),
    ] = None,
) -> None:
    """Compile a profile as a worker does when it starts, and name what it should not allow."""
    path = file or Path("default")
    if not path.exists() and (named := _path(read_settings(), str(path))).exists():
        path = named
    _, document = read_profile(path)
    try:
        compile_filter(document)
    except (OSError, KeyError) as error:
        raise SetupError(f"seccomp profile {path} does not compile: {error}") from error
    out.print(f"{path}: {len(document.allowed)} system calls allowed", highlight=False)
    for name in sorted(document.allowed & DANGEROUS.keys()):
        err.print(f"[yellow]warning:[/] {name}: it {DANGEROUS[name]}", highlight=False)


@profile.command("learn", cls=PassesOn)
@reports_errors
def learn_profile(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND…", help="What to observe, with its arguments.")
    ],
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", exists=True, dir_okay=False, help="An input file; repeatable."
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="A size of limits.")] = "medium",
    image: Annotated[str, typer.Option(help="A sandbox image.")] = "python",
    unconfined: Annotated[  # noqa: FBT002 - a flag of the command line
        bool,
        typer.Option(
            "--unconfined", help="Let refused calls pass, to see what would come after them."
        ),
    ] = False,
    egress: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Let the command reach what this rule permits ('*': what the ceiling permits), "
            "and propose the smallest allowlist; repeatable.",
        ),
    ] = None,
    write: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the proposed profile here.")
    ] = None,
) -> None:
    """Run COMMAND in an observing sandbox and print the smallest profile it needs, as a diff.

    Run only a command that you trust: in this sandbox, processes may trace each other.
    """
    from runner.cli.observe import egress_policy, observe
    from runner.profiles.allowlist import smallest
    from runner.profiles.learn import observing, unfiltered
    from runner.profiles.propose import propose

    settings = operated()
    sizes = load_sizes(settings.profiles_path)
    if size not in sizes:
        fail(f"size {size!r} is not one of {', '.join(sorted(sizes))}")
    raw, document = read_profile(_path(settings, "default"))
    files = [InputFile(path.name, path.read_bytes()) for path in inputs or ()]
    policy = egress_policy(settings, egress or [])
    decisions: list[Decision] = []
    with err.status("observing"):
        seen = asyncio.run(
            observe(
                settings,
                document,
                command,
                files=files,
                spec=SandboxSpec(image, sizes[size].resources),
                bounds=sizes[size].bounds,
                configure=unfiltered if unconfined else observing,
                policy=policy,
                decisions=decisions,
            )
        )
    err.print(seen.output.decode(errors="replace"), end="", markup=False, highlight=False)
    proposal = propose(raw, document, seen.calls, f"Needed by: {shlex.join(command)}")
    out.print(proposal.diff("seccomp/default.json"), end="", markup=False, highlight=False)
    _summarise(seen, proposal, document)
    if egress:
        allowlist = smallest(policy.rules, decisions)
        out.print(allowlist.diff(), end="", markup=False, highlight=False)
        for rule in allowlist.refused:
            err.print(f"[yellow]refused:[/] {rule}: no rule permits it", highlight=False)
    if write is not None:
        write.write_text(proposal.after)


def _summarise(seen: "Observation", proposal: "Proposal", document: Document) -> None:
    code = seen.ending.exit_code
    if code != 0:
        err.print(f"[yellow]warning:[/] the command ended with code {code}", highlight=False)
    for warning in proposal.warnings:
        err.print(f"[bold red]warning:[/] {warning}", highlight=False)
    err.print(
        f"{len(document.allowed)} calls allowed in force, {len(proposal.unused)} of them not "
        f"needed, {len(proposal.added)} more asked for",
        highlight=False,
    )


def _path(settings: Settings, name: str) -> Path:
    return settings.profiles_path / "seccomp" / f"{name}.json"
