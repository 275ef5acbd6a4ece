"""A request for a living sandbox is bounded, and is resolved to values."""

import dataclasses
from typing import Any

import pytest

from runner.egress.policy import Policy, Rule
from runner.sandboxes.catalogue import SandboxOffer
from runner.sandboxes.order import LivingOrder, resolve_sandbox
from runner.templates.below import require_limits
from runner.words.errors import Invalid
from runner.words.resources import Limits, Resources
from runner.words.sandbox import Isolation
from tests.support.templates import stored_template

SMALL = Limits(cpu=1.0, memory_mb=256, pids=64, disk_mb=64, timeout_s=30, output_kb=64)
OFFER = SandboxOffer(
    sizes={"small": SMALL},
    images={"python": frozenset({"python"}), "code": frozenset({"python", "javascript"})},
    isolations=(Isolation.CONTAINER,),
    max_limits=dataclasses.replace(SMALL, memory_mb=512, timeout_s=10),
    required_isolation=None,
    egress_ceilings=(Policy(rules=(Rule("*.example", 443),)),),
)


def refused(**asked: Any) -> str:
    """Return which field of an order is refused."""
    with pytest.raises(Invalid) as refusal:
        resolve_sandbox(LivingOrder(**asked), OFFER)
    return refusal.value.field


def test_what_is_left_out_is_the_deployments_choice() -> None:
    """It gets the first image, default size and isolation, five minutes, and no egress."""
    wanted = resolve_sandbox(LivingOrder(), OFFER)
    assert wanted.spec.image == "python"
    assert wanted.spec.resources == Resources(cpu=1, memory_mb=256, pids=64, disk_mb=64)
    assert wanted.spec.isolation is Isolation.CONTAINER
    assert (wanted.timeout_s, wanted.max_life_s, wanted.egress) == (300, None, ())


def test_resources_may_differ_from_the_sizes_up_to_the_tenants_most() -> None:
    wanted = resolve_sandbox(LivingOrder(limits={"memory_mb": 512}), OFFER)
    assert wanted.spec.resources.memory_mb == 512
    assert refused(limits={"memory_mb": 513}) == "limits.memory_mb"


def test_how_long_a_run_may_take_bounds_no_sandbox() -> None:
    """The size's 30 s are above the tenant's 10 s, and an execution of it would be refused."""
    assert resolve_sandbox(LivingOrder(timeout_s=86_400), OFFER).timeout_s == 86_400
    assert refused(limits={"timeout_s": 5}) == "limits.timeout_s"


def test_an_unknown_image_may_be_a_misspelt_template() -> None:
    with pytest.raises(Invalid, match="choose one of code, python, or a template of yours"):
        resolve_sandbox(LivingOrder(image="rust"), OFFER)


@pytest.mark.parametrize(
    ("asked", "image"),
    [
        ("python", "python"),
        ("python:latest", "python"),
        ("python:default", "python"),
        ("python:3.12", "code"),
        ("registry.example.com/team/tools", "code"),
        ("registry.example.com/team/tools:latest", "code"),
    ],
)
def test_an_image_has_the_further_names_that_the_operator_gives_it(asked: str, image: str) -> None:
    names = {"python:3.12": "code", "registry.example.com/team/tools": "code", "gone": "rust"}
    offer = dataclasses.replace(OFFER, image_names=names)
    assert resolve_sandbox(LivingOrder(image=asked), offer).spec.image == image
    with pytest.raises(Invalid, match=r"code, python, python:3\.12, registry"):
        resolve_sandbox(LivingOrder(image="gone"), offer)


def test_what_the_deployment_lacks_is_refused_by_its_name() -> None:
    assert refused(image="rust") == "image"
    assert refused(size="giant") == "size"
    assert refused(isolation=Isolation.GVISOR) == "isolation"
    assert refused(egress_policy="none-such") == "egress_policy"


def test_no_egress_rule_is_beyond_the_ceiling() -> None:
    assert refused(egress=("api.example", "example.net")) == "egress.1"
    wanted = resolve_sandbox(LivingOrder(egress=("api.example",)), OFFER)
    assert [rule["host"] for rule in wanted.egress] == ["api.example"]


def test_a_sandbox_has_its_templates_resources_unless_it_names_a_size() -> None:
    """Or a limit of its own; and it starts in the template's working directory."""
    template = stored_template(limits={"memory_mb": 512, "cpu": 0.5}, workdir="/srv/app")
    offer = dataclasses.replace(OFFER, template=template)
    plain = resolve_sandbox(LivingOrder(image="tools"), offer)
    assert plain.spec.resources == Resources(cpu=0.5, memory_mb=512, pids=64, disk_mb=64)
    assert (plain.size, plain.workdir) == ("small", "/srv/app")
    sized = resolve_sandbox(LivingOrder(image="tools", size="small"), offer)
    assert sized.spec.resources == Resources(cpu=1, memory_mb=256, pids=64, disk_mb=64)
    own = resolve_sandbox(LivingOrder(image="tools", limits={"memory_mb": 64}), offer)
    assert own.spec.resources == Resources(cpu=0.5, memory_mb=64, pids=64, disk_mb=64)


def test_a_templates_resources_are_refused_where_the_tenant_may_not_have_them() -> None:
    offer = dataclasses.replace(OFFER, template=stored_template(limits={"memory_mb": 1024}))
    with pytest.raises(Invalid, match=r"its template has .* Name a size") as refused:
        resolve_sandbox(LivingOrder(image="tools"), offer)
    assert refused.value.field == "limits.memory_mb"
    resolve_sandbox(LivingOrder(image="tools", limits={"memory_mb": 512}), offer)
    with pytest.raises(Invalid, match="the template's sandboxes could not be made") as refused:
        require_limits({"memory_mb": 1024}, OFFER)
    assert refused.value.field == "sandbox_limits.memory_mb"
    require_limits({"memory_mb": 512}, OFFER)
