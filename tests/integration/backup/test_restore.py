"""A backup is restored whole, into nothing, or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner.backup import database, files, whole
from runner.backup.check import check
from runner.backup.database import SPENT_BY_USE
from runner.backup.manifest import MANIFEST
from runner.backup.restore import restore
from runner.base.signing import Signer, TrustedKeys
from runner.secrets.keyring import KeyFile, KeyRing
from runner.store.db import Database
from runner.words.errors import SetupError, StoreUnavailable
from tests.integration.backup.conftest import Made, Prepared
from tests.integration.backup.test_backup import runner
from tests.support.backups import HERE, Small, quiet, small
from tests.support.buckets import bucket

ROWS = ("tenants", "api_keys", "files", "objects", "secrets", "secret_keys", "audit_events",
        "audit_heads", "audit_checkpoints")  # fmt: skip
TAMPERED = ("manifest.json", "database.dump", "objects.ndjson", "chains.ndjson", "objects/",
            "state/trusted-keys/", "state/sealed/", "keys/signing-", "keys/secrets.kek",
            "egress/authority.pem")  # fmt: skip
"""A file of each kind, by how its path begins."""


def rows(of: Small) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of the tables that a test fills."""
    return {name: of.sql(f"SELECT * FROM {name} ORDER BY 1, 2") for name in ROWS}  # noqa: S608


