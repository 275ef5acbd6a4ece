"""Every target's cases, run once: what became of each."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.e2b_sdks.targets import SCRIPT, TARGETS, Target
from tests.support.environments import ROOT, Environments

AT_ONCE = 4
"""Programs beside each other: they wait for the deployment more than they compute."""
PROGRAM_S = 900


@dataclass(frozen=True)
class Row:
    """The result of a case: `works`, `failed`, or the version `lacks` what it is about."""

    case: str
    outcome: str
    detail: str
    seconds: float


class Matrix:
    """The programs of all targets, running or over."""

    def __init__(self, environments: Environments, pool: ThreadPoolExecutor) -> None:
        self.environments = environments
        self._pool = pool
        self._rows: dict[Target, Future[dict[str, Row]]] = {}

    def begin(self, targets: tuple[Target, ...], facts: Mapping[str, str]) -> None:
        """Begin the programs of these targets, with these facts in their environment."""
        for target in targets:
            self._rows[target] = self._pool.submit(_rows, self.environments, target, facts)

    def row(self, target: Target, case: str) -> Row:
        """Return what became of a case, once its program is over."""
        rows = self._rows[target].result()
        return rows.get(case) or Row(case, "failed", f"its program said nothing of it: {rows}", 0)

    def rows(self, target: Target) -> dict[str, Row]:
        """Return what became of all of a target's cases."""
        return self._rows[target].result()


@contextmanager
def matrix(
    folder: Path, facts: Mapping[str, str], targets: tuple[Target, ...] = TARGETS
) -> Iterator[Matrix]:
    """Run the programs of targets, some beside each other."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = Matrix(Environments(folder), pool)
        running.begin(targets, facts)
        try:
            yield running
        finally:
            pool.shutdown(cancel_futures=True)


def _rows(environments: Environments, target: Target, facts: Mapping[str, str]) -> dict[str, Row]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("E2B_")}
    with subprocess.Popen(
        _command(environments, target), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env={**clean, "PYTHONPATH": str(ROOT), **facts},
    ) as program:  # fmt: skip
        try:
            out, errors = program.communicate(timeout=PROGRAM_S)
        except subprocess.TimeoutExpired:
            # What it has said so far counts.
            program.kill()
            out, errors = program.communicate()
    said = [Row(**json.loads(line)) for line in out.splitlines()]
    assert said, f"{target.name} ended with {program.returncode}: {errors}"
    return {each.case: each for each in said}


def _command(environments: Environments, target: Target) -> list[str]:
    """Return what runs a target's cases, in an environment that has its SDK."""
    if target.form == "node":
        # A script finds the packages that are beside it.
        script = environments.node(target.requirement) / SCRIPT.name
        script.write_bytes(SCRIPT.read_bytes())
        return ["node", str(script), target.package]
    package = target.package.replace("-", "_")
    python = environments.python(target.requirement)
    whole = ["whole"] if target.whole else []
    return [str(python), "-m", "tests.support.e2b_sdks.run", package, target.form, *whole]
