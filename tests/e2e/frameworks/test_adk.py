"""Google's Agent Development Kit: tools that work in a sandbox."""

from collections.abc import Mapping

import pytest

from tests.support.environments import Environments
from tests.support.frameworks.examples import example
from tests.support.frameworks.inside import ADAPTERS, PROGRAMS, Framework, framework

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def inside(
    environments: Environments,
    facts: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Framework:
    folder = tmp_path_factory.mktemp("adk")
    told = example("adk.md", '"gemini-3-pro"', folder)
    return framework("adk", environments, {**facts, **told}, folder)


def test_agents_work_in_a_sandbox(inside: Framework) -> None:
    """The program of our page works, too."""
    found = inside.suite("adk_suite.py")
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.matrix
def test_the_adapter_fits_the_frameworks_types(inside: Framework) -> None:
    modules = (ADAPTERS / "adk.py", PROGRAMS / "adk_suite.py")
    reads = ("google.adk.environment", "google.adk.models.base_llm")
    assert inside.mistakes(*modules, reads=reads) == ""
