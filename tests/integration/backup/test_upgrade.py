"""A deployment of the first schema, with data, becomes one of today, and so does its backup."""

from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from runner.backup.restore import restore
from runner.backup.take import OLDEST
from runner.base.signing import Signer
from runner.secrets.keyring import KeyFile
from runner.store import executions
from runner.store.db import Database
from runner.store.migrations import migrate
from runner.store.migrations.plan import plan
from runner.words.errors import SetupError
from runner.words.states import State
from tests.integration.backup.conftest import Made
from tests.integration.backup.test_restore import faults
from tests.integration.store.test_migrations import DATA, VERSIONS, until
from tests.support.backups import HERE, Small, quiet, small

TENANT = UUID("01938a00-0000-7000-8000-000000000001")
ENDED, RAN, WAITED = (UUID(f"01938a00-0000-7000-8000-0000000000{n}") for n in (11, 12, 13))
OBJECT = f"tenants/{TENANT}/executions/{ENDED}/1/0"


def of_revision(made: Small, last: str) -> None:
    """Give a new deployment the first schema with data, and migrate it up to this revision."""
    with psycopg.connect(made.services.owner_url) as owner:
        owner.execute((VERSIONS / "0001_initial.sql").read_bytes())
    made.sql((DATA / "first_deployment.sql").read_text())
    with psycopg.connect(made.services.owner_url) as owner:
        for name in until(last)[1:]:
            owner.execute((VERSIONS / name).read_bytes())
        owner.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        owner.execute("INSERT INTO alembic_version VALUES (%s)", [last])
    KeyFile(made.settings.secrets_key_path).make()
    Signer.open(made.folder)
    path = made.settings.objects_dir / OBJECT
    path.parent.mkdir(parents=True)
    path.write_bytes(b"an artifact")


async def require_todays(made: Small) -> None:
    """Check that what the first schema held is there, and reads as today's code reads it."""
    superuser = Database(made.logins.superuser, max_size=1)
    async with superuser as database, database.tenant(TENANT) as tx:
        found = {id_: await executions.get(tx, id_) for id_ in (ENDED, RAN, WAITED)}
        (key,) = await tx.all("keys.find", prefix="firstkey1")
    states = {id_: each.state if each else None for id_, each in found.items()}
    assert states == {ENDED: State.SUCCEEDED, RAN: State.RUNNING, WAITED: State.QUEUED}
    ended = found[ENDED]
    assert ended is not None
    assert ended.result is not None
    assert (ended.result.exit_code, ended.result.usage.pids_peak) == (0, 2)
    assert dict(ended.metadata) == {"job": "7"}
    assert key["tenant_id"] == TENANT
    held = "SELECT waiting, active FROM queues WHERE tenant_id = %s"
    assert made.sql(held, TENANT) == [(1, 1)]
    used = "SELECT bytes, objects FROM storage_usage WHERE tenant_id = %s"
    assert made.sql(used, TENANT) == [(11, 1)]
    await made.seal()


async def test_the_first_schema_with_data_comes_to_todays(empty: Small, tmp_path: Path) -> None:
    """Then it is backed up, restored elsewhere, and holds: its log, its keys, its artifact."""
    of_revision(empty, "0001")
    planned = plan(empty.logins.owner)
    assert (planned.now, planned.revisions[0].revision) == ("0001", "0002")
    migrate(empty.logins.owner, *empty.logins.others)
    await require_todays(empty)
    manifest = await empty.backed_up(tmp_path / "backup", tmp_path / "keys")
    assert (manifest.contents.waiting, manifest.contents.objects) == (2, 1)
    made = Made(tmp_path / "backup", tmp_path / "keys", manifest)
    with small() as other:
        await restore(made.folder, made.keys, manifest, other.place, HERE, quiet)
        assert await faults(made, other) == []
        await require_todays(other)


async def test_a_backup_of_an_older_schema_comes_to_todays_when_it_is_restored(
    empty: Small, tmp_path: Path
) -> None:
    of_revision(empty, OLDEST)
    manifest = await empty.backed_up(tmp_path / "backup", tmp_path / "keys")
    assert manifest.revision == OLDEST
    made = Made(tmp_path / "backup", tmp_path / "keys", manifest)
    with small() as other:
        await restore(made.folder, made.keys, manifest, other.place, HERE, quiet)
        assert plan(other.logins.owner).revisions == ()
        assert await faults(made, other) == []
        await require_todays(other)


async def test_a_schema_that_is_too_old_for_a_backup_is_named(empty: Small, tmp_path: Path) -> None:
    of_revision(empty, "0001")
    with pytest.raises(SetupError, match="revision 0001"):
        await empty.backed_up(tmp_path / "backup")


async def test_a_database_without_a_schema_is_no_deployment(empty: Small, tmp_path: Path) -> None:
    KeyFile(empty.settings.secrets_key_path).make()
    with pytest.raises(SetupError, match="nothing to back up"):
        await empty.backed_up(tmp_path / "backup")
