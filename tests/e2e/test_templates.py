"""Templates, built by root in a sandbox, and what their sandboxes find: by real API and node."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runner import Client, Sandbox
from runner.base.settings import Settings
from tests.support import deployment as deployments
from tests.support.deployment import Deployment, eventually
from tests.support.templates import BUILT_S, build, log
from tests.support.upstreams import Answer, Upstream, serving

HOST = "packages.example.test"


@pytest.fixture(scope="module")
def packages() -> Iterator[Upstream]:
    """Return a server that builds may reach."""
    with serving(lambda request: Answer(f"package {request.path}".encode())) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def made(
    image: None, packages: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Return a deployment that knows the server's name, and permits to reach it."""
    profiles = tmp_path_factory.mktemp("templates") / "profiles"
    shutil.copytree(Settings().profiles_path, profiles)
    (profiles / "egress" / "ceiling.toml").write_text(
        f'[[allow]]\nhost = "*.example.test"\nscheme = "http"\nport = {packages.port}\n'
    )
    with deployments.deployment(
        profiles_dir=profiles,
        egress_trusted_networks=("127.0.0.0/8",),
        egress_hosts={HOST: "127.0.0.1"},
    ) as running:
        yield running


@pytest.fixture(scope="module")
def http(made: Deployment) -> httpx.Client:
    """Return a connection of a tenant that builds, and may reuse sandboxes."""
    return made.http("builder", reuse=True)


@pytest.fixture(scope="module")
def api(made: Deployment) -> Client:
    """Return the same tenant's client."""
    return made.client("builder", reuse=True)


def said(sandbox: Sandbox, command: str) -> str:
    """Return what a command in a sandbox writes."""
    ran = sandbox.run(command)
    assert ran.stdout is not None
    return str(ran.stdout.text)


@pytest.fixture(scope="module")
def tools(http: httpx.Client) -> dict[str, Any]:
    """Return a template that has one thing of each kind."""
    template = build(
        http,
        "tools",
        {"run": "echo by-root > /usr/local/share/made; chmod 600 /usr/local/share/made"},
        {"run": "rm /etc/debian_version; rm -r /etc/apt; mkdir /etc/apt; touch /etc/apt/only"},
        {"run": "cp /bin/true /usr/local/bin/su-true; chmod u+s /usr/local/bin/su-true"},
        {"arg": {"IN_BUILD": "yes"}},
        {"env": {"GREETING": "hello"}},
        {"workdir": "/srv/app"},
        {
            "copy": {
                "to": "main.sh",
                "text": "echo $GREETING $IN_BUILD from $PWD",
                "executable": True,
            }
        },
        {"run": "sh ./main.sh > out"},
        {"user": "agent"},
        {"run": "id -un > ~/who; mkdir ~/own; touch /usr/local/x || echo refused >> ~/who"},
    )
    assert template["state"] == "ready", (template, log(http, template))
    return template


@pytest.mark.parametrize("isolation", ["container", "gvisor"])
def test_a_sandbox_finds_what_the_steps_have_made(
    api: Client, tools: dict[str, Any], isolation: str
) -> None:
    with api.sandboxes.create(image="tools", isolation=isolation) as sandbox:
        assert sandbox.info.image == tools["image"] == f"tools@{tools['id']}"
        assert said(sandbox, "cat /srv/app/out") == "hello yes from /srv/app\n"
        assert said(sandbox, "echo $GREETING-$IN_BUILD-") == "hello--\n"
        assert said(sandbox, "cat ~/who") == "agent\nrefused\n"
        # Not by `ls`: gVisor's kernel may lack a flag that it uses.
        assert said(sandbox, "echo /etc/apt/*; test -e /etc/debian_version || echo gone") == (
            "/etc/apt/only\ngone\n"
        )


def test_in_a_sandbox_the_template_is_roots_and_the_home_its_users(
    api: Client, tools: dict[str, Any]
) -> None:
    with api.sandboxes.create(image="tools", isolation="container") as sandbox:
        assert said(sandbox, "id -un") == "agent\n"
        assert said(sandbox, "cat /usr/local/share/made || echo unreadable") == "unreadable\n"
        assert said(sandbox, "stat -c '%U %a' /usr/local/bin/su-true") == "root 755\n"
        assert said(sandbox, "touch /srv/app/x || echo read-only") == "read-only\n"
        assert said(sandbox, "stat -c %U ~/who; touch ~/own/x && echo written") == (
            "agent\nwritten\n"
        )


