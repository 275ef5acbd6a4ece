"""smolagents: agents whose code runs in a sandbox."""

from collections.abc import Mapping

import pytest

from tests.support.environments import Environments
from tests.support.frameworks.examples import example
from tests.support.frameworks.inside import ADAPTERS, PROGRAMS, Framework, framework

MODEL = 'InferenceClientModel("Qwen/Qwen3-Coder-480B-A35B-Instruct")'

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def inside(
    environments: Environments,
    facts: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Framework:
    folder = tmp_path_factory.mktemp("smolagents")
    told = example("smolagents.md", MODEL, folder)
    return framework("smolagents", environments, {**facts, **told}, folder)


def test_agents_run_their_code_in_a_sandbox(inside: Framework) -> None:
    """The program of our page works, too."""
    found = inside.suite("smolagents_suite.py")
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.matrix
def test_the_adapter_fits_the_frameworks_types(inside: Framework) -> None:
    modules = (ADAPTERS / "smolagents.py", PROGRAMS / "smolagents_suite.py")
    assert inside.mistakes(*modules, reads=("smolagents",)) == ""
