"""A backup that a forger made, and a place where other users may write."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.backup import files, whole
from runner.backup.manifest import BackedFile, BackedObject, ChainEnd, Contents, Manifest, sealed
from runner.base.signing import Signer, TrustedKeys
from runner.cli.backup import _require_apart
from runner.words.errors import SetupError

KEY = "tenants/01a22422-63e4-76d9-b79d-e3423dccb431/files/01a22422-63e4-76d9-b79d-e3423dccb432"
NAMED = "trusted-keys/{id}.pub"


class Forged:
    """A folder that looks like a backup, signed by a key that came with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "objects").mkdir(parents=True)
        for name in ("database.dump", "objects.ndjson", "chains.ndjson"):
            (folder / name).write_bytes(b"")
        self._signer = Signer.open(folder.parent / "forger")
        (public,) = (folder.parent / "forger" / "trusted-keys").glob("*.pub")
        self.put(f"state/trusted-keys/{public.name}", public.read_bytes())

    def put(self, path: str, content: bytes = b"x") -> None:
        """Add a file."""
        files.written(self.folder / path, content)

    def fault(self, *, keys: tuple[BackedFile, ...] | None = None, of: str = "2026-01-02") -> str:
        """Return why it is refused; nothing if it is not."""
        there = sorted(files.present(self.folder))
        named = [each for each in there if not each.startswith(("objects/", "manifest.json"))]
        listed = (self.folder / "objects.ndjson").read_text().count("\n")
        manifest = Manifest.model_construct(
            began_at=of, of=of, ended_at=of, node="n", release="1", revision="1", owner="o",
            server=16, programs=16,
            contents=Contents(tenants=0, executions=0, waiting=0, sandboxes=0, objects=listed,
                              object_bytes=0, lost=0),
            files=tuple(files.described(self.folder, each) for each in named), keys=keys,
        )  # fmt: skip
        (self.folder / "manifest.json").write_text(sealed(self._signer, manifest))
        try:
            read = whole.read(self.folder, TrustedKeys(self.folder / "state").read())
            whole.require_whole(self.folder, self.folder if keys else None, read)
        except SetupError as error:
            return error.detail
        return ""


@pytest.fixture
def forged(tmp_path: Path) -> Forged:
    return Forged(tmp_path / "backup")


def test_the_control_is_whole(forged: Forged) -> None:
    forged.put("state/sealed/one.json")
    assert forged.fault() == ""


@pytest.mark.parametrize(
    "name",
    [
        "state/services/postgres/postgresql.auto.conf", "state/keys/secrets.kek",
        "state/trusted-keys/below/one.pub", "state/sealed.json", "state/restoring", "more.dump",
    ],
)  # fmt: skip
def test_it_writes_nothing_else_into_the_state_folder(forged: Forged, name: str) -> None:
    """The embedded PostgreSQL, for instance, does what its settings say."""
    forged.put(name)
    assert f"{name} is no file of a backup" in forged.fault()


@pytest.mark.parametrize("name", ["door/api.pem", "door/other.pem"])
def test_keys_have_the_names_of_keys(forged: Forged, name: str) -> None:
    keys = (BackedFile(path=name, bytes=1, sha256="0" * 64),)
    named = "is no file of a backup" in forged.fault(keys=keys)
    assert named is (name == "door/other.pem")


def test_its_moment_is_one(forged: Forged) -> None:
    assert "not a manifest that this release reads: of" in forged.fault(of="yesterday")


@pytest.mark.parametrize("key", ["elsewhere", "tenants/acme/files/1", f"tenants/../{KEY}"])
def test_its_objects_have_the_keys_of_objects(forged: Forged, key: str) -> None:
    entry = BackedObject.model_construct(key=key, bytes=1, sha256="0" * 64)
    forged.put("objects.ndjson", f"{entry.model_dump_json()}\n".encode())
    assert "line 1 of objects.ndjson is not one of an index" in forged.fault()


def test_a_chain_is_a_tenants() -> None:
    with pytest.raises(ValueError, match="tenant"):
        ChainEnd(tenant="acme", seq=1, hash="0" * 64)


@pytest.mark.parametrize(
    "makes", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"]
)
def test_what_has_no_end_is_not_read(forged: Forged, makes: Callable[[Path], None]) -> None:
    """The restore would wait for it for ever."""
    entry = BackedObject(key=KEY, bytes=0, sha256="0" * 64)
    forged.put("objects.ndjson", f"{entry.model_dump_json()}\n".encode())
    place = forged.folder / "objects" / KEY
    place.parent.mkdir(parents=True)
    makes(place)
    assert f"objects/{KEY} cannot be read: not a regular file" in forged.fault()


def test_a_folder_that_others_may_read_is_not_filled(tmp_path: Path) -> None:
    """Where everybody may write, somebody may have made it beforehand."""
    target = tmp_path / "backup"
    files.partial(target).mkdir(mode=0o700)
    files.partial(target).chmod(0o755)
    with pytest.raises(SetupError, match="open to others"), files.appearing(target):
        pass
    files.partial(target).chmod(0o700)
    with files.appearing(target) as folder:
        (folder / "file").touch()
    assert (target / "file").exists()


def test_another_users_folder_is_not_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "backup"
    files.partial(target).mkdir(mode=0o700)
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(SetupError, match="another user's"), files.appearing(target):
        pass


def test_a_link_is_not_filled(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    files.partial(tmp_path / "backup").symlink_to(elsewhere)
    with pytest.raises(OSError, match="Not a directory"), files.appearing(tmp_path / "backup"):
        pass
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    "keys",
    ["backup", "backup/keys", "backup.partial", "backup.partial/keys", "way/keys", "x/../backup/k",
     "."],
)  # fmt: skip
def test_no_other_name_of_the_backups_folder_is_apart(tmp_path: Path, keys: str) -> None:
    """Keys beside the data would open every tenant's secrets."""
    (tmp_path / "way").symlink_to(tmp_path / "backup")
    _require_apart(tmp_path / "backup", tmp_path / "backup-keys")
    with pytest.raises(SetupError, match="keep the private keys apart"):
        _require_apart(tmp_path / "backup", tmp_path / keys)
