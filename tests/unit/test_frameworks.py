"""A framework's environment reports every failure of a suite, and every mistake in types."""

import sys
from pathlib import Path

import pytest

from tests.support.frameworks.inside import Framework

SUITE = """
import pytest

def test_that_passes(): ...
def test_that_fails(): assert 1 == 2
@pytest.fixture
def broken(): raise OSError("no sandbox")
def test_without_its_fixture(broken): ...
@pytest.mark.skip(reason="not today")
def test_that_is_skipped(): ...
@pytest.mark.xfail(reason="known")
def test_that_is_known_to_fail(): assert 1 == 2
"""


@pytest.fixture
def framework(tmp_path: Path) -> Framework:
    """Return this environment, which has no framework."""
    return Framework(Path(sys.executable), {"FACT": "given"}, tmp_path)


def test_only_a_test_that_passes_has_nothing_wrong(framework: Framework) -> None:
    suite = framework.folder / "some_suite.py"
    suite.write_text(SUITE)
    found = framework.suite(suite)
    assert found.pop("test_that_passes") == ""
    for name, said in (
        ("test_that_fails", "assert 1 == 2"),
        ("test_without_its_fixture", "no sandbox"),
        ("test_that_is_skipped", "not today"),
        ("test_that_is_known_to_fail", "known"),
    ):
        assert said in found.pop(name)
    assert found == {}


def test_a_suite_without_tests_is_an_error(framework: Framework) -> None:
    empty = framework.folder / "empty_suite.py"
    empty.touch()
    with pytest.raises(AssertionError):
        framework.suite(empty)


def test_a_program_that_fails_is_an_error_with_its_words(framework: Framework) -> None:
    assert framework.run("-c", "import os; print(os.environ['FACT'])") == "given\n"
    with pytest.raises(AssertionError, match="so it ends"):
        framework.run("-c", "raise SystemExit('so it ends')")


def test_a_mistake_in_types_is_found(framework: Framework) -> None:
    module = framework.folder / "module.py"
    module.write_text("import pytest\n\nwhere: int = pytest.__file__\n")
    assert "Incompatible types" in framework.mistakes(module)
    module.write_text("import pytest\n\nwhere: str = pytest.__file__\n")
    assert framework.mistakes(module) == ""
