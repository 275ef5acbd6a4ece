"""The audit log: listed, verified, exported, forwarded."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from runner.cli import human, webhook
from runner.cli.console import (
    err,
    fail,
    out,
    read_settings,
    read_text,
    reports_errors,
    shown,
)
from runner.cli.listing import AsJson, Column, print_json, print_rows
from runner.cli.session import client, operated
from runner.words.text import counted

if TYPE_CHECKING:
    from runner.audit.checkpoints import Checkpoint
    from runner.audit.offline import Report
    from runner.base.signing import PublicKey

audit = typer.Typer(help="The audit log.", no_args_is_help=True)
audit.add_typer(webhook.webhook, name="webhook")

Action = Annotated[str | None, typer.Option(help="Only this action.")]
KeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--key", exists=True, dir_okay=False, help="A public key (PEM) to trust; repeatable."
    ),
]
Against = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="An earlier export or a worker's log, whose checkpoints must fit; repeatable.",
    ),
]


@audit.command("list")
@reports_errors
def list_records(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 50,
    action: Action = None,
    cursor: Annotated[
        str | None, typer.Option(help="Continue where the listing that printed this ended.")
    ] = None,
    *,
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the tenant's audit records, newest first."""
    order = "oldest" if oldest else "newest"
    with client(read_settings()) as api:
        page = api.audit(limit=limit, action=action, cursor=cursor, order=order)
    if as_json:
        print_json(page)
        return
    print_audit(page["items"])
    if page["next_cursor"] is not None:
        err.print(f"more: --cursor {page['next_cursor']}", highlight=False, soft_wrap=True)


@audit.command("export")
@reports_errors
def export(
    file: Annotated[
        Path | None, typer.Argument(dir_okay=False, help="The file to write; default: stdout.")
    ] = None,
    action: Action = None,
    actor: Annotated[str | None, typer.Option(help="Only by this actor.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only with this outcome.")] = None,
    resource: Annotated[str | None, typer.Option(help="Only about this id.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on (RFC 3339).")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time (RFC 3339).")] = None,
    *,
    platform: Annotated[
        bool,
        typer.Option(
            "--platform",
            help="Export the deployment's own log, without filters. Needs "
            "RUNNER_DATABASE_OWNER_URL, and the trusted keys in RUNNER_STATE_DIR.",
        ),
    ] = False,
) -> None:
    """Write the audit log as NDJSON that ends in a signed checkpoint."""
    if platform:
        _write(file, iter(_platform_log()))
        return
    filters = {
        "action": action, "actor": actor, "outcome": outcome, "resource_id": resource,
        "since": since, "until": until,
    }  # fmt: skip
    with client(read_settings()) as api, api.export_audit(**filters) as pieces:
        _write(file, pieces)


@audit.command("verify")
@reports_errors
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(
            exists=True, dir_okay=False, help="An export; default: the log in the deployment."
        ),
    ] = None,
    key: KeyFiles = None,
    against: Against = None,
) -> None:
    """Verify the tenant's audit log, or an export of it offline; exit code 1 if it does not hold.

    It names each changed, removed or moved record by its number. It verifies an export with the
    keys that you give. Without a key, an export is UNVERIFIED, and the exit code is 1.
    """
    if file is None:
        _verify_online(_keys(key), list(against or ()))
    else:
        _verify_file(file, _keys(key), list(against or ()))


@audit.command("forget-seal")
@reports_errors
def forget_seal(
    tenants: Annotated[list[UUID], typer.Argument(help="Ids of tenants.", metavar="TENANT …")],
) -> None:
    """After a restore: let this host's worker seal logs that ended later than the backup.

    The worker refuses to seal a log that lacks records it once sealed (`audit_chain_broken` in its
    log). Use this command if you know why they are missing.
    """
    from runner.audit.memory import Memory

    memory = Memory(read_settings().state_dir)
    for tenant in tenants:
        known = memory.forget(tenant)
        out.print(f"{tenant}: {'forgotten' if known else 'not known here'}", highlight=False)


def print_audit(records: list[dict[str, Any]]) -> None:
    """Print audit records as rows that fit 80 columns."""
    print_rows(
        (Column("#", whole=True), Column("at (UTC)", whole=True), "actor", "action", "outcome",
         "what"),
        (_row(each) for each in records),
        none="there are no such records",
    )  # fmt: skip


def _row(listed: dict[str, Any]) -> tuple[str, ...]:
    record = listed["record"]
    facts = record["metadata"]
    at = human.moment(record["at"])
    return (
        str(listed["seq"]),
        at if at[:10] != f"{datetime.now(UTC):%Y-%m-%d}" else at[11:],
        record["actor"],
        record["action"],
        record["outcome"],
        _what(record, facts),
    )


