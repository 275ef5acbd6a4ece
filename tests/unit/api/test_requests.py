"""A submission is bounded, and is resolved to values."""

import dataclasses
import subprocess
from typing import Any

import pytest
from pydantic import ValidationError

from runner.api.requests import Submission
from runner.egress.policy import Policy, Rule
from runner.executions.order import Offer, resolve
from runner.sandboxes.catalogue import SandboxOffer
from runner.words.errors import Invalid
from runner.words.resources import Limits
from runner.words.sandbox import Isolation
from tests.support.templates import stored_template

SMALL = Limits(cpu=1.0, memory_mb=256, pids=64, disk_mb=1, timeout_s=30, output_kb=64)
SANDBOX = SandboxOffer(
    sizes={"small": SMALL},
    images={"python": frozenset({"python", "bash"})},
    isolations=(Isolation.CONTAINER,),
    max_limits=SMALL,
    required_isolation=None,
    egress_ceilings=(Policy(rules=(Rule("*", 443),)),),
)
OFFER = Offer(SANDBOX)


def offering(**changed: Any) -> Offer:
    """Return an offer with some options of sandboxes changed."""
    return Offer(dataclasses.replace(SANDBOX, **changed))


def resolved(**fields: object) -> object:
    """Return what a submission resolves to."""
    return resolve(Submission.model_validate(fields).order(), OFFER)


def test_a_language_that_the_image_cannot_run_is_refused() -> None:
    """The error lists the languages that it can run; another image may have the interpreter."""
    body = Submission(code="1", language="javascript")
    with pytest.raises(Invalid, match="'python' cannot run javascript; it runs bash, python") as no:
        resolve(body.order(), OFFER)
    assert no.value.field == "language"
    languages = frozenset({"python", "bash", "javascript"})
    run = resolve(body.order(), offering(images={"code": languages})).run
    assert run.program.argv == ("node", "main.js")
    assert [file.path for file in run.files] == ["main.js"]


def test_an_unknown_image_may_be_a_misspelt_template() -> None:
    body = Submission(command=["true"], image="tools")
    with pytest.raises(Invalid, match="choose one of python, or a template of yours") as no:
        resolve(body.order(), OFFER)
    assert no.value.field == "image"
    unready = offering(no_template="the template 'tools' is still being built")
    with pytest.raises(Invalid, match="still being built"):
        resolve(body.order(), unready)


@pytest.mark.parametrize(
    "image", ["tools", "3_d:v1.2", "tools@019f5a41-0b1d-7e2a-9c3b-4d5e6f708192"]
)
def test_an_image_may_be_a_template(image: str) -> None:
    """Its exact build is kept. Its variables come first, and nobody checks its languages."""
    body = Submission(
        code="1",
        language="javascript",
        image=image,
        env={"A": "own"},
        secret_env={"C": "secret"},
    )
    template = stored_template(env={"A": "its", "B": "its", "C": "its"})
    wanted = resolve(body.order(), offering(template=template))
    assert wanted.sandbox.image == f"tools@{template.id}"
    assert wanted.run.program.env == {"A": "own", "B": "its"}
    assert wanted.run.program.argv == ("node", "main.js")


def test_an_execution_has_its_templates_resources_unless_it_names_a_size() -> None:
    """Or a limit of its own. What the tenant may not have is refused."""
    asked: dict[str, Any] = {"command": ["true"], "image": "tools"}
    template = stored_template(limits={"memory_mb": 128, "cpu": 0.5})
    offer = offering(template=template)
    for body, memory_mb, cpu in (
        (asked, 128, 0.5),
        ({**asked, "size": "small"}, 256, 1),
        ({**asked, "limits": {"memory_mb": 64}}, 64, 0.5),
    ):
        wanted = resolve(Submission.model_validate(body).order(), offer)
        assert wanted.size == "small"
        assert (wanted.sandbox.resources.memory_mb, wanted.sandbox.resources.cpu) == (
            memory_mb,
            cpu,
        )
    larger = offering(template=stored_template(limits={"memory_mb": 512}))
    with pytest.raises(Invalid, match="its template has other resources") as refused:
        resolve(Submission.model_validate(asked).order(), larger)
    assert refused.value.field == "limits.memory_mb"
    resolve(Submission.model_validate({**asked, "size": "small"}).order(), larger)


