"""A backup is whole, of one moment, and made while the deployment goes on."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runner.backup import files, whole
from runner.backup.take import TRIES, take
from runner.base.signing import TrustedKeys
from runner.words.errors import SetupError, StoreUnavailable
from tests.integration.backup.conftest import Made
from tests.support.backups import HERE, SECRET, Small


def listed(folder: Path) -> list[str]:
    """Return the keys in a backup's index."""
    return [each.key for each in whole.listed_objects(folder)]


def contents(folder: Path) -> bytes:
    """Return every byte of a folder's files."""
    return b"".join((folder / path).read_bytes() for path in sorted(files.present(folder)))


async def test_a_backup_holds_what_rows_refer_to_and_nothing_else(
    running: Small, tmp_path: Path
) -> None:
    """An object that no row names any more is left out."""
    tenant = await running.tenant("third", count=0)
    gone = await running.file(tenant, "gone.txt", b"gone")
    kept = await running.file(tenant, "kept.txt", b"kept")
    await running.remove(tenant, "gone.txt", gone)
    made = await running.backed_up(tmp_path / "backup")
    assert made.contents.tenants == 3
    assert kept in listed(tmp_path / "backup")
    assert gone not in listed(tmp_path / "backup")
    assert len(listed(tmp_path / "backup")) == made.contents.objects == 7
    assert (tmp_path / "backup" / "objects" / kept).read_bytes() == b"kept"
    whole.require_whole(tmp_path / "backup", None, made)