def _what(record: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return what tells this record from others of its action."""
    what = str(facts.get("reason") or facts.get("language") or record["resource_type"] or "")
    return f"{facts['host']}:{facts['port']} {what}" if {"host", "port"} <= facts.keys() else what


def _write(file: Path | None, pieces: Iterator[bytes]) -> None:
    if file is None:
        sys.stdout.buffer.writelines(pieces)
        return
    with file.open("wb") as sink:
        sink.writelines(pieces)


def _platform_log() -> list[bytes]:
    from runner.audit import export
    from runner.audit.events import Filter, Origin
    from runner.auth.caller import SYSTEM
    from runner.base.signing import TrustedKeys
    from runner.cli.database import as_owner
    from runner.store.db import Database
    from runner.words.ids import PLATFORM_TENANT

    settings = operated()
    trusted = TrustedKeys(settings.state_dir)

    async def read(owner: Database) -> list[bytes]:
        lines = await export.begin(
            owner, PLATFORM_TENANT, Filter(), trusted, actor=SYSTEM, origin=Origin()
        )
        return [piece async for piece in lines]

    return as_owner(settings, read)


def _verify_online(keys: "tuple[PublicKey, ...] | None", against: list[Path]) -> None:
    from runner.audit.memory import Memory
    from runner.base.signing import TrustedKeys

    settings = read_settings()
    trusted = keys or TrustedKeys(settings.state_dir).read()
    with client(settings) as api:
        verdict = api.verify_audit()
        if verdict["valid"]:
            first = api.audit(limit=1)["items"]
            if not first:
                fail("the audit log is empty: even the record of the tenant's creation is missing")
            tenant = first[0]["record"]["tenant"]
            known = _known(against, trusted, tenant) if against else []
            # The worker's host also has what the worker remembers to have sealed.
            if (sealed := Memory(settings.state_dir).get(UUID(tenant))) is not None:
                known.append(_sealed(sealed, trusted, tenant, "what this host's worker remembers"))
            for each in known:
                verdict = api.verify_audit(seq=each.seq, hash_=each.hash.hex())
                if not verdict["valid"]:
                    break
    if not verdict["valid"]:
        fail(f"the audit log does not hold: {verdict['fault']}")
    checkpoint = verdict["checkpoint"]
    if checkpoint and keys:
        _sealed(checkpoint["document"], keys, tenant, "the newest checkpoint")
    out.print(
        f"[green]whole[/]: {counted(verdict['records'], 'record')}, head {verdict['head']}",
        soft_wrap=True,
    )
    if not checkpoint:
        out.print("not sealed yet: no worker has signed a checkpoint", highlight=False)
        return
    out.print(f"sealed up to record {checkpoint['seq']} at {checkpoint['at']}", highlight=False)
    if checkpoint["key"] not in {key.id for key in trusted}:
        out.print("by a key that only the deployment vouches for: give --key", highlight=False)


def _sealed(document: str, keys: "tuple[PublicKey, ...]", tenant: str, what: str) -> "Checkpoint":
    from runner.audit import checkpoints
    from runner.base.signing import BadSignature

    try:
        return checkpoints.read(document, keys, tenant)
    except BadSignature as error:
        fail(f"{what} does not hold: {error}")


def _verify_file(file: Path, keys: "tuple[PublicKey, ...] | None", against: list[Path]) -> None:
    from runner.audit import offline

    with _lines(file) as lines:
        report = offline.verify(lines, keys)
    if against and report.tenant is not None:
        known = _known(against, report.keys, report.tenant)
        with _lines(file) as lines:
            report = offline.verify(lines, keys, known)
    _print(report, trusted=keys is not None)
    if report.findings or keys is None:
        raise typer.Exit(1)


def _print(report: "Report", *, trusted: bool) -> None:
    for each in report.findings:
        err.print(f"[bold red]{each.kind}[/] #{each.seq}: {shown(each.what)}", highlight=False)
    if report.findings:
        err.print(
            f"read {counted(report.records, 'record')}: this export does not hold", highlight=False
        )
        return
    sealed = report.checkpoint
    if sealed is None:
        raise RuntimeError("an export without a checkpoint and without a finding")
    if not trusted:
        err.print(
            f"[bold red]UNVERIFIED[/]: {counted(report.records, 'record')} in order, sealed by key "
            f"{shown(sealed.key)}, which came with the file, as a forger's would. Give --key with "
            "what `runner signing show` prints on the worker's host.",
            highlight=False,
        )
        return
    if report.filtered:
        out.print(
            f"[yellow]a selection[/]: {counted(report.records, 'record')}, unchanged and in order; "
            "nobody can tell whether any was left out",
            highlight=False,
        )
    else:
        tenant = shown(report.tenant or "")
        out.print(f"[green]whole[/]: {counted(report.records, 'record')} of tenant {tenant}")
    out.print(
        f"sealed up to record {sealed.seq} at {shown(sealed.at)} by key {shown(sealed.key)}",
        highlight=False,
    )


def _keys(files: list[Path] | None) -> "tuple[PublicKey, ...] | None":
    from runner.base.signing import read_public_key

    if not files:
        return None
    try:
        return tuple(read_public_key(read_text(path)) for path in files)
    except ValueError as error:
        fail(f"not a public key: {error}")


def _known(files: list[Path], keys: "tuple[PublicKey, ...]", tenant: str) -> "list[Checkpoint]":
    from runner.audit import offline
    from runner.base.signing import BadSignature

    found: list[Checkpoint] = []
    for file in files:
        try:
            with _lines(file) as lines:
                found += offline.points(lines, keys, tenant)
        except BadSignature as error:
            fail(f"{file}: {error}")
    if not found:
        fail(f"no checkpoint of tenant {tenant} is in {', '.join(map(str, files))}")
    return found


@contextmanager
def _lines(file: Path) -> Iterator[Iterator[str]]:
    with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        yield lines
