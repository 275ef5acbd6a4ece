"""The page names every method that the newest SDKs offer, and what becomes of it."""

import inspect
import json
import os
import subprocess

import pytest

from tests.support.e2b_sdks.cases import CASES
from tests.support.e2b_sdks.table import LINES, PAGE, TABLES, shown
from tests.support.e2b_sdks.targets import SINCE, TARGETS, Target
from tests.support.environments import ROOT, Environments

NEWEST = {target.package: target for target in TARGETS if target.newest and target.form == "sync"}
EVERY = {name: case for cases in CASES.values() for name, case in cases.items()}


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """Return environments for the newest SDKs."""
    return Environments(tmp_path_factory.mktemp("e2b"))


def offered(environments: Environments, target: Target) -> set[str]:
    """Return what an SDK offers, without the difference between sync and async."""
    package = target.package.replace("-", "_")
    python = str(environments.python(target.requirement))
    said = subprocess.run(
        [python, "-m", "tests.support.e2b_sdks.surface", package],
        capture_output=True, text=True, check=True, timeout=120, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return {each.removeprefix("Async") for each in json.loads(said.stdout)}


def test_every_method_of_the_newest_sdks_has_a_line(environments: Environments) -> None:
    """A new version that brings a method fails here, until somebody says what becomes of it."""
    found: set[str] = set()
    for target in NEWEST.values():
        found |= offered(environments, target)
    assert sorted(found - LINES.keys()) == []
    assert sorted(LINES.keys() - found) == []


def test_a_method_without_a_line_is_found(environments: Environments) -> None:
    """The control: what the test above compares does hold the SDK's methods."""
    found = offered(environments, NEWEST["e2b"])
    assert {"Sandbox.create", "Sandbox.files.read", "Template.build"} <= found


@pytest.mark.parametrize("method", [name for name, line in LINES.items() if line.case])
def test_a_line_names_a_case_that_calls_the_method(method: str) -> None:
    case = EVERY[LINES[method].case or ""]
    assert f".{method.rpartition('.')[2]}(" in inspect.getsource(case.attempt)


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_this_table(name: str) -> None:
    """`python -m tests.support.e2b_sdks.table` writes it."""
    assert shown(PAGE.read_text(), name) == TABLES[name]()


def test_what_a_version_lacks_is_a_case() -> None:
    assert SINCE.keys() < CASES["e2b"].keys()
