"""The work of a test in a framework's environment."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.support.environments import ROOT, Environments
from tests.support.kept import exclusive

LOCKS = Path(__file__).with_name("locks")
PROGRAMS = Path(__file__).with_name("programs")
ADAPTERS = ROOT / "sdk/python/src/agent_runner/integrations"
NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there: what asks for another host than this one fails at once."""
PROGRAM_S = 300
TYPES_S = 300


@dataclass(frozen=True)
class Framework:
    """A framework's environment; its programs are told these facts, and run in this folder."""

    python: Path
    facts: Mapping[str, str]
    folder: Path
    programs: Path | None = None
    """The folder of the programs that its packages bring."""
    types: Path | None = None
    """Where mypy keeps what it has read of its packages; None for the framework's folder."""

    def run(self, *arguments: str | Path, most_s: float = PROGRAM_S) -> str:
        """Run the interpreter with these arguments, and return what it printed."""
        done = self._run(*arguments, most_s=most_s)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def suite(
        self, program: str | Path, *options: str, most_s: float = PROGRAM_S
    ) -> dict[str, str]:
        """Run a program that is a test suite; return what went wrong, by the names of its tests.

        Nothing went wrong with those that passed; a test that was skipped says so.
        """
        path = PROGRAMS / program
        report, settings = self.folder / f"{path.stem}.xml", self.folder / "pytest.ini"
        # Neither the settings nor the fixtures of this tree.
        settings.write_text("[pytest]\n")
        done = self._run(
            "-m", "pytest", "-c", settings, "--rootdir", self.folder, "--noconftest",
            "--import-mode=importlib", "-p", "no:cacheprovider", "--tb=short", *options,
            f"--junitxml={report}", path, most_s=most_s,
        )  # fmt: skip
        assert done.returncode in {0, 1}, f"{done.stdout}\n{done.stderr}"
        cases = ET.parse(report).iter("testcase")  # noqa: S314 - pytest wrote it
        return {f"{case.get('name')}": _wrong(case) for case in cases}

    def mistakes(self, *modules: Path, reads: Sequence[str] = ()) -> str:
        """Return what mypy finds in modules, as strict as elsewhere, with the types that are there.

        It reads our SDK, pytest, and packages of these names. To read all takes half a minute.
        """
        settings = self.folder / "mypy.ini"
        followed = ",".join(f"{name}.*" for name in ("agent_runner", "pytest", "_pytest", *reads))
        settings.write_text(
            f"[mypy]\nfollow_imports = skip\n"
            f"[mypy-{followed}]\nfollow_imports = silent\nfollow_untyped_imports = true\n"
        )
        cache = self.types or self.folder / "mypy"
        # What mypy keeps is not made for several at once.
        with exclusive(cache.with_suffix(".lock")):
            done = subprocess.run(
                [
                    sys.executable, "-m", "mypy", "--config-file", settings, "--strict",
                    "--warn-unreachable", "--python-executable", self.python,
                    "--cache-dir", cache, "--no-error-summary", *modules,
                ],
                capture_output=True, text=True, check=False, timeout=TYPES_S, cwd=ROOT,
            )  # fmt: skip
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        return done.stdout

    def _run(self, *arguments: str | Path, most_s: float) -> subprocess.CompletedProcess[str]:
        folders = (self.python.parent, *([self.programs] if self.programs else []))
        return subprocess.run(
            [self.python, *arguments], cwd=self.folder,
            capture_output=True, text=True, check=False, timeout=most_s,
            env={
                "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]]),
                "HOME": str(self.folder),
                "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1,localhost",
                **self.facts,
            },
        )  # fmt: skip


def framework(
    name: str, environments: Environments, facts: Mapping[str, str], folder: Path
) -> Framework:
    """Return the framework whose lock has this name."""
    made = environments.locked(LOCKS / f"{name}.lock")
    return Framework(made.python, facts, folder, made.programs, made.types)


def _wrong(case: ET.Element) -> str:
    found = [f"{each.tag}: {each.get('message')}\n{each.text or ''}" for each in case]
    return "\n".join(each for each in found if each.startswith(("failure", "error", "skipped")))
