"""Receipts: fetched from a deployment, verified without one; and the keys that sign them."""

from pathlib import Path
from typing import Annotated

import typer

from runner.cli.console import err, fail, out, read_settings, read_text, reports_errors

receipt = typer.Typer(help="Receipts of executions and sandboxes.", no_args_is_help=True)
signing = typer.Typer(help="This deployment's signing keys.", no_args_is_help=True)


@receipt.command("get")
@reports_errors
def get(
    execution: Annotated[
        str, typer.Argument(metavar="ID", help="The execution's id, or enough of its beginning.")
    ],
    *,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="ID is the whole id of a sandbox.")
    ] = False,
) -> None:
    """Print the signed receipt of an execution, or of a sandbox that has ended."""
    from runner.cli.ids import whole
    from runner.cli.session import client

    with client(read_settings()) as api:
        if sandbox:
            print(api.sandboxes.receipt(execution))  # noqa: T201 - as below
            return
        print(api.receipt(whole(api, execution)))  # noqa: T201 - the exact bytes, nothing of a console


@receipt.command("verify")
@reports_errors
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A receipt.")],
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            exists=True,
            dir_okay=False,
            help="A public key (PEM); repeatable. Left out: the keys of this host's deployment.",
        ),
    ] = None,
) -> None:
    """Check a receipt's signature, offline; exit code 1 when anything in it was changed."""
    from runner.base.signing import BadSignature, TrustedKeys, read_public_key
    from runner.base.signing import verify as verified
    from runner.store.receipts import KIND, SANDBOX_KIND

    try:
        keys = (
            tuple(read_public_key(read_text(path)) for path in key)
            if key
            else TrustedKeys(read_settings().state_dir).read()
        )
    except ValueError as error:
        fail(f"not a public key: {error}")
    try:
        text = read_text(file).strip()
        # The kind is signed, too: a receipt that claims the other one does not verify.
        kind = SANDBOX_KIND if f'"type":"{SANDBOX_KIND}"' in text else KIND
        body = verified(text, kind, keys)
    except BadSignature as error:
        fail(f"{file}: {error}")
    if kind == SANDBOX_KIND:
        said = f"sandbox {body['sandbox']} {body['state']} ({body['reason']})"
    else:
        said = f"execution {body['execution']} {body['state']}"
    out.print(f"valid: {said}", highlight=False)


@signing.command("show")
@reports_errors
def show() -> None:
    """Print the public keys that verify what this deployment signed; give them to reviewers."""
    from runner.base.signing import TrustedKeys

    for key in TrustedKeys(read_settings().state_dir).read():
        err.print(key.id, highlight=False)
        print(key.pem, end="")  # noqa: T201 - to be redirected into a file


@signing.command("trust")
@reports_errors
def trust(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A public key (PEM).")],
) -> None:
    """Trust another worker's key on this host; every worker's and API's host needs this.

    Apart from the worker's own key, nothing else adds one: the database has no say in keys.
    """
    from runner.base.signing import TrustedKeys

    try:
        key = TrustedKeys(read_settings().state_dir).add(read_text(file))
    except ValueError as error:
        fail(f"{file} is not a public key: {error}")
    out.print(f"trusted: key {key.id}", highlight=False)


@signing.command("rotate")
@reports_errors
def rotate() -> None:
    """Make a new key, and delete the old private one; the worker uses it from its next start."""
    from runner.base.signing import rotate as made

    out.print(f"new key {made(read_settings().state_dir).id}", highlight=False)