@pytest.mark.parametrize(
    "image", ["Tools", "tools:", "tools:a b", "tools@1", "a//b", "/a", "a" * 256]
)
def test_what_cannot_be_an_images_name_is_refused(image: str) -> None:
    with pytest.raises(ValidationError, match="image"):
        Submission(command=["true"], image=image)


def test_code_becomes_a_file_and_a_command() -> None:
    """Python and bash each have their own file and command."""
    run = resolve(Submission(code="print(1)", language="python").order(), OFFER).run
    assert run.program.argv == ("python3", "main.py")
    assert [(file.path, file.content) for file in run.files] == [("main.py", b"print(1)")]
    assert run.program.env == {"PYTHONUNBUFFERED": "1"}


def test_isolation_is_the_requests_the_tenants_or_the_deployments() -> None:
    """The order is this; a request cannot override what the tenant must use."""
    both = (Isolation.CONTAINER, Isolation.GVISOR)
    free = offering(isolations=both)
    bound = offering(isolations=both, required_isolation=Isolation.GVISOR)

    def isolation(offer: Offer, **asked: str) -> Isolation:
        fields = {"command": ["true"], **asked}
        return resolve(Submission.model_validate(fields).order(), offer).sandbox.isolation

    assert isolation(free) is Isolation.CONTAINER
    assert isolation(free, isolation="gvisor") is Isolation.GVISOR
    assert isolation(bound) is Isolation.GVISOR
    with pytest.raises(Invalid, match="must use gvisor"):
        isolation(bound, isolation="container")
    with pytest.raises(Invalid, match="does not offer gvisor"):
        isolation(OFFER, isolation="gvisor")


def test_egress_is_the_requests_rules_and_its_policys() -> None:
    """Each is complete, none is there twice or beyond the ceiling; unknown policies are refused."""
    named = offering(egress_policy=(Rule("a.example", 443), Rule("b.example", 443)))
    order = Submission(command=["true"], egress=["a.example"], egress_policy="mine").order()
    assert [rule["host"] for rule in resolve(order, named).egress] == ["a.example", "b.example"]
    assert resolve(Submission(command=["true"]).order(), OFFER).egress == ()
    with pytest.raises(Invalid, match="no egress policy 'mine'"):
        resolve(order, OFFER)
    for beyond in ("http://a.example", "a.example:8443", "192.0.2.1"):
        with pytest.raises(Invalid, match="does not let this tenant reach"):
            resolve(Submission(command=["true"], egress=[beyond]).order(), OFFER)


def test_overrides_stay_below_the_tenants_maximum() -> None:
    """The refusal names the field."""
    with pytest.raises(Invalid) as refused:
        resolved(command=["true"], limits={"memory_mb": 512})
    assert "memory_mb" in refused.value.field


def test_sandbox_and_run_are_held_to_all_that_was_asked_for() -> None:
    """The limits are split between the two, and stored together."""
    asked = {"pids": 32, "timeout_s": 3}
    order = Submission.model_validate({"command": ["true"], "limits": asked}).order()
    request = resolve(order, OFFER)
    assert (request.sandbox.resources.pids, request.run.bounds.timeout_s) == (32, 3)
    assert request.limits == dataclasses.replace(SMALL, pids=32, timeout_s=3)


def test_files_must_fit_into_the_workspace() -> None:
    """The client learns it before anything is stored."""
    with pytest.raises(Invalid) as refused:
        resolved(command=["true"], files={"big": {"text": "x" * (2**20 + 1)}})
    assert refused.value.field == "files"


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b", "a\nb",
     "x" * 256, "/".join("a" * 34), "\ud800"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    """The rule for input files is the one for stored files."""
    with pytest.raises(ValueError, match=r"must|at least 1|valid string"):
        Submission.model_validate({"command": ["true"], "files": {path: ""}})


