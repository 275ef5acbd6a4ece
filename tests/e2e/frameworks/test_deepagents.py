"""LangChain's deepagents with sandboxes of ours, and LangChain's own package for E2B."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from tests.support.e2b_sdks.facts import deployed
from tests.support.environments import ROOT, Environments
from tests.support.frameworks.inside import ADAPTERS, PROGRAMS, Framework, framework
from tests.support.frameworks.scripted import anthropic, scripted
from tests.support.pages import blocks

PAGE = ROOT / "docs/integrations/deepagents.md"
ASYNC = ("-o", "asyncio_mode=auto")
TESTS = 86
"""How many tests LangChain's suite has in the version that is locked."""

pytestmark = pytest.mark.timeout(600)


def wrong(results: Mapping[str, str]) -> dict[str, str]:
    """Return what went wrong."""
    return {name: said for name, said in results.items() if said}


@pytest.fixture(scope="module")
def newest(
    environments: Environments, facts: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Framework:
    """Return the newest deepagents, with Deep Agents Code."""
    return framework("deepagents", environments, facts, tmp_path_factory.mktemp("newest"))


@pytest.fixture(scope="module")
def oldest(
    environments: Environments, facts: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Framework:
    """Return the oldest deepagents that the page names, with LangChain's package for E2B."""
    return framework("langchain_e2b", environments, facts, tmp_path_factory.mktemp("oldest"))


@pytest.mark.matrix
def test_the_newest_passes_langchains_suite_as_far_as_it_can(newest: Framework) -> None:
    """Since deepagents 0.7, its own `write` replaces files. The suite still expects a refusal."""
    results = newest.suite("deepagents_suite.py", *ASYNC)
    assert wrong(results).keys() == {"test_write_existing_file_fails"}, wrong(results)
    assert len(results) == TESTS


@pytest.mark.matrix
def test_the_oldest_passes_langchains_suite(oldest: Framework) -> None:
    results = oldest.suite("deepagents_suite.py", *ASYNC)
    assert wrong(results) == {}
    assert len(results) == TESTS


def test_a_backend_does_what_the_page_says(newest: Framework) -> None:
    assert wrong(newest.suite("deepagents_own.py")) == {}


def test_deep_agents_code_makes_and_ends_sandboxes(newest: Framework) -> None:
    [config] = blocks("toml", PAGE)
    file = newest.folder / "config.toml"
    file.write_text(config.text)
    session = replace(newest, facts={**newest.facts, "PAGE_CONFIG": str(file)})
    assert wrong(session.suite("deepagents_code_own.py")) == {}


@pytest.fixture(scope="module")
def e2b(oldest: Framework) -> Iterator[Framework]:
    """Return LangChain's package for E2B, which is told where E2B is, and nothing else."""
    with deployed() as facts:
        yield replace(oldest, facts=facts)


@pytest.mark.matrix
def test_langchains_package_for_e2b_passes_its_suite_unmodified(e2b: Framework) -> None:
    results = e2b.suite("langchain_e2b_suite.py", *ASYNC)
    assert wrong(results) == {}
    assert len(results) == TESTS


def test_the_pages_example_does_what_the_model_says(newest: Framework) -> None:
    """The result of a command that the model gets comes from a sandbox."""
    [example] = blocks("python", PAGE)
    command = "python3 -c 'print(6 * 7)' | tee answer.txt"
    use = {"type": "tool_use", "id": "toolu_1", "name": "execute", "input": {"command": command}}
    said = {"type": "text", "text": "It is 42."}
    with scripted([anthropic(use), anthropic(said)]) as script:
        facts = {"ANTHROPIC_BASE_URL": script.url, "ANTHROPIC_API_KEY": "none"}
        agent = replace(newest, facts={**newest.facts, **facts})
        assert agent.run("-c", example.text) == "It is 42.\nb'42\\n'\n"
    [*_, last] = script.asked[-1]["messages"]
    assert "42" in str(last["content"])


@pytest.mark.matrix
def test_the_adapters_and_what_runs_there_have_right_types(newest: Framework) -> None:
    modules = (ADAPTERS / f"{name}.py" for name in ("refusals", "deepagents", "deepagents_code"))
    programs = [*PROGRAMS.glob("deepagents*.py")]
    assert programs
    reads = ("deepagents", "deepagents_code", "langchain_tests")
    assert newest.mistakes(*modules, *programs, reads=reads) == ""
