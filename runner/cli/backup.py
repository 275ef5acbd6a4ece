"""A whole deployment, backed up and restored."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr

from runner import __version__
from runner.base.settings import Settings
from runner.cli.console import err, fail, out, read_text, reports_errors, required
from runner.cli.human import duration, moment, size
from runner.cli.listing import AsJson, print_json, print_rows
from runner.cli.session import operated
from runner.words.errors import SetupError
from runner.words.text import counted

if TYPE_CHECKING:
    from runner.backup.check import TenantCheck
    from runner.backup.database import DatabaseLogins
    from runner.backup.manifest import Manifest
    from runner.base.signing import PublicKey
    from runner.secrets.keyring import KeyRing

PrivateKeys = Annotated[
    Path | None,
    typer.Option(
        "--private-keys",
        help="Folder of the private keys. Keep it apart from the backup: both together open every "
        "tenant's secrets.",
    ),
]
_CHOOSE = (
    "say what becomes of the private keys, without which secrets do not open and nothing can be "
    "signed: --private-keys FOLDER, which you keep apart, or --no-private-keys"
)


@reports_errors
def backup(
    target: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    private_keys: PrivateKeys = None,
    *,
    no_private_keys: Annotated[
        bool, typer.Option("--no-private-keys", help="Leave the private keys out.")
    ] = False,
    without_lost: Annotated[
        bool,
        typer.Option("--without-lost", help="Leave out objects that the object store has lost."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the whole deployment while it runs; run this on the host of a worker.

    Needs RUNNER_DATABASE_SUPERUSER_URL, or `runner dev` beside it. An interrupted backup stays in
    TARGET.partial, and the same command continues it.
    """
    from runner.backup.take import Deployment, take
    from runner.base.signing import Signer
    from runner.store.objects import ObjectStore

    settings = operated()
    _require_choice(private_keys, none=no_private_keys)
    if private_keys is not None:
        _require_apart(target, private_keys)
    if not list((settings.state_dir / "keys").glob("signing-*.pem")):
        raise SetupError(
            f"there is no signing key in {settings.state_dir / 'keys'}: run this on the host of a "
            "worker, with its RUNNER_STATE_DIR"
        )
    with _logins(settings, make=False) as logins, _telling() as tell:
        deployment = Deployment(
            logins=logins,
            objects=ObjectStore.open(settings),
            state_dir=settings.state_dir,
            node=settings.node,
            release=__version__,
            signer=Signer.open(settings.state_dir),
            ring=_ring(settings),
            without_lost=without_lost,
        )
        made = asyncio.run(take(deployment, target, private_keys, _folders(), tell))
    if as_json:
        print_json(_told(made))
        return
    held = made.contents
    what = f"{counted(held.tenants, 'tenant')}, {counted(held.executions, 'execution')}"
    objects = f"{counted(held.objects, 'object')} ({size(held.object_bytes)})"
    out.print(f"[green]whole[/]: {what}, {objects} of {moment(made.of)} UTC", highlight=False)
    if held.lost:
        err.print(f"{counted(held.lost, 'object')} had been lost before", highlight=False)
    if private_keys is None:
        err.print("without private keys: keep those of this host yourself", highlight=False)


