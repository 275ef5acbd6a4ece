"""`runner templates`: what sandboxes are made from, built over HTTP."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from agent_runner import Client, TemplateInfo
from runner.cli import dockerfile, human
from runner.cli.console import err, plain, read_settings, reports_errors, shown
from runner.cli.listing import AsJson, Column, print_json, print_older, print_rows
from runner.cli.public_templates import public
from runner.cli.session import client

templates = typer.Typer(help="Templates: what sandboxes are made from.", no_args_is_help=True)
templates.add_typer(public, name="public")

POLL_S = 0.5
TemplateArgument = Annotated[str, typer.Argument(metavar="ID", help="The template's id.")]


@templates.command("build")
@reports_errors
def build(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder with a Dockerfile.", file_okay=False)
    ],
    *,
    name: Annotated[str | None, typer.Option(help="Default: the folder's name.")] = None,
    tag: Annotated[str, typer.Option(help="Its tag.")] = "default",
    egress: Annotated[
        list[str] | None, typer.Option(help="What the build may reach; repeat it for more.")
    ] = None,
    size: Annotated[str, typer.Option(help="The size of the build's sandbox.")] = "medium",
    timeout: Annotated[float, typer.Option(help="Seconds that the build may take.")] = 900.0,
    start: Annotated[
        str | None, typer.Option(help="A command that begins in each of its sandboxes.")
    ] = None,
    ready: Annotated[
        str | None, typer.Option(help="A command that exits with 0 once a sandbox is ready.")
    ] = None,
    ready_within: Annotated[
        int, typer.Option(help="Seconds within which --ready must succeed.")
    ] = 60,
    cpu: Annotated[float | None, typer.Option(help="Processors of its sandboxes.")] = None,
    memory_mb: Annotated[int | None, typer.Option(help="MiB of memory of its sandboxes.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Do every step again.")] = False,
) -> None:
    """Build a template from a Dockerfile; print its log, and on success its image's name.

    FROM names an image of the deployment or a template; RUN, COPY, ENV, ARG, WORKDIR and USER are
    understood. Exits with 1 if the build fails.
    """
    said = dockerfile.read(folder)
    limits = {
        name: value for name, value in (("cpu", cpu), ("memory_mb", memory_mb)) if value is not None
    }
    with client(read_settings()) as api:
        begun = api.templates.build(
            name or folder.resolve().name,
            said.steps,
            base=said.base,
            tag=tag,
            egress=egress or [],
            size=size,
            timeout_s=timeout,
            start=start,
            ready=ready,
            ready_s=ready_within,
            # An API of an earlier release does not know the field.
            **({"sandbox_limits": limits} if limits else {}),
            anew=anew,
        )
        ended = _followed(api, begun.id)
    if ended.state != "ready":
        err.print(f"the build failed: {shown(str(ended.detail))}", highlight=False)
        raise typer.Exit(1)
    sys.stdout.write(f"{ended.image}\n")


def _followed(api: Client, template_id: str) -> TemplateInfo:
    """Print a build's log as it grows; return the template once it has ended."""
    after, ended = 0, False
    while True:
        found = api.templates.get(template_id)
        # What was written until the end is read after the end is known.
        while entries := api.templates.logs(template_id, after=after):
            for each in entries:
                err.print(plain(each.text), end="", soft_wrap=True)
            after = entries[-1].seq
        if ended:
            return found
        ended = found.state != "building"
        time.sleep(0 if ended else POLL_S)


@templates.command("list")
@reports_errors
def list_templates(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Continue where the listing that printed this ended.")
    ] = None,
    *,
    everybodys: Annotated[
        bool, typer.Option("--public", help="List those of the operator instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List templates, newest first, with builds that go on or have failed."""
    with client(read_settings()) as api:
        found, next_cursor = api.templates.list(limit=limit, cursor=cursor, public=everybodys)
    if as_json:
        print_json({"items": found, "next_cursor": next_cursor})
        return
    print_rows(
        (Column("id", whole=True), "name", "tags", "state", "base", "bytes", "created"),
        (
            (
                each.id,
                each.name,
                ", ".join(each.tags) or f"({each.tag})",
                each.state,
                each.base,
                human.size(each.size_bytes or 0),
                human.age(each.created_at),
            )
            for each in found
        ),
        none="there are no templates",
    )
    print_older(next_cursor)


@templates.command("logs")
@reports_errors
def logs(template_id: TemplateArgument) -> None:
    """Print what the build of a template wrote, until it ends."""
    with client(read_settings()) as api:
        _followed(api, template_id)


@templates.command("tag")
@reports_errors
def tag(
    template_id: TemplateArgument,
    tags: Annotated[list[str], typer.Argument(metavar="TAG…", help="Tags of its name.")],
) -> None:
    """Let tags of its name stand for a template, whatever they stood for before."""
    with client(read_settings()) as api:
        api.templates.tag(template_id, tags)


@templates.command("untag")
@reports_errors
def untag(
    template_id: TemplateArgument,
    tags: Annotated[list[str], typer.Argument(metavar="TAG…", help="Tags of the template.")],
) -> None:
    """Let tags of a template stand for nothing. The template stays."""
    with client(read_settings()) as api:
        for each in tags:
            api.templates.untag(template_id, each)


@templates.command("delete")
@reports_errors
def delete(
    template_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Templates' ids.")],
) -> None:
    """Delete templates. Sandboxes that were made from them live on."""
    with client(read_settings()) as api:
        for each in template_ids:
            api.templates.delete(each)
