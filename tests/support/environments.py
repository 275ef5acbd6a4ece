"""Environments of their own, for packages that must not be in ours.

What they hold comes from the index that this host's pip and npm are set to, through the caches of
uv and npm: a package is downloaded once for all environments and all runs.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALL_S = 600
"""Nothing is hung before that: @librechat/agents is 347 packages of 530 MB, two minutes on a warm
cache and a busy host."""
INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


@dataclass(frozen=True)
class Environments:
    """Makes environments below a folder, each once."""

    folder: Path
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _made: dict[str, Path] = field(default_factory=dict)

    def python(self, requirement: str) -> Path:
        """Return the interpreter that has these packages, in the newest versions that fit."""

        def make(folder: Path) -> None:
            _uv(folder, *requirement.split())

        return self._get(f"python {requirement}", make) / "bin/python"

    def locked(self, lock: Path) -> Path:
        """Return the interpreter that has just what a lock file names, and our SDK as a wheel."""

        def make(folder: Path) -> None:
            _uv(folder, "--require-hashes", "--requirement", str(lock))
            _install(folder, "--no-deps", str(self._wheel()))

        return self._get(f"lock {lock}", make) / "bin/python"

    def node(self, requirement: str) -> Path:
        """Return the folder whose `node_modules` has these packages of npm."""
        return self._get(f"node {requirement}", lambda folder: _npm(folder, requirement))

    def _wheel(self) -> Path:
        return next(self._get("wheel", sdk_wheel).glob("*.whl"))

    def _get(self, key: str, make: Callable[[Path], object]) -> Path:
        # One at a time: they share the cache of what was downloaded.
        with self._lock:
            if key not in self._made:
                folder = self.folder / f"{len(self._made)}"
                make(folder)
                self._made[key] = folder
            return self._made[key]


def sdk_wheel(folder: Path) -> Path:
    """Return our SDK as others install it, built in a new folder."""
    # What an earlier build has left beside the source would be in the wheel.
    left = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT / "sdk/python", folder / "source", ignore=left)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    _run(sys.executable, "-m", "pip", "wheel", *options, str(source))
    (built,) = folder.glob("*.whl")
    return built


def _uv(folder: Path, *requirements: str) -> None:
    _run(_uv_program(), "venv", "--quiet", "--python", sys.executable, str(folder))
    _install(folder, *requirements)


def _install(folder: Path, *requirements: str) -> None:
    _run(
        _uv_program(), "pip", "install", "--quiet", "--python", str(folder / "bin/python"),
        "--default-index", _setting("global.index-url") or _told(sys.executable, "-c", INDEX),
        *requirements,
        env=_trust(),
    )  # fmt: skip


def _uv_program() -> str:
    return str(Path(sys.executable).with_name("uv"))


def _npm(folder: Path, requirement: str) -> None:
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true}')
    quiet = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts")
    _run("npm", "install", *quiet, "--prefix", str(folder), *requirement.split())


def _trust() -> Mapping[str, str]:
    """Return what makes uv trust what this host's pip trusts."""
    cert = _setting("global.cert")
    return {"SSL_CERT_FILE": cert} if cert else {}


def _setting(name: str) -> str:
    """Return a setting of this host's pip, or nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", name],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout.strip() if done.returncode == 0 else ""


def _told(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def _run(*command: str, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=INSTALL_S,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
