"""The guest gets the locked packages for its own Python, and names the step that failed."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def guest() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("guest", ROOT / "scripts" / "guest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tests_that_are_chosen_for_it_exist() -> None:
    """It takes hours until a wrong name is noticed there."""
    script = (ROOT / "scripts" / "guest-inside").read_text()
    (chosen,) = re.findall(r'^choice="([^"]+)"', script, re.MULTILINE)
    for path, _, name in (each.partition("::") for each in chosen.split()):
        assert (ROOT / path).is_file(), path
        assert f"def {name}(" in (ROOT / path).read_text() or not name, name


LOCK = (
    "both==1 \\\n    --hash=sha256:aa\nold==2 ; python_full_version < '3.12' \\\n"
    "    --hash=sha256:bb\nnew==3 ; python_full_version >= '3.12' \\\n    --hash=sha256:cc\n"
    "windows==4 ; sys_platform == 'win32' \\\n    --hash=sha256:dd\n"
)


@pytest.mark.parametrize(("version", "other"), [("3.11", "old==2"), ("3.13", "new==3")])
def test_a_lock_is_read_for_the_guests_python_and_not_the_hosts(
    guest: ModuleType, version: str, other: str
) -> None:
    kept = [line for line in guest.locked_for(version, LOCK).splitlines() if "==" in line]
    assert kept == ["both==1 \\", f"{other} \\"]


@pytest.mark.parametrize(
    ("summary", "code"),
    [
        ("image\t0\t9\ndoctor\t0\t1\nverify\t0\t1\n", 0),
        ("image\t0\t9\ndoctor\t1\t1\nverify\t0\t1\n", 1),
        ("image\t1\t9\ndoctor\t0\t1\nverify\t0\t1\n", 1),
        ("image\t0\t9\ndoctor\t0\t1\n", 1),
        ("", 1),
    ],
)
def test_it_succeeds_only_if_every_step_has_ended_well(
    guest: ModuleType, tmp_path: Path, summary: str, code: int
) -> None:
    (tmp_path / "summary.tsv").write_text(summary)
    assert guest.told(tmp_path, ["doctor", "verify"]) == code


def test_the_guests_packages_come_from_where_the_hosts_come_from(
    guest: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the release differs."""
    source = tmp_path / "debian.sources"
    source.write_text(
        "URIs: http://mirror.example/bookworm-free\nSuites: bookworm bookworm-updates\n"
    )
    monkeypatch.setattr(guest, "codename", lambda: "bookworm")
    monkeypatch.setattr(guest, "apt_sources", lambda _: [source])
    (made,) = guest.sources_of("trixie", tmp_path / "guest")
    assert made.read_text().splitlines() == [
        "URIs: http://mirror.example/bookworm-free",
        "Suites: trixie trixie-updates",
    ]
