"""Pydantic AI: its own suite for workspaces, and our page's example."""

from collections.abc import Mapping

import pytest

from tests.support.environments import Environments
from tests.support.frameworks.examples import example
from tests.support.frameworks.inside import ADAPTERS, PROGRAMS, Framework, framework

RULES = 40
"""Tests of the framework's suite, in the version that the lock file names."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def inside(
    environments: Environments,
    facts: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Framework:
    folder = tmp_path_factory.mktemp("pydantic_ai")
    told = example("pydantic-ai.md", '"openai:gpt-5.5"', folder)
    return framework("pydantic_ai", environments, {**facts, **told}, folder)


@pytest.mark.matrix
def test_the_workspace_follows_every_rule_of_the_frameworks_own_suite(inside: Framework) -> None:
    found = inside.suite("pydantic_ai_suite.py")
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert len(found) == RULES


def test_an_agent_works_in_a_sandbox(inside: Framework) -> None:
    """The program of our page works, too."""
    found = inside.suite("pydantic_ai_agents.py")
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.matrix
def test_the_adapter_fits_the_frameworks_types(inside: Framework) -> None:
    adapter = (ADAPTERS / f"{name}.py" for name in ("pydantic_ai", "commands", "refusals"))
    programs = (PROGRAMS / f"pydantic_ai_{name}.py" for name in ("suite", "agents"))
    reads = ("pydantic_ai.workspaces", "anyio")
    assert inside.mistakes(*adapter, *programs, reads=reads) == ""
