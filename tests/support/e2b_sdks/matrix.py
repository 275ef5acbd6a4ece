"""The chosen cases of targets, each run once: what became of them."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.e2b_sdks.targets import SCRIPT, Target
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

    def begin(self, chosen: Mapping[Target, Sequence[str]], facts: Mapping[str, str]) -> None:
        """Begin programs that run these cases, with these facts in their environment."""
        for target, cases in chosen.items():
            self._rows[target] = self._pool.submit(_rows, self.environments, target, cases, facts)

    def row(self, target: Target, case: str) -> Row:
        """Return what became of a case, once its program is over."""
        rows = self._rows[target].result()
        return rows.get(case) or Row(case, "failed", f"its program said nothing of it: {rows}", 0)

    def rows(self, target: Target) -> dict[str, Row]:
        """Return what became of all of a target's cases."""
        return self._rows[target].result()


@contextmanager
def matrix(
    folder: Path, facts: Mapping[str, str], chosen: Mapping[Target, Sequence[str]]
) -> Iterator[Matrix]:
    """Run these cases of each target in its program, some programs beside each other."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = Matrix(Environments(folder), pool)
        running.begin(chosen, facts)
        try:
            yield running
        finally:
            pool.shutdown(cancel_futures=True)


def _rows(
    environments: Environments, target: Target, cases: Sequence[str], facts: Mapping[str, str]
) -> dict[str, Row]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("E2B_")}
    command = _command(environments, target, cases)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), **facts},
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


def _command(environments: Environments, target: Target, cases: Sequence[str]) -> list[str]:
    """Return what runs these cases of a target, in an environment that has its SDK."""
    if target.form == "node":
        # A script finds the packages that are beside it.
        script = environments.node(target.requirement) / SCRIPT.name
        script.write_bytes(SCRIPT.read_bytes())
        return ["node", str(script), target.package, *cases]
    package = target.package.replace("-", "_")
    python = environments.python(target.requirement)
    return [str(python), "-m", "tests.support.e2b_sdks.run", package, target.form, *cases]
