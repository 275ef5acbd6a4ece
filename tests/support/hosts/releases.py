"""Other releases of the product, for nodes that run one beside the rest during an upgrade."""

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("runner", "profiles", "sandbox_images")
"""What a worker runs and reads; images are named by the digest of their recipes."""
VERSION = re.compile(r'^__version__ = "[^"]*"$', re.MULTILINE)


def renamed(version: str, folder: Path) -> Path:
    """Write this state of the code as a release of another version; return its folder."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    own = folder / "runner" / "__init__.py"
    changed, times = VERSION.subn(f'__version__ = "{version}"', own.read_text())
    assert times == 1
    own.write_text(changed)
    return folder


def of_commit(commit: str, folder: Path) -> Path:
    """Write the code of an earlier commit; return its folder.

    Its images must be those that exist, so it must have the same recipes.
    """
    changed = subprocess.run(
        ["git", "diff", "--quiet", commit, "HEAD", "--", "sandbox_images"],
        cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    if changed.returncode:
        raise ValueError(f"the recipes of images have changed since {commit}: choose a later one")
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit, *PARTS], cwd=ROOT, timeout=60, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, timeout=60, check=True)
    return folder
