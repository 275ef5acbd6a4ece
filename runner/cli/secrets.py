"""Secrets: written and listed over HTTP; their keys rotated by the operator."""

import sys
from typing import Annotated

import typer

from runner.cli import human
from runner.cli.console import err, fail, out, read_settings, reports_errors, required
from runner.cli.database import as_owner
from runner.cli.listing import AsJson, Column, print_json, print_rows
from runner.cli.session import client, operated

secrets = typer.Typer(help="Secrets.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name.")]


@secrets.command("put")
@reports_errors
def put(name: NameArgument) -> None:
    """Store a secret; its value comes from standard input, without the newline at its end."""
    if sys.stdin.isatty():
        value: str = typer.prompt("value", hide_input=True, err=True)
    else:
        try:
            value = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            fail("a secret is text, in UTF-8")
    with client(read_settings()) as api:
        api.put_secret(name, value.rstrip("\r\n"))
    err.print("stored; it cannot be read back", highlight=False)


@secrets.command("list")
@reports_errors
def list_secrets(*, as_json: AsJson = False) -> None:
    """List the tenant's secrets: their names, never their values."""
    with client(read_settings()) as api:
        found = api.secrets()
    if as_json:
        print_json(found)
        return
    print_rows(
        (Column("name", whole=True), "created (UTC)", "updated (UTC)"),
        (
            (each["name"], human.moment(each["created_at"]), human.moment(each["updated_at"]))
            for each in found
        ),
        none="there are no secrets",
    )


@secrets.command("delete")
@reports_errors
def delete(name: NameArgument) -> None:
    """Forget a secret."""
    with client(read_settings()) as api:
        api.delete_secret(name)


@secrets.command("rotate")
@reports_errors
def rotate() -> None:
    """Wrap every tenant's data key with a new key-encryption key, while everything runs.

    Needs RUNNER_DATABASE_OWNER_URL. With a key file, this command makes the new key; with
    RUNNER_SECRETS_KEY, it uses the first one there. A second run forgets the key before.
    """
    from runner.secrets.keyring import KeyFile, open_keys
    from runner.secrets.vault import Rewrapped, rewrap_all

    settings = operated()
    # Check this before a key is made.
    required(settings.database_owner_url, "RUNNER_DATABASE_OWNER_URL")
    keys = open_keys(settings)

    def rewrap() -> Rewrapped:
        return as_owner(settings, lambda owner: rewrap_all(owner, keys))

    if isinstance(keys, KeyFile):
        with keys.rotating():
            out.print(f"new key {keys.add()}", highlight=False)
            done = rewrap()
            for id_ in keys.retire(done.in_use):
                out.print(f"forgot key {id_}", highlight=False)
    else:
        done = rewrap()
    out.print(f"{done.changed} data keys wrapped again", highlight=False)
    if done.unopened:
        fail(f"these tenants' data keys do not open: {', '.join(map(str, done.unopened))}")