def test_the_patterns_of_artifacts_are_bounded_together() -> None:
    """They are counted in bytes; the refusal names the field, their size and the limit."""
    most = ["é" * 64] * 64
    assert Submission(command=["true"], artifacts=most).order().artifacts == tuple(most)
    with pytest.raises(ValidationError, match=r"8193 bytes together .* exceed 8192") as refused:
        Submission(command=["true"], artifacts=[*most[1:], "é" * 64 + "x"])
    assert refused.value.errors()[0]["loc"] == ("artifacts",)


def test_a_command_is_a_list_or_a_line_for_a_shell() -> None:
    """A line is never taken as a list of its letters."""
    for command in ("echo hi | wc -c", ["bash", "-c", "--", "echo hi | wc -c"]):
        order = Submission.model_validate({"command": command}).order()
        assert order.command == ("bash", "-c", "--", "echo hi | wc -c")


def test_a_line_that_begins_with_a_dash_is_no_option_of_the_shell() -> None:
    """The shell looks for a command of that name."""
    order = Submission.model_validate({"command": "-x || echo looked for"}).order()
    assert order.command is not None
    shell = subprocess.run(order.command, capture_output=True, text=True, check=False)
    assert (shell.stdout, "-x: command not found" in shell.stderr) == ("looked for\n", True)


@pytest.mark.parametrize(
    "content",
    [
        "hé",
        {"text": "hé"},
        {"base64": "aMOp"},
        {"base64": "aM\nOp\r\n"},
    ],
)
def test_a_content_is_text_or_says_what_it_is(content: object) -> None:
    """Base64 may have line breaks, as `base64` prints it; this holds for files and stdin."""
    given = {"command": ["a"], "stdin": content, "files": {"x": content}}
    order = Submission.model_validate(given).order()
    assert (order.stdin, order.files) == ("hé".encode(), {"x": "hé".encode()})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"command": ["a"], "files": {"x": {"base64": "a b="}}}, "nothing else but line breaks"),
        ({"command": ["a"], "files": {"x": 3}}, "must be text, or an object with one of"),
        ({"command": 3}, "a list, of a program and its arguments, or a string"),
        ({"command": ""}, "neither may be empty"),
    ],
)
def test_a_refusal_says_what_to_write(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Submission.model_validate(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"code": "1"},
        {"language": "python"},
        {"code": "1", "language": "perl"},
        {"code": "1", "language": "python", "command": ["true"]},
        {"command": []},
        {"command": [""]},
        {"command": ["x" * 200_000]},
        {"command": ["\u2603" * 40_000]},
        {"command": ["a"], "env": {f"X{n}": "y" * 8000 for n in range(30)}},
        {"command": ["a"], "env": {"1X": "y"}},
        {"command": ["a"], "env": {"X": "\0"}},
        {"command": ["a"], "files": {"x": {"text": "a", "base64": "YQ=="}}},
        {"command": ["a"], "files": {"x": {}}},
        {"code": "1", "language": "python", "files": {"main.py": {"text": ""}}},
        {"command": ["a"], "wait_s": 61},
        {"command": ["a"], "limits": {"cpu": 0}},
        {"command": ["a"], "limits": {"cpu": float("nan")}},
        {"command": ["a"], "limits": {"network": "host"}},
        {"command": ["a"], "privileged": True},
        {"command": ["a"], "egress": [""]},
        {"command": ["a"], "metadata": {"a b": "c"}},
    ],
)
def test_what_is_wrong_is_refused(fields: dict[str, object]) -> None:
    """Unknown fields are refused as well: nothing is ignored."""
    with pytest.raises(ValidationError):
        Submission.model_validate(fields)
