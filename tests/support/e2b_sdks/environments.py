"""An environment for each requirement, from the index that this host's pip and npm are set to."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.e2b_sdks.targets import SCRIPT, Target

ROOT = Path(__file__).resolve().parents[3]
INSTALL_S = 150
INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
VERSION = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


@dataclass(frozen=True)
class Environments:
    """Makes environments below a folder, each once."""

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: dict[str, Path] = field(default_factory=dict)

    def command(self, target: Target) -> list[str]:
        """Return what runs a target's cases, in an environment that has its SDK."""
        made = self._get(target)
        if target.form == "node":
            return ["node", str(made / SCRIPT.name), target.package]
        package = target.package.replace("-", "_")
        return [str(made / "bin/python"), "-m", "tests.support.e2b_sdks.run", package, target.form]

    def python(self, target: Target) -> Path:
        """Return the interpreter that can import a target's SDK."""
        return self._get(target) / "bin/python"

    def version(self, target: Target) -> str:
        """Return which version a target is."""
        made = self._get(target)
        if target.form == "node":
            package = made / "node_modules" / target.package / "package.json"
            return str(json.loads(package.read_text())["version"])
        return _told(str(self.python(target)), "-c", VERSION, target.package)

    def _get(self, target: Target) -> Path:
        kind = "node" if target.form == "node" else "python"
        key = f"{kind} {target.requirement}"
        # One at a time: they share the cache of what was downloaded.
        with self._lock:
            if key not in self._made:
                made = self.folder / f"{len(self._made)}"
                (_npm if kind == "node" else _uv)(made, target.requirement)
                self._made[key] = made
            return self._made[key]


def _uv(made: Path, requirement: str) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    _run(uv, "venv", "--quiet", "--python", sys.executable, str(made))
    _run(
        uv, "pip", "install", "--quiet", "--python", str(made / "bin/python"),
        "--default-index", _setting("global.index-url") or _told(sys.executable, "-c", INDEX),
        *requirement.split(),
        env=_trust(),
    )  # fmt: skip


def _npm(made: Path, requirement: str) -> None:
    made.mkdir()
    (made / "package.json").write_text('{"private": true}')
    quiet = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts")
    _run("npm", "install", *quiet, "--prefix", str(made), requirement)
    (made / SCRIPT.name).write_bytes(SCRIPT.read_bytes())


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