@pytest.mark.parametrize("isolation", ["container", "gvisor"])
def test_an_execution_finds_what_the_steps_have_made(
    api: Client, http: httpx.Client, tools: dict[str, Any], isolation: str
) -> None:
    """Its receipt names the template and the image. The template's files are no artifacts."""
    command = "cat /srv/app/out ~/who; echo $GREETING-$IN_BUILD-; echo x > ~/made"
    ran = api.run(image="tools", command=command, isolation=isolation)
    assert ran.stdout is not None, ran
    assert ran.stdout.text == "hello yes from /srv/app\nagent\nrefused\nhello--\n"
    assert [each.path for each in ran.artifacts] == ["made"]
    assert ran.image == tools["image"]
    receipt = http.get(f"/v1/executions/{ran.id}/receipt").json()["body"]
    assert receipt["image"] == tools["image"]
    assert receipt["image_digest"].startswith("sha256:")


def test_executions_of_a_template_get_sandboxes_that_waited(
    api: Client, tools: dict[str, Any]
) -> None:
    """By demand, as those of any image. Each begins with the template's files."""

    def from_stock() -> bool:
        ran = api.run(image=tools["image"], language="python", code="print(open('who').read())")
        assert ran.stdout is not None, ran
        assert ran.stdout.text == "agent\nrefused\n\n"
        (start,) = api.audit(resource_id=ran.id, action="execution:start")["items"]
        return bool(start["record"]["metadata"]["sandbox_from_stock"])

    eventually(from_stock)


def test_a_reused_sandbox_begins_with_the_templates_files_anew(
    api: Client, http: httpx.Client, tools: dict[str, Any]
) -> None:
    used = []
    for _ in range(2):
        ran = api.run(image="tools", command="cat ~/who; rm ~/who", reuse="tenant")
        assert ran.stdout is not None, ran
        assert ran.stdout.text == "agent\nrefused\n"
        used.append(http.get(f"/v1/executions/{ran.id}/receipt").json()["body"])
    assert [each["sandbox_runs_before"] for each in used] == [0, 1]


def test_a_program_runs_in_a_template_from_the_command_line(
    made: Deployment, tools: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "main.sh").write_text("cat /srv/app/out\n")
    ran = subprocess.run(
        [sys.executable, "-m", "runner", "run", "--image", "tools", str(tmp_path / "main.sh")],
        env={**os.environ, "RUNNER_URL": made.url, "RUNNER_API_KEY": made.key("builder")},
        capture_output=True, text=True, timeout=BUILT_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "hello yes from /srv/app\n"), ran.stderr


def test_a_template_that_is_not_ready_is_refused_with_the_reason(
    http: httpx.Client, tools: dict[str, Any]
) -> None:
    """For executions and sandboxes alike, by its name and by its id."""

    def refused(image: str) -> str:
        said = set()
        for path, body in (("executions", {"command": ["true"]}), ("sandboxes", {})):
            answer = http.post(f"/v1/{path}", json={**body, "image": image})
            assert answer.status_code == 422, answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["errors"][0]["field"] == "body.image"
            said.add(answer.json()["detail"])
        (detail,) = said
        return str(detail)

    slow = http.post("/v1/templates", json={"name": "unready", "steps": [{"run": "sleep 30"}]})
    for image in ("unready", f"unready@{slow.json()['id']}"):
        assert "is still being built" in refused(image)
    failed = build(http, "broken", {"run": "exit 3"})
    for image in ("broken", f"broken@{failed['id']}"):
        assert "it exited with 3" in refused(image)
    assert "no build of this template has the tag" in refused("tools:other")
    assert "there is no image" in refused("never-begun")


def test_a_template_that_takes_the_place_of_the_supervisor_is_not_made(http: httpx.Client) -> None:
    """Root of a build may do so there; no sandbox begins with it."""
    fake = "mkdir -p /srv/mine/supervisor && rm -rf /opt && ln -s srv/mine /opt"
    failed = build(http, "taken-over", {"run": fake})
    assert failed["state"] == "failed"
    assert "/opt has to stay" in failed["detail"], failed


def test_an_execution_whose_template_is_deleted_before_it_runs_says_so(made: Deployment) -> None:
    """The node still has the template's image, in which the build was tried."""
    api, http = made.client("hasty", max_concurrency=1), made.http("hasty")
    template = build(http, "short-lived", {"run": "true"})
    first = api.submit(command=["sleep", "600"])
    eventually(lambda: api.get(first.id).state == "running")
    queued = api.submit(image="short-lived", command=["true"])
    assert http.delete(f"/v1/templates/{template['id']}").status_code == 204
    api.cancel(first.id)
    ended = api.wait(queued)
    assert (ended.state, ended.reason) == ("system_error", "image_missing")
    assert "was deleted" in str(ended.detail)


