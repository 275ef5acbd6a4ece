"""The pages' examples are accepted, and what the pages say about limits of egress is true."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from runner.api.egress import PolicyBody
from runner.api.requests import Submission
from runner.api.rules import entries
from runner.egress.places import MAX_WAITING
from runner.egress.policy import Policy, load_ceiling
from runner.egress.upstream import Timeouts
from runner.executions.order import Offer, resolve
from runner.node.runs.egress import MAX_NOTES, proxy_environment
from runner.quotas.sizes import load_sizes
from runner.sandboxes.catalogue import SandboxOffer
from runner.tenants.policies import permitted
from runner.words.errors import Invalid
from runner.words.sandbox import Isolation
from tests.support.pages import ROOT, Block, blocks

PAGE = ROOT / "docs" / "operations" / "egress.md"
TEXT = " ".join(PAGE.read_text().split())
EXAMPLES = [each for each in blocks("json") if {"egress", "rules"} & json.loads(each.text).keys()]


def ceiling(folder: Path, mark: str) -> Policy:
    """Return the shipped ceiling; for a marked block, with the additions that the page shows."""
    profiles = folder / "profiles"
    shutil.copytree(ROOT / "profiles", profiles)
    if mark == "ceiling":
        (added,) = blocks("toml", PAGE)
        with (profiles / "egress" / "ceiling.toml").open("a") as file:
            file.write(added.text)
    return load_ceiling(profiles)


def submitted(block: Block, most: Policy) -> int:
    """Do what the API does with an example, and return how many rules it has."""
    example = json.loads(block.text)
    if "rules" in example:
        rules = entries(PolicyBody.model_validate(example).rules)
        return len(permitted(rules, [most], field="rules"))
    sizes = load_sizes(ROOT / "profiles")
    sandbox = SandboxOffer(
        sizes=sizes,
        images={"python": frozenset({"python", "bash"})},
        isolations=(Isolation.CONTAINER,),
        max_limits=sizes["small"],
        required_isolation=None,
        egress_ceilings=(most,),
    )
    return len(resolve(Submission.model_validate(example).order(), Offer(sandbox)).egress)


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_an_example_is_accepted_as_it_stands(block: Block, tmp_path: Path) -> None:
    """The shipped ceiling permits it. If the page marks it, only the extended ceiling does."""
    assert submitted(block, ceiling(tmp_path, block.mark)) > 0
    if block.mark == "ceiling":
        with pytest.raises(Invalid, match="operator"):
            submitted(block, ceiling(tmp_path / "shipped", ""))


def test_the_page_has_examples() -> None:
    assert len([each for each in EXAMPLES if each.page.endswith("egress.md")]) == 3


def test_the_page_tells_the_limits_as_they_are() -> None:
    """The test compares each figure on the page."""
    shipped = dataclasses.asdict(load_ceiling(ROOT / "profiles"))
    assert shipped["max_bytes"] == 2**30
    figures = {"max_concurrent": "{} connections at once", "max_connections": "{} connections in"}
    for name, text in figures.items():
        assert text.format(shipped[name]) in TEXT
    assert f"for up to {Timeouts().place_s:g} seconds" in TEXT
    assert f"Up to {MAX_WAITING} wait" in TEXT
    assert MAX_NOTES + 1 == 9
    assert "at most nine of them" in TEXT
    assert f"`PIP_RETRIES` is `{proxy_environment()['PIP_RETRIES']}`" in TEXT
