"""The SDK's synchronous half is what its asynchronous half makes of it."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "sdk/python/src/agent_runner"


def stale(checkout: Path) -> tuple[int, str]:
    """Return the exit code and the words of the script that checks this."""
    done = subprocess.run(
        [sys.executable, checkout / "scripts" / "make-sync", "--check"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_synchronous_half_is_written_from_the_asynchronous_one() -> None:
    assert stale(ROOT) == (0, "")


def test_a_change_in_one_half_alone_shows(tmp_path: Path) -> None:
    """A module is changed, another was removed from the source."""
    for path in (PACKAGE, "scripts/make-sync", "pyproject.toml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, tmp_path / path)
    assert stale(tmp_path) == (0, "")
    keys = tmp_path / PACKAGE / "_sync" / "keys.py"
    keys.write_text(keys.read_text().replace("limit=200", "limit=100"))
    (tmp_path / PACKAGE / "_async" / "ports.py").unlink()
    code, said = stale(tmp_path)
    assert code == 1
    assert "_sync/keys.py" in said
    assert "_sync/ports.py" in said