def test_a_receipt_names_the_template_and_the_digest_of_its_image(
    api: Client, http: httpx.Client, tools: dict[str, Any]
) -> None:
    with api.sandboxes.create(image="tools") as sandbox:
        pass
    receipt = http.get(f"/v1/sandboxes/{sandbox.id}/receipt").json()
    text = json.dumps(receipt)
    assert tools["image"] in text
    assert '"image_digest": "sha256:' in text or '"digest": "sha256:' in text


def test_the_log_says_what_each_step_wrote(http: httpx.Client) -> None:
    """It is stored as it comes, without anything that text cannot hold."""
    template = build(
        http, "talks", {"run": "echo one; printf 'a\\0\\377b'"}, {"run": "echo two >&2"}
    )
    text = log(http, template)
    assert text.index("[1/2] RUN echo one") < text.index("one\n") < text.index("[2/2] RUN")
    assert "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b" in text
    assert text.endswith("trying the template\nready\n")


def test_a_step_that_fails_ends_the_build(http: httpx.Client, api: Client) -> None:
    template = build(http, "fails", {"run": "echo before; false; echo after"}, {"run": "echo no"})
    assert (template["state"], template["size_bytes"]) == ("failed", None)
    assert "[1/2] RUN echo before; false; echo after: it exited with 1" in template["detail"]
    text = log(http, template)
    assert "before\n" in text
    assert "\nafter" not in text
    assert "[2/2]" not in text
    refused = http.post("/v1/sandboxes", json={"image": "fails"})
    assert refused.json()["errors"][0]["field"] == "body.image"
    assert (
        api.sandboxes.list(state=["starting", "running"], metadata={"template": "fails"})[0] == []
    )


def test_the_same_first_steps_are_not_done_again(http: httpx.Client, api: Client) -> None:
    """A build goes on where a template of the same beginning has ended, unless it is to be anew."""
    first = {"run": "python3 -c 'import uuid; print(uuid.uuid4())' > /srv/made"}
    one = build(http, "cached", first)
    two = build(http, "cached", first, {"run": "cp /srv/made /srv/copy"})
    anew = build(http, "cached-anew", first, anew=True)
    assert [each["state"] for each in (one, two, anew)] == ["ready"] * 3
    assert "[1/2]" not in log(http, two)
    found = []
    for template in (one, two, anew):
        with api.sandboxes.create(image=template["image"], size="nano") as sandbox:
            found.append(said(sandbox, "cat /srv/made"))
    assert found[0] == found[1] != found[2]
    refused = http.delete(f"/v1/templates/{one['id']}")
    assert refused.status_code == 409
    assert "another template is built on it" in refused.json()["detail"]
    for template in (two, one):
        assert http.delete(f"/v1/templates/{template['id']}").status_code == 204
    assert http.get(f"/v1/templates/{one['id']}").status_code == 404


def test_steps_find_what_earlier_steps_and_the_base_left_at_home(
    http: httpx.Client, api: Client
) -> None:
    """Also if those steps are not done again. What they remove there is removed."""
    agent = {"user": "agent"}
    first = {
        "run": "cd; echo kept > kept; touch gone a; mv a b; mkdir -p sub; touch sub/c; rm sub/c"
    }
    one = build(http, "homely", agent, first)
    assert one["state"] == "ready", log(http, one)
    second = {"run": "cd; cat kept; test -O kept; rm gone b; echo more >> sub/more"}
    two = build(http, "homely", agent, first, second)
    assert two["state"] == "ready", log(http, two)
    assert "[2/3]" not in log(http, two)
    upon = build(http, "upon-homely", agent, {"run": "cd; cat sub/more; rm -r sub"}, base="homely")
    assert upon["state"] == "ready", log(http, upon)
    for template, left in ((one, "b gone kept sub"), (two, "kept sub"), (upon, "kept")):
        with api.sandboxes.create(image=template["image"]) as sandbox:
            assert said(sandbox, "echo *") == f"{left}\n"


def test_a_name_stands_for_the_last_build_and_a_tag_for_its_own(
    http: httpx.Client, api: Client
) -> None:
    for text, tag in (("1", "default"), ("2", "default"), ("3", "other")):
        build(http, "tagged", {"run": f"echo {text} > /srv/which"}, tag=tag)
    for image, text in (("tagged", "2"), ("tagged:other", "3"), ("tagged:default", "2")):
        with api.sandboxes.create(image=image, size="nano") as sandbox:
            assert said(sandbox, "cat /srv/which") == f"{text}\n"
    assert [each["tag"] for each in http.get("/v1/templates", params={"name": "tagged"}).json()[
        "items"
    ]] == ["other", "default", "default"]  # fmt: skip


