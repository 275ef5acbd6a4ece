"""The OpenAI Agents SDK: by our client, and by its own client of E2B."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from runner.auth.keys import in_e2b_form
from tests.support.deployment import build_image, deployment
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
    folder = tmp_path_factory.mktemp("openai_agents")
    told = example("openai-agents.md", '"gpt-5.5"', folder)
    return framework(
        "openai_agents", environments, {**facts, **told, "RUNNER_TEST_CLIENT": "ours"}, folder
    )


@pytest.fixture(scope="module")
def by_e2b(inside: Framework) -> Iterator[Framework]:
    """Return the same environment, where E2B's variables lead to a deployment."""
    build_image("base")
    with deployment(images=("base",)) as made:
        key = made.key("frameworks")
        facts = {
            "RUNNER_TEST_CLIENT": "e2b",
            "RUNNER_URL": made.url,
            "RUNNER_API_KEY": key,
            "E2B_API_URL": made.url,
            "E2B_SANDBOX_URL": made.url,
            "E2B_API_KEY": in_e2b_form(key),
        }
        yield replace(inside, facts=facts)


def test_agents_work_in_a_sandbox(inside: Framework) -> None:
    """The program of our page works, too."""
    found = inside.suite("openai_agents_suite.py")
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.matrix
def test_the_frameworks_own_client_of_e2b_does_the_same(by_e2b: Framework) -> None:
    """By its environment alone."""
    found = by_e2b.suite("openai_agents_suite.py")
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.matrix
def test_the_adapter_fits_the_frameworks_types(inside: Framework) -> None:
    modules = (ADAPTERS / "openai_agents", PROGRAMS / "openai_agents_suite.py")
    assert inside.mistakes(*modules, reads=("agents.sandbox",)) == ""
