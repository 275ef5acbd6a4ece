"""Environments of their own, for packages that must not be in ours.

What they hold comes from the index that this host's pip and npm are set to, through the caches of
uv and npm. An environment is kept for later runs, and made anew if its packages would be others;
what a run adds to it is in a folder of the run's own.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.support.kept import kept

ROOT = Path(__file__).resolve().parents[2]
INSTALL_S = 600
"""Nothing is hung before that: @librechat/agents is 347 packages of 530 MB, two minutes on a warm
cache and a busy host."""
INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
LIBRECHAT_AGENTS = "@librechat/agents@3.2.21 node-fetch@2 axios@1 form-data@4"
"""LibreChat's own package, and what LibreChat uses beside it."""
ADDS = "import site; site.addsitedir({!r})\n"
"""A line for a `.pth` file: the packages of another environment are here, too."""


@dataclass(frozen=True)
class Locked:
    """An environment of just what a lock file names, and our SDK as a wheel.

    `types` is a folder where mypy keeps what it has read of these packages.
    """

    python: Path
    programs: Path
    types: Path


@dataclass(frozen=True)
class Environments:
    """Makes environments below a folder, each once."""

    folder: Path
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _made: dict[str, Path] = field(default_factory=dict)

    def python(self, requirement: str) -> Path:
        """Return the interpreter that has these packages, in the newest versions that fit.

        Options of uv may be among them, such as `--no-deps`.
        """
        words = requirement.split()
        options = [word for word in words if word.startswith("--")]

        def make(folder: Path) -> None:
            wanted = folder.with_suffix(".in")
            wanted.write_text("\n".join(word for word in words if word not in options))
            pinned = folder.with_suffix(".txt")
            _uv(
                "compile", *options, "--python", sys.executable, "--no-header", "--no-annotate",
                "-o", str(pinned), str(wanted),
            )  # fmt: skip
            folder.symlink_to(_environment(pinned, *options))

        return self._get(f"python {requirement}", make) / "bin/python"

    def locked(self, lock: Path) -> Locked:
        """Return the environment of a lock file."""
        base = _environment(lock, "--require-hashes")

        def make(folder: Path) -> None:
            _venv(folder)
            (_packages(folder) / "kept.pth").write_text(ADDS.format(str(_packages(base))))
            _install(folder, "--no-deps", str(self._wheel()))

        folder = self._get(f"lock {lock}", make)
        return Locked(folder / "bin/python", base / "bin", base / "types")

    def node(self, requirement: str) -> Path:
        """Return a folder whose `node_modules` has these packages of npm."""

        def make(folder: Path) -> None:
            folder.mkdir()
            (folder / "package.json").write_text('{"private": true}')
            _npm(folder, "install", "--package-lock-only", *requirement.split())
            lock = folder / "package-lock.json"

            def install(into: Path) -> None:
                for each in (folder / "package.json", lock):
                    shutil.copy(each, into)
                _npm(into, "ci")

            node = _told("node", "--version")
            whole = kept(f"node {node}\n{lock.read_text()}", install)
            (folder / "node_modules").symlink_to(whole / "node_modules")

        return self._get(f"node {requirement}", make)

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


def _environment(pinned: Path, *options: str) -> Path:
    """Return the kept environment of just what a file names in exact versions."""

    def make(folder: Path) -> None:
        _venv(folder)
        _install(folder, "--compile-bytecode", *options, "--requirement", str(pinned))

    return kept(f"python {sys.executable} {sys.version}\n{pinned.read_text()}", make)


def _packages(environment: Path) -> Path:
    (found,) = (environment / "lib").glob("python*/site-packages")
    return found


def _venv(folder: Path) -> None:
    # The interpreter that ours was made from: ours is gone when its clone is.
    base = str(Path(sys.executable).resolve())
    _run(_uv_program(), "venv", "--quiet", "--allow-existing", "--python", base, str(folder))


def _install(folder: Path, *requirements: str) -> None:
    _uv("install", "--python", str(folder / "bin/python"), *requirements)


def _uv(command: str, *arguments: str) -> None:
    _run(
        _uv_program(), "pip", command, "--quiet", "--default-index", _index(), *arguments,
        env=_trust(),
    )  # fmt: skip


def _uv_program() -> str:
    return str(Path(sys.executable).with_name("uv"))


def _npm(folder: Path, *arguments: str) -> None:
    quiet = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts")
    _run("npm", *arguments, *quiet, "--prefix", str(folder))


@cache
def _index() -> str:
    return _setting("global.index-url") or _told(sys.executable, "-c", INDEX)


def _trust() -> Mapping[str, str]:
    """Return what makes uv trust what this host's pip trusts."""
    cert = _setting("global.cert")
    return {"SSL_CERT_FILE": cert} if cert else {}


@cache
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