def test_a_template_is_built_on_a_template(
    http: httpx.Client, api: Client, tools: dict[str, Any]
) -> None:
    upon = build(http, "upon", {"run": "cat /srv/app/out > /srv/seen"}, base="tools")
    assert (upon["state"], upon["base"]) == ("ready", "python")
    assert upon["env"] == {"GREETING": "hello"}
    with api.sandboxes.create(image="upon", size="nano") as sandbox:
        assert said(sandbox, "cat /srv/seen") == "hello yes from /srv/app\n"


def test_a_build_reaches_what_its_rules_permit(http: httpx.Client, packages: Upstream) -> None:
    """The proxy is its only way out; without rules there is none."""
    url = f"http://{HOST}:{packages.port}"
    fetch = {"run": f"curl -sS --fail --max-time 20 {url}/one"}
    reached = build(http, "reaches", fetch, egress=[url], anew=True)
    assert reached["state"] == "ready", (reached, log(http, reached))
    assert "package /one" in log(http, reached)
    for name, more in (
        ("alone", {}),
        ("elsewhere", {"egress": [f"http://other.example.test:{packages.port}"]}),
    ):
        kept_in = build(http, name, fetch, anew=True, **more)
        assert kept_in["state"] == "failed", log(http, kept_in)
    assert [each.path for each in packages.requests] == ["/one"]


def test_a_build_writes_no_more_than_its_size(http: httpx.Client) -> None:
    template = build(
        http,
        "large",
        {"run": "dd if=/dev/zero of=/srv/large bs=1M count=64"},
        limits={"disk_mb": 32},
    )
    assert template["state"] == "failed"
    assert "dd:" in log(http, template)


def test_a_file_with_a_hole_is_whole_in_a_sandbox(http: httpx.Client, api: Client) -> None:
    made = build(http, "hole", {"run": "truncate -s 30M /srv/hole; echo end >> /srv/hole"})
    assert made["state"] == "ready", (made, log(http, made))
    with api.sandboxes.create(image="hole", size="nano") as sandbox:
        told = said(sandbox, "stat -c %s /srv/hole; tail -c 4 /srv/hole")
    assert told == f"{30 * 2**20 + 4}\nend\n"


def test_a_build_that_takes_too_long_is_ended(http: httpx.Client) -> None:
    template = build(http, "slow", {"run": "sleep 600"}, timeout_s=10)
    assert template["detail"] == "the build took longer than 10 s"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "python"}, "body.name"),
        ({"name": "x", "base": "unknown"}, "body.base"),
        ({"name": "x", "steps": [{}]}, "body.steps.0"),
        ({"name": "x", "steps": [{"run": "a", "user": "b"}]}, "body.steps.0"),
        ({"name": "x", "steps": [{"copy": {"to": "a"}}]}, "body.steps.0.copy"),
        ({"name": "X"}, "body.name"),
        ({"name": "x", "egress": ["packages.elsewhere.test"]}, "body.egress.0"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_field(
    http: httpx.Client, body: dict[str, Any], field: str
) -> None:
    answer = http.post("/v1/templates", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_another_tenants_template_is_no_image(made: Deployment, tools: dict[str, Any]) -> None:
    """Neither by its name nor by its id; nor may another tenant build on it."""
    other = made.http("other-builder")
    for image in ("tools", tools["image"]):
        for path, body in (
            ("/v1/sandboxes", {"image": image}),
            ("/v1/executions", {"image": image, "command": ["true"]}),
            ("/v1/templates", {"name": "x", "base": image}),
        ):
            answer = other.post(path, json=body)
            assert answer.status_code == 422, answer.text
            assert "there is no image" in answer.json()["detail"]


def test_a_dockerfile_is_built_from_the_command_line(
    made: Deployment, api: Client, tmp_path: Path
) -> None:
    """Its log is on stderr, and the image's name on stdout; a build that fails exits with 1."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "greeting").write_text("hello\n")
    (tmp_path / "Dockerfile").write_text(
        "FROM python\nENV WHO=you\nCOPY app /srv/app\nRUN cat /srv/app/greeting > /srv/seen\n"
    )

    def build(*more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "runner", "templates", "build", str(tmp_path), *more],
            env={**os.environ, "RUNNER_URL": made.url, "RUNNER_API_KEY": made.key("builder")},
            capture_output=True, text=True, timeout=BUILT_S, check=False,
        )  # fmt: skip

    built = build("--name", "typed")
    assert built.returncode == 0, built.stderr
    assert "COPY /srv/app/greeting (6 bytes)" in built.stderr
    with api.sandboxes.create(image=built.stdout.strip(), size="nano") as sandbox:
        assert said(sandbox, "cat /srv/seen; echo $WHO") == "hello\nyou\n"
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN echo wrong; exit 3\n")
    failed = build("--name", "typed")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "wrong" in failed.stderr
    assert "it exited with 3" in failed.stderr
