"""Nobody edits a migration that has landed, because databases have already applied its text."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.support import manifests
from tests.support.manifests import MANIFEST

VERSIONS = Path(__file__).resolve().parents[2] / "runner/store/migrations/versions"


def faults(folder: Path) -> list[str]:
    """Return how a folder of migrations differs from its manifest."""
    return manifests.faults(folder, suffixes={".py", ".sql"}, instead="revision")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the migrations for changes."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(VERSIONS, tmp_path / "versions", ignore=ignored))


def test_every_migration_is_what_the_manifest_says() -> None:
    assert faults(VERSIONS) == []


def test_an_edited_migration_is_found(copy: Path) -> None:
    with (copy / "0004_receipts.sql").open("a") as file:
        file.write("-- A comment, too, is an edit.\n")
    assert faults(copy) == ["0004_receipts.sql was edited: write a new revision"]


def test_a_removed_migration_is_found(copy: Path) -> None:
    (copy / "0011_reuse.py").unlink()
    assert faults(copy) == ["0011_reuse.py is gone"]


def test_a_new_migration_needs_its_line(copy: Path) -> None:
    new = copy / "9999_more.sql"
    new.write_text("SELECT 1;\n")
    assert faults(copy) == [f"9999_more.sql is new: append its `sha256sum` to {MANIFEST}"]
    with (copy / MANIFEST).open("a") as file:
        file.write(f"{hashlib.sha256(new.read_bytes()).hexdigest()}  {new.name}\n")
    assert faults(copy) == []