def untouched(of: Small) -> bool:
    """Return whether nothing was written to a deployment."""
    tables = of.sql("SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    return not tables and {path.name for path in of.folder.iterdir()} <= {"log", "run", "services"}


async def restored(backup: Made, to: Small, keys: Path | None = None) -> None:
    """Restore a backup without verifying it first."""
    await restore(backup.folder, keys or backup.keys, backup.manifest, to.place, HERE, quiet)


async def faults(backup: Made, of: Small, ring: KeyRing | None = None) -> list[str]:
    """Return what a verification finds wrong with a restored deployment."""
    opens = ring or KeyFile(of.settings.secrets_key_path).ring()
    async with Database(of.logins.superuser, max_size=1) as store:
        checked = await check(
            store, of.objects, TrustedKeys(of.folder).read(), opens, backup.folder
        )
    return [what for each in checked for what in each.faults]


async def test_a_restored_deployment_is_what_was_backed_up(
    backup: Made, running: Small, empty: Small
) -> None:
    """The command verifies every tenant, and says so in a table."""
    told = runner(
        empty, "restore", str(backup.folder), "--private-keys", str(backup.keys), "--json"
    )
    assert told.returncode == 0, told.stderr
    said = json.loads(told.stdout)
    assert said["valid"]
    by_name = {each["name"]: each for each in said["tenants"]}
    assert (by_name["acme"]["objects"], by_name["acme"]["secrets"]) == (3, "open")
    assert by_name["acme"]["checkpoints"] == 1
    assert by_name["acme"]["records"] >= 1
    assert rows(empty) == rows(running)
    for name in ("keys/secrets.kek", "egress/authority.pem"):
        assert (empty.folder / name).read_bytes() == (running.folder / name).read_bytes()
    assert Signer.open(empty.folder).key_id == Signer.open(running.folder).key_id
    assert not (empty.folder / "restoring").exists()
    # It goes on where it was: its worker knows what it has sealed, and seals on.
    await empty.tenant("later")
    unsealed = (
        "SELECT count(*) FROM audit_heads h WHERE seq > COALESCE((SELECT max(seq) FROM "
        "audit_checkpoints c WHERE c.tenant_id = h.tenant_id), 0)"
    )
    assert empty.sql(unsealed) == [(0,)]


SPENT = (
    "INSERT INTO users (user_id, email, password) VALUES "
    "(gen_random_uuid(), 'a@b.c', '$argon2id$')",
    "INSERT INTO memberships (tenant_id, user_id, role, created_by) SELECT t.tenant_id, user_id, "
    "'owner', 'operator' FROM users, tenants t WHERE t.name = 'acme'",
    "INSERT INTO sessions (tenant_id, session_id, user_id, hash, expires_at) SELECT tenant_id, "
    "gen_random_uuid(), user_id, decode(repeat('ab', 32), 'hex'), now() + '1 day' FROM memberships",
    "INSERT INTO invitations (tenant_id, invitation_id, email, role, hash, created_by, expires_at) "
    "SELECT tenant_id, gen_random_uuid(), 'new@b.c', 'owner', decode(repeat('cd', 32), 'hex'), "
    "'user', now() + '7 days' FROM memberships",
    "INSERT INTO password_resets (user_id, hash, expires_at) SELECT user_id, "
    "decode(repeat('ef', 32), 'hex'), now() + '1 day' FROM users",
    "INSERT INTO node_invitations (invitation_id, node, hash, made_by, expires_at) VALUES "
    "(gen_random_uuid(), 'host-2', decode(repeat('01', 32), 'hex'), 'operator', now() + '1 day')",
    "INSERT INTO operators (operator_id, name, prefix, hash) VALUES "
    "(gen_random_uuid(), 'ops', 'abcdefghijkl', decode(repeat('23', 32), 'hex'))",
    "INSERT INTO operator_sessions (session_id, operator_id, hash, expires_at) SELECT "
    "gen_random_uuid(), operator_id, decode(repeat('45', 32), 'hex'), now() + '1 day' "
    "FROM operators WHERE name = 'ops'",
)
"""A row in each table of tokens that end by their use, and what they rest on."""


async def test_no_token_that_may_have_been_used_is_good_again(
    running: Small, empty: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members stay, and log in again. Without the list of such tables, their rows come back."""
    for each in SPENT:
        running.sql(each)
    manifest = await running.backed_up(tmp_path / "backup", tmp_path / "keys")
    made = Made(tmp_path / "backup", tmp_path / "keys", manifest)
    await restored(made, empty)
    assert await faults(made, empty) == []
    assert {name: counted(empty, name) for name in SPENT_BY_USE} == dict.fromkeys(SPENT_BY_USE, 0)
    assert (counted(empty, "users"), counted(empty, "memberships")) == (1, 1)
    monkeypatch.setattr(database, "SPENT_BY_USE", frozenset())
    with small() as control:
        await restored(made, control)
        found = {name: counted(control, name) for name in SPENT_BY_USE}
        assert found == dict.fromkeys(SPENT_BY_USE, 1)


def counted(of: Small, table: str) -> int:
    """Return how many rows a table has."""
    ((count,),) = of.sql(f"SELECT count(*) FROM {table}")  # noqa: S608
    return int(count)


async def test_a_restore_into_a_bucket_and_from_one(tmp_path: Path) -> None:
    """The object store need not be of the same kind."""
    with bucket() as settings, small(**settings) as source, small() as target:
        await source.install()
        await source.tenant("acme")
        assert not source.settings.objects_dir.exists()
        manifest = await source.backed_up(tmp_path / "backup", tmp_path / "keys")
        made = Made(tmp_path / "backup", tmp_path / "keys", manifest)
        await restored(made, target)
        assert await faults(made, target) == []
    with bucket() as settings, small(**settings) as again:
        await restored(made, again)
        assert await faults(made, again) == []


@pytest.fixture(params=TAMPERED, ids=lambda begins: begins.strip("/-").replace("/", " "))
def changed(request: pytest.FixtureRequest, backup: Made) -> Path:
    """Return a file of the backup in which one byte was changed."""
    (path, *_) = [
        folder / name
        for folder in (backup.folder, backup.keys)
        for name in sorted(files.present(folder))
        if name.startswith(request.param)
    ]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def test_one_changed_byte_of_any_file_is_refused_before_anything_is_written(
    backup: Made, changed: Path, bare: Small
) -> None:
    told = runner(bare, "restore", str(backup.folder), "--private-keys", str(backup.keys))
    assert told.returncode == 78, told.stdout
    assert "hold" in told.stderr or "not a public key" in told.stderr
    assert changed.name in told.stderr or "signed by key" in told.stderr
    assert untouched(bare)


async def test_without_that_refusal_a_changed_object_would_be_restored(
    backup: Made, empty: Small
) -> None:
    """The control: what was changed is put back, and only the verification afterwards finds it."""
    path = next((backup.folder / "objects").rglob("*/files/*"))
    path.write_bytes(path.read_bytes()[:-1] + b"~")
    with pytest.raises(SetupError, match="was changed"):
        whole.require_whole(backup.folder, backup.keys, backup.manifest)
    await restored(backup, empty)
    (fault,) = await faults(backup, empty)
    assert "is not the one of the backup" in fault


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "chains.ndjson").unlink(), "chains.ndjson is missing"),
        (lambda folder: (folder / "objects" / "more").write_text("x"), "some were added"),
        (lambda folder: next((folder / "objects").rglob("*/files/*")).unlink(), "is missing"),
    ],
    ids=["a file is missing", "a file was added", "an object is missing"],
)
def test_a_backup_with_other_files_is_refused(backup: Made, change: Any, said: str) -> None:
    whole.require_whole(backup.folder, backup.keys, backup.manifest)
    change(backup.folder)
    with pytest.raises(SetupError, match=said):
        whole.require_whole(backup.folder, backup.keys, backup.manifest)


async def test_a_backup_that_a_forger_made_anew_is_refused_by_the_key_that_is_held(
    backup: Made, prepared: Prepared, bare: Small, tmp_path: Path
) -> None:
    """The control: with the keys that came with it, the forgery holds."""
    with small() as forger:
        await forger.install()
        await forger.tenant("acme")
        await forger.backed_up(tmp_path / "forged")
    (ours,) = (prepared.state / "trusted-keys").iterdir()
    forged = (str(tmp_path / "forged"), "--no-private-keys", "--check")
    refused = runner(bare, "restore", *forged, "--key", str(ours))
    assert (refused.returncode, "not trusted here" in refused.stderr) == (78, True)
    assert runner(bare, "restore", *forged).returncode == 0


async def test_what_is_in_the_way_is_named_and_left_alone(backup: Made, empty: Small) -> None:
    """A restore mixes nothing: the database, the store and the state folder must be empty."""
    await empty.install()
    await empty.tenant("other")
    before = rows(empty)
    told = runner(empty, "restore", str(backup.folder), "--private-keys", str(backup.keys))
    assert told.returncode == 78
    for part in ("the database holds", "the object store holds objects", "trusted-keys"):
        assert part in told.stderr
    assert rows(empty) == before


async def test_an_interrupted_restore_is_continued(backup: Made, empty: Small) -> None:
    """Until the database is there, nothing refers to what was restored; then all of it is."""

    def interrupt(what: str) -> None:
        if what == "the database":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await restore(backup.folder, backup.keys, backup.manifest, empty.place, HERE, interrupt)
    assert await empty.objects.holds_anything()
    await restored(backup, empty)
    assert await faults(backup, empty) == []


async def test_an_interrupted_restore_of_another_backup_is_in_the_way(
    backup: Made, running: Small, empty: Small, tmp_path: Path
) -> None:
    def interrupt(what: str) -> None:
        if what == "the database":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await restore(backup.folder, backup.keys, backup.manifest, empty.place, HERE, interrupt)
    other = await running.backed_up(tmp_path / "other")
    with pytest.raises(SetupError, match="not empty"):
        await restore(tmp_path / "other", None, other, empty.place, HERE, quiet)


async def test_a_dump_that_postgres_refuses_leaves_an_empty_database(
    backup: Made, empty: Small
) -> None:
    """It is restored in one transaction."""
    (backup.folder / "database.dump").write_bytes(
        (backup.folder / "database.dump").read_bytes()[:-2000]
    )
    with pytest.raises(StoreUnavailable, match="pg_restore failed"):
        await restored(backup, empty)
    assert empty.sql("SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE audit_events SET body = replace(body, 'success', 'failure') WHERE seq = 1",
         "was changed after it was written"),
        ("UPDATE audit_checkpoints SET document = replace(document, '\"seq\":', '\"seq\":9')",
         "does not hold"),
        ("DELETE FROM files WHERE path = '0.txt'", "does not list|no row names"),
        ("UPDATE files SET sha256 = repeat('0', 64) WHERE path = '0.txt'", "its row describes"),
    ],
    ids=["a record", "a checkpoint", "a row of an object", "a hash in a row"],
)  # fmt: skip
async def test_the_verification_finds_what_differs(
    backup: Made, empty: Small, statement: str, said: str
) -> None:
    """The control comes first: what was restored holds."""
    await restored(backup, empty)
    assert await faults(backup, empty) == []
    acme = empty.sql("SELECT tenant_id FROM tenants WHERE name = 'acme'")[0][0]
    for table in ("audit_events", "audit_checkpoints"):
        empty.sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    empty.sql(statement, tenant=acme)
    found = await faults(backup, empty)
    assert found
    assert any(part in each for part in said.split("|") for each in found), found


async def test_another_ring_of_keys_does_not_open_the_secrets(backup: Made, empty: Small) -> None:
    await restored(backup, empty)
    wrong = KeyRing.parse("QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=", "the test")
    found = await faults(backup, empty, wrong)
    assert len(found) == 2
    assert all("secrets do not open" in each for each in found)


def test_a_folder_that_is_no_backup_is_named(bare: Small, tmp_path: Path) -> None:
    told = runner(bare, "restore", str(tmp_path), "--no-private-keys")
    assert told.returncode == 78
    assert MANIFEST in told.stderr