@reports_errors
def restore(
    source: Annotated[Path, typer.Argument(help="What `runner backup` made.", show_default=False)],
    private_keys: PrivateKeys = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A public key (PEM) that may have signed the backup, as `runner signing show` "
            "printed it; repeatable.",
        ),
    ] = None,
    *,
    no_private_keys: Annotated[
        bool,
        typer.Option("--no-private-keys", help="Use the keys that are here, or make new ones."),
    ] = False,
    check_only: Annotated[
        bool, typer.Option("--check", help="Verify the backup, and restore nothing.")
    ] = False,
    cancel_waiting: Annotated[
        bool,
        typer.Option("--cancel-waiting", help="Cancel what would run after the restore."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty deployment, and verify everything; exit code 1 if it fails.

    Needs RUNNER_DATABASE_SUPERUSER_URL and RUNNER_DATABASE_OWNER_URL; without any login of
    PostgreSQL, it restores a deployment of `runner dev`. Start API and workers afterwards.
    """
    from runner.backup import whole

    settings = operated()
    _require_choice(private_keys, none=no_private_keys)
    trusted = _trusted(key)
    with _telling() as tell:
        tell("every hash of the backup")
        manifest = whole.read(source, trusted)
        if private_keys is not None and manifest.keys is None:
            raise SetupError(f"{source} was made without private keys: give --no-private-keys")
        whole.require_whole(source, private_keys, manifest)
    if not trusted:
        err.print(
            "the backup fits to the keys that came with it. So would a forger's, whose database "
            "could run commands as PostgreSQL's superuser: if others could write to it, give --key "
            "with what `runner signing show` printed on its host",
            highlight=False,
        )
    if check_only:
        if as_json:
            print_json(_told(manifest))
        else:
            out.print(f"[green]whole[/]: a backup of {moment(manifest.of)} UTC")
        return
    began = time.monotonic()
    with _logins(settings, make=True) as logins, _telling() as tell:
        work = _restored(
            source, private_keys, manifest, settings, logins, tell, cancel=cancel_waiting
        )
        checked, cancelled = asyncio.run(work)
    _report(manifest, checked, cancelled, time.monotonic() - began, as_json=as_json)


async def _restored(
    source: Path,
    private_keys: Path | None,
    manifest: "Manifest",
    settings: Settings,
    logins: "DatabaseLogins",
    tell: Callable[[str], None],
    *,
    cancel: bool,
) -> "tuple[list[TenantCheck], int | None]":
    """Restore and verify; return what was verified, and how many executions were cancelled."""
    from runner.backup.check import check
    from runner.backup.restore import Place, restore
    from runner.backup.waiting import cancel_waiting
    from runner.base.signing import TrustedKeys
    from runner.quotas.sizes import load_sizes
    from runner.quotas.tiers import load_tiers
    from runner.store.db import Database
    from runner.store.objects import ObjectStore

    store = ObjectStore.open(settings)
    place = Place(
        logins=logins,
        objects=store,
        state_dir=settings.state_dir,
        ring=settings.secrets_key_path if settings.secrets_key is None else None,
        tiers=load_tiers(settings.profiles_path, load_sizes(settings.profiles_path)),
    )
    await restore(source, private_keys, manifest, place, _folders(), tell)
    tell("every log, receipt and object")
    keys = TrustedKeys(settings.state_dir).read()
    async with Database(logins.superuser, max_size=1) as database:
        checked = await check(database, store, keys, _ring(settings), source)
        if not cancel:
            return checked, None
        return checked, sum([await cancel_waiting(database, each.tenant) for each in checked])


def _report(
    manifest: "Manifest",
    checked: "list[TenantCheck]",
    cancelled: int | None,
    took_s: float,
    *,
    as_json: bool,
) -> None:
    faults = [f"{each.name or each.tenant}: {what}" for each in checked for what in each.faults]
    if as_json:
        print_json(
            {
                "backup": _told(manifest),
                "tenants": [asdict(each) for each in checked],
                "cancelled": cancelled,
                "took_s": round(took_s, 2),
                "valid": not faults,
            }
        )
    else:
        print_rows(
            ("tenant", "records", "checkpoints", "receipts", "objects", "bytes", "secrets", ""),
            (
                (
                    each.name or f"{each.tenant} (deleted)",
                    str(each.records),
                    str(each.checkpoints),
                    str(each.receipts + each.sandbox_receipts),
                    str(each.objects),
                    size(each.bytes),
                    each.secrets,
                    "does not hold" if each.faults else "verified",
                )
                for each in checked
            ),
            none="the backup holds no tenant",
        )
        _say_what_runs(manifest, cancelled)
        err.print(f"restored and verified in {duration(took_s)}", highlight=False)
    if faults:
        fail("; ".join(faults))


def _say_what_runs(manifest: "Manifest", cancelled: int | None) -> None:
    held = manifest.contents
    if cancelled is not None:
        err.print(
            f"cancelled {counted(cancelled, 'execution')} that had not ended", highlight=False
        )
    elif held.waiting:
        err.print(
            f"{counted(held.waiting, 'execution')} had not ended: once a worker runs, those that "
            "waited run, even if they ended after the backup, and those that ran end as lost or "
            "run again, as they asked. `runner executions cancel ID` ends one before that.",
            highlight=False,
        )
    if held.sandboxes:
        err.print(f"{counted(held.sandboxes, 'living sandbox')} will end as lost", highlight=False)


@contextmanager
def _logins(settings: Settings, *, make: bool) -> "Iterator[DatabaseLogins]":
    """Yield the logins of the environment, those of `runner dev`, or start PostgreSQL for them.

    With `make`, the embedded PostgreSQL may be made.
    """
    from runner.backup.database import DatabaseLogins
    from runner.embedded.hold import held
    from runner.embedded.services import services

    given = (settings.database_superuser_url, settings.database_owner_url)
    others = (settings.database_operator_url, settings.database_api_url,
              settings.database_worker_url)  # fmt: skip
    if any((*given, *others)):
        superuser = required(given[0], "RUNNER_DATABASE_SUPERUSER_URL")
        owner = required(given[1], "RUNNER_DATABASE_OWNER_URL") if make else given[1]
        yield DatabaseLogins(superuser, owner or superuser, tuple(url for url in others if url))
        return
    if not make and not (settings.state_dir / "services" / "postgres" / "PG_VERSION").exists():
        raise SetupError(
            f"RUNNER_DATABASE_SUPERUSER_URL is not set, and {settings.state_dir} holds no "
            "deployment of `runner dev`: set the variable"
        )
    with (
        held(settings.state_dir) as tell,
        services(settings.state_dir, patience=settings.patience) as running,
    ):
        tell("`runner backup` or `runner restore`")
        yield DatabaseLogins(
            SecretStr(running.superuser_url),
            SecretStr(running.owner_url),
            tuple(map(SecretStr, (running.operator_url, running.api_url, running.worker_url))),
        )


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """Yield a function that says what is being done, on a terminal."""
    with err.status("beginning") as status:
        yield status.update


def _folders() -> list[Path]:
    """Return where PostgreSQL's programs may be; this host's own come first: they know TLS."""
    from runner.embedded.postgres import every_programs

    installed = shutil.which("pg_dump")
    return [*([Path(installed).parent] if installed else []), *every_programs()]


def _ring(settings: Settings) -> "KeyRing | None":
    """Return the keys of tenants' secrets as they are now; None if there are none."""
    from runner.secrets.keyring import KeyFile, open_keys

    if settings.secrets_key is None and not settings.secrets_key_path.exists():
        return None
    keys = open_keys(settings)
    return keys.ring() if isinstance(keys, KeyFile) else keys


def _trusted(files: list[Path] | None) -> "tuple[PublicKey, ...]":
    from runner.base.signing import read_public_key

    try:
        return tuple(read_public_key(read_text(path)) for path in files or ())
    except ValueError as error:
        fail(f"not a public key: {error}")


def _require_choice(folder: Path | None, *, none: bool) -> None:
    if (folder is None) is not none:
        raise SetupError(_CHOOSE)


def _require_apart(target: Path, keys: Path) -> None:
    from runner.backup.files import partial

    folders = [(each, partial(each)) for each in (target.resolve(), keys.resolve())]
    if any(a == b or a in b.parents or b in a.parents for a, b in product(*folders)):
        raise SetupError("keep the private keys apart: give --private-keys a folder beside TARGET")


def _told(manifest: "Manifest") -> dict[str, Any]:
    return manifest.model_dump(mode="json", exclude={"files", "keys"})