async def test_private_keys_are_apart_and_only_where_they_were_asked_for(
    running: Small, tmp_path: Path
) -> None:
    """The folder of the data holds no key, no value of a secret, and is closed to other users."""
    without = await running.backed_up(tmp_path / "without")
    made = await running.backed_up(tmp_path / "with", tmp_path / "keys")
    assert without.keys is None
    assert made.keys is not None
    assert {each.path.partition("-")[0] for each in made.keys} == {
        "keys/signing", "keys/secrets.kek", "egress/authority.pem",
    }  # fmt: skip
    ring = running.settings.secrets_key_path.read_bytes()
    assert (tmp_path / "keys" / "keys" / "secrets.kek").read_bytes() == ring
    for folder in (tmp_path / "without", tmp_path / "with"):
        text = contents(folder)
        assert b"PRIVATE KEY" not in text
        assert ring.strip() not in text
        assert SECRET.encode() not in text
    for folder in (tmp_path / "with", tmp_path / "keys"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {stat.S_IMODE((folder / path).stat().st_mode) for path in files.present(folder)}
        assert modes <= {0o600, 0o644}
    assert not any(
        stat.S_IMODE((tmp_path / "keys" / path).stat().st_mode) & 0o077
        for path in files.present(tmp_path / "keys")
    )


async def test_an_object_that_is_removed_after_the_moment_makes_another_moment(
    running: Small, tmp_path: Path
) -> None:
    """Otherwise, a row of the backup would name an object that it lacks."""
    tenant = await running.tenant("third", count=0)
    key = await running.file(tenant, "short-lived.txt", b"x")
    told: list[str] = []

    def tell(what: str) -> None:
        told.append(what)
        # The snapshot sees the row; its object goes before it is copied.
        if what == "objects that are new" and told.count(what) == 1:
            (tmp_path / "backup.partial" / "objects" / key).unlink()
            (running.settings.objects_dir / key).unlink()
            running.sql("DELETE FROM files WHERE tenant_id = %s", tenant, tenant=tenant)

    made = await take(running.deployment(), tmp_path / "backup", None, HERE, tell)
    assert told.count("objects that are new") == 2
    assert key not in listed(tmp_path / "backup")
    whole.require_whole(tmp_path / "backup", None, made)


ANOTHER = """
INSERT INTO files (tenant_id, path, size, sha256, media_type, object_key)
SELECT tenant_id, %s, size, sha256, media_type, object_key FROM files LIMIT 1"""


def store_another(of: Small, what: str) -> None:
    """Store one more row of a file, named by what the backup does."""
    of.sql(ANOTHER, f"while: {what}")


def dumped(folder: Path) -> str:
    """Return the rows of files in a dump."""
    return subprocess.run(
        [HERE[0] / "pg_restore", "--data-only", "--table=files", "--file=-",
         folder / "database.dump"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


async def test_a_backup_is_of_the_moment_before_its_database_is_dumped(
    running: Small, tmp_path: Path
) -> None:
    """What is stored while objects are copied is in it; what is stored during the dump is not."""
    await take(
        running.deployment(), tmp_path / "backup", None, HERE,
        lambda what: store_another(running, what),
    )  # fmt: skip
    found = dumped(tmp_path / "backup")
    assert found.count("while: the state folder") == 1
    assert found.count("while: the database") == 0


async def test_an_object_that_is_lost_already_is_named_and_can_be_left_out(
    running: Small, tmp_path: Path
) -> None:
    """What was copied stays, in a folder that shows that it is no whole backup."""
    tenant = await running.tenant("third", count=0)
    key = await running.file(tenant, "lost.txt", b"x")
    (running.settings.objects_dir / key).unlink()
    with pytest.raises(StoreUnavailable, match=rf"{key}.*--without-lost"):
        await running.backed_up(tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    with pytest.raises(SetupError, match="was not finished"):
        whole.read(tmp_path / "backup.partial", TrustedKeys(running.folder).read())
    made = await running.backed_up(tmp_path / "backup", without_lost=True)
    assert made.contents.lost == 1
    assert key not in listed(tmp_path / "backup")
    assert TRIES > 1


async def test_an_interrupted_backup_is_continued(running: Small, tmp_path: Path) -> None:
    """Objects that were copied are not copied again, and what is no longer wanted goes."""

    def interrupt(what: str) -> None:
        if what == "the database":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await take(running.deployment(), tmp_path / "backup", tmp_path / "keys", HERE, interrupt)
    partial = tmp_path / "backup.partial"
    copied = next(path for path in files.present(partial) if path.startswith("objects/"))
    (partial / "objects" / "tenants" / "stray").mkdir()
    (partial / "objects" / "tenants" / "stray" / "x").touch()
    before = (partial / copied).stat().st_ino
    made = await running.backed_up(tmp_path / "backup", tmp_path / "keys")
    assert (tmp_path / "backup" / copied).stat().st_ino == before
    assert not partial.exists()
    whole.require_whole(tmp_path / "backup", tmp_path / "keys", made)


async def test_an_existing_folder_is_left_as_it_is(backup: Made, running: Small) -> None:
    before = contents(backup.folder)
    with pytest.raises(SetupError, match="exists already"):
        await running.backed_up(backup.folder)
    assert contents(backup.folder) == before


async def test_a_login_that_does_not_see_all_rows_is_refused(
    running: Small, tmp_path: Path
) -> None:
    """The schema's owner would make a backup without any tenant's rows."""
    told = runner(running, "backup", str(tmp_path / "backup"), "--no-private-keys",
                  RUNNER_DATABASE_SUPERUSER_URL=running.services.owner_url)  # fmt: skip
    assert told.returncode == 78
    assert "no superuser" in told.stderr
    assert list(files.present(tmp_path)) == []


def runner(of: Small, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command against a deployment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")}
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        env={**kept, "COLUMNS": "120", **of.environment, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--no-private-keys"),
        (("--no-private-keys", "--private-keys", "keys"), "--no-private-keys"),
        (("--private-keys", "backup/keys"), "apart"),
        (("--private-keys", "."), "apart"),
    ],
    ids=["no choice", "both", "inside the backup", "around the backup"],
)
def test_what_becomes_of_private_keys_must_be_said(
    bare: Small, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    """A key is never written beside the data that it opens."""
    rooted = [str(tmp_path / each) if each in {"keys", "backup/keys", "."} else each
              for each in options]  # fmt: skip
    told = runner(bare, "backup", str(tmp_path / "backup"), *rooted)
    assert told.returncode == 78
    assert said in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_host_without_a_signing_key_makes_no_backup(bare: Small, tmp_path: Path) -> None:
    told = runner(bare, "backup", str(tmp_path / "backup"), "--no-private-keys")
    assert told.returncode == 78
    assert "host of a worker" in told.stderr


async def test_the_command_tells_what_it_made(running: Small, tmp_path: Path) -> None:
    told = runner(running, "backup", str(tmp_path / "backup"), "--no-private-keys", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["contents"]["objects"] == 6
    checked = runner(running, "restore", str(tmp_path / "backup"), "--no-private-keys", "--check")
    assert checked.returncode == 0, checked.stderr
    assert "whole" in checked.stdout
    assert "--key" in checked.stderr
