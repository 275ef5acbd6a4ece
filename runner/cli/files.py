"""Stored files: written, read, listed and deleted over HTTP."""

import mimetypes
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, Annotated

import typer

from agent_runner import StoredFile
from runner.cli import human
from runner.cli.console import err, read_settings, reports_errors, shown
from runner.cli.listing import AsJson, print_json, print_rows
from runner.cli.session import client

files = typer.Typer(help="Stored files.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The stored file's name.")]
STDIN = Path("-")
UNKNOWN = "application/octet-stream"


@files.command("put")
@reports_errors
def put(
    local: Annotated[Path, typer.Argument(metavar="FILE", help="What to store; - for stdin.")],
    name: NameArgument,
    *,
    only_new: Annotated[bool, typer.Option("--only-new", help="Never overwrite.")] = False,
) -> None:
    """Store a file under a name, and replace any file of that name."""
    if local == STDIN:
        # The API needs the length first. Do not use /tmp, which may be memory.
        folder = read_settings().state_dir
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as spooled:
            shutil.copyfileobj(sys.stdin.buffer, spooled)
            spooled.seek(0)
            stored = _put(name, spooled, only_new=only_new)
    else:
        with local.open("rb") as file:
            stored = _put(name, file, only_new=only_new)
    err.print(
        f"stored {shown(stored.path)}: {human.size(stored.size)}, sha256 {stored.sha256}",
        highlight=False,
        soft_wrap=True,
    )


@files.command("get")
@reports_errors
def get(
    name: NameArgument,
    local: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: stdout.")] = None,
) -> None:
    """Write a stored file's bytes to a file or to standard output."""
    with client(read_settings()) as api, api.files.open(name) as pieces:
        if local is None:
            sys.stdout.buffer.writelines(pieces)
            sys.stdout.buffer.flush()
        else:
            with local.open("wb") as file:
                file.writelines(pieces)


@files.command("list")
@reports_errors
def list_files(
    prefix: Annotated[str, typer.Argument(help="Only files whose names begin with this.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """List stored files by name."""
    with client(read_settings()) as api:
        found = list(api.files.list(prefix))
    if as_json:
        print_json(found)
        return
    print_rows(
        ("name", "size", "type", "updated (UTC)", "expires (UTC)"),
        (
            (
                each.path,
                human.size(each.size),
                each.media_type,
                human.moment(each.updated_at),
                human.moment(each.expires_at) if each.expires_at else "",
            )
            for each in found
        ),
        none="there are no stored files" + (f" whose names begin with {prefix}" if prefix else ""),
    )


@files.command("delete")
@reports_errors
def delete(name: NameArgument) -> None:
    """Forget a stored file."""
    with client(read_settings()) as api:
        api.files.delete(name)


def _put(name: str, content: IO[bytes], *, only_new: bool) -> StoredFile:
    media_type = mimetypes.guess_type(name)[0] or UNKNOWN
    with client(read_settings()) as api:
        return api.files.put(name, content, media_type=media_type, only_new=only_new)
