"""What a template sets for its sandboxes, and operators' names for images: through every door."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runner import Client
from tests.support import deployment as deployments
from tests.support.connect import streamed, written
from tests.support.deployment import Deployment
from tests.support.e2b import control, create, within
from tests.support.mcp import create as create_by_mcp
from tests.support.mcp import over_http, said
from tests.support.templates import BUILT_S, build, log

FURTHER = "registry.example.com/python:3.12"
TENANT = "defaults"


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Deployment]:
    """Return a deployment whose operator gives an image a further name."""
    deployments.build_image("base")
    with deployments.deployment(
        images=("python", "base"), template_images={FURTHER: "python", "ubuntu:22.04": "base"}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def http(made: Deployment) -> httpx.Client:
    """Return a connection of a tenant that builds."""
    return made.http(TENANT)


@pytest.fixture(scope="module")
def api(made: Deployment) -> Client:
    """Return the same tenant's client."""
    return made.client(TENANT)


@pytest.fixture(scope="module")
def e2b(made: Deployment) -> httpx.Client:
    """Return the same tenant's client of E2B's control plane."""
    return control(made, TENANT)


@pytest.fixture(scope="module")
def app(http: httpx.Client) -> dict[str, Any]:
    """Return a template with a working directory and resources of its own."""
    template = build(
        http,
        "3d_app",
        {"workdir": "/srv"},
        {"workdir": "app"},
        {"run": "echo it > here"},
        {"user": "root"},
        sandbox_limits={"cpu": 0.5, "memory_mb": 192},
        start="pwd > ~/started",
    )
    assert template["state"] == "ready", log(http, template)
    return template


@pytest.mark.parametrize("name", [FURTHER, "python:latest"])
def test_an_operators_name_for_an_image_is_found_by_every_door(
    made: Deployment, http: httpx.Client, api: Client, e2b: httpx.Client, name: str, tmp_path: Path
) -> None:
    with api.sandboxes.create(image=name, size="nano") as sandbox:
        assert sandbox.info.image == "python"
    ran = api.run(image=name, command=["true"], size="nano")
    assert (ran.state, ran.image) == ("succeeded", "python")
    begun = http.post("/v1/templates", json={"name": "upon", "base": name}).json()
    assert begun["base"] == "python"
    id_ = create(e2b, templateID=name)["sandboxID"]
    assert e2b.get(f"/sandboxes/{id_}").json()["templateID"] == "python"
    assert e2b.delete(f"/sandboxes/{id_}").status_code == 204
    (tmp_path / "main.sh").write_text("echo hello\n")
    typed = subprocess.run(
        [sys.executable, "-m", "runner", "run", "--image", name, str(tmp_path / "main.sh")],
        env={**os.environ, "RUNNER_URL": made.url, "RUNNER_API_KEY": made.key(TENANT)},
        capture_output=True, text=True, timeout=BUILT_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (typed.returncode, typed.stdout) == (0, "hello\n"), typed.stderr


async def test_an_operators_name_for_an_image_is_found_by_the_tools_for_models(
    made: Deployment,
) -> None:
    async with over_http(made, made.key(TENANT)) as client:
        here = {"sandbox_id": await create_by_mcp(client, image=FURTHER)}
        assert "image: python" in said(await client.call_tool("list_sandboxes"))
        await client.call_tool("kill_sandbox", here)


def test_a_tenants_own_template_comes_before_an_operators_name(
    http: httpx.Client, api: Client
) -> None:
    with api.sandboxes.create(image="ubuntu:22.04", size="nano") as sandbox:
        assert sandbox.info.image == "base"
    own = build(http, "ubuntu", tag="22.04")
    with api.sandboxes.create(image="ubuntu:22.04", size="nano") as sandbox:
        assert sandbox.info.image == own["image"]


def test_a_name_in_the_form_of_an_id_is_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/templates", json={"name": "019f5a41-0b1d-7e2a-9c3b-4d5e6f708192"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.name")


def test_processes_start_in_a_templates_working_directory_by_every_door(
    made: Deployment, api: Client, e2b: httpx.Client, app: dict[str, Any]
) -> None:
    """Commands, terminals, code contexts and the template's own command, in copies as well."""
    assert app["workdir"] == "/srv/app"
    with api.sandboxes.create(image="3d_app") as sandbox:
        assert wrote(sandbox.run("pwd; cat here; cat ~/started")) == "/srv/app\nit\n/srv/app\n"
        assert wrote(sandbox.run("pwd", cwd=".")) == "/workspace\n"
        context = sandbox.contexts.create("python")
        assert context.info.cwd == "/srv/app"
        assert context.run("import os; print(os.getcwd())").stdout == "/srv/app\n"
        with sandbox.terminal("pwd") as terminal:
            assert b"".join(each.raw for each in terminal) == b"/srv/app\r\n"
        (copy,) = sandbox.fork()
        with copy:
            assert wrote(copy.run("pwd")) == "/srv/app\n"
    inside = within(made, create(e2b, templateID="3d_app"))
    asked = {"process": {"cmd": "/bin/bash", "args": ["-l", "-c", "pwd"]}}
    messages, _ = streamed(inside, "process.Process/Start", asked)
    assert written(messages, "stdout") == b"/srv/app\n"


async def test_the_tools_for_models_start_in_a_templates_working_directory(
    made: Deployment, app: dict[str, Any]
) -> None:
    async with over_http(made, made.key(TENANT)) as client:
        here = {"sandbox_id": await create_by_mcp(client, image="3d_app")}
        assert "/srv/app" in said(await client.call_tool("run_command", {**here, "command": "pwd"}))
        code = {**here, "code": "import os; os.getcwd()"}
        assert "/srv/app" in said(await client.call_tool("run_code", code))
        await client.call_tool("kill_sandbox", here)


def test_an_execution_starts_at_home_where_its_files_are(api: Client, app: dict[str, Any]) -> None:
    ran = api.run(image="3d_app", command="pwd; cat in.txt", files={"in.txt": "mine"})
    assert wrote(ran) == "/workspace\nmine"


def test_a_template_built_on_another_goes_on_in_its_working_directory(
    http: httpx.Client, api: Client, app: dict[str, Any]
) -> None:
    upon = build(http, "upon_app", {"run": "pwd > seen"}, base="3d_app")
    assert (upon["state"], upon["workdir"]) == ("ready", "/srv/app"), log(http, upon)
    assert upon["sandbox_limits"] == app["sandbox_limits"]
    with api.sandboxes.create(image="upon_app") as sandbox:
        assert wrote(sandbox.run("cat seen; pwd")) == "/srv/app\n/srv/app\n"


def test_a_dockerfiles_working_directory_and_options_hold_for_sandboxes(
    made: Deployment, api: Client, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {FURTHER}\nWORKDIR /opt/typed\nRUN pwd > seen\n")
    typed = subprocess.run(
        [sys.executable, "-m", "runner", "templates", "build", str(tmp_path),
         "--name", "typed_app", "--cpu", "0.5", "--memory-mb", "96"],
        env={**os.environ, "RUNNER_URL": made.url, "RUNNER_API_KEY": made.key(TENANT)},
        capture_output=True, text=True, timeout=BUILT_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert typed.returncode == 0, typed.stderr
    with api.sandboxes.create(image=typed.stdout.strip()) as sandbox:
        assert wrote(sandbox.run("cat seen; pwd")) == "/opt/typed\n/opt/typed\n"
        found = sandbox.info.limits
        assert (found["cpu"], found["memory_mb"]) == (0.5, 96)


def test_a_working_directory_that_sandboxes_lack_fails_the_build(http: httpx.Client) -> None:
    """`/run` is each sandbox's own."""
    template = build(http, "nowhere", {"workdir": "/run/app"})
    assert template["state"] == "failed"
    assert "cannot start in its working directory /run/app" in template["detail"]


def test_the_log_says_that_nobody_is_root(http: httpx.Client, app: dict[str, Any]) -> None:
    assert "nobody is root in a sandbox: the last user is of the steps alone\n" in log(http, app)
    assert app["user"] is None


def test_a_sandbox_has_its_templates_resources_by_every_door(
    http: httpx.Client, api: Client, e2b: httpx.Client, app: dict[str, Any]
) -> None:
    """Unless it asks for a size, or for other limits."""
    assert app["sandbox_limits"] == {"cpu": 0.5, "memory_mb": 192}
    alternatives: tuple[tuple[dict[str, Any], int, float], ...] = (
        ({}, 192, 0.5),
        ({"limits": {"memory_mb": 64}}, 64, 0.5),
        ({"size": "small"}, 256, 1.0),
    )
    for options, memory_mb, cpu in alternatives:
        with api.sandboxes.create(image="3d_app", **options) as sandbox:
            found = sandbox.info.limits
        assert (found["memory_mb"], found["cpu"]) == (memory_mb, cpu)
        ran = api.run(image="3d_app", command=["true"], **options)
        found = http.get(f"/v1/executions/{ran.id}").json()["limits"]
        assert (found["memory_mb"], found["cpu"]) == (memory_mb, cpu)
    made_by_e2b = create(e2b, templateID="3d_app")
    told = e2b.get(f"/sandboxes/{made_by_e2b['sandboxID']}").json()
    assert told["memoryMB"] == 192


def test_resources_that_the_tenant_may_not_have_are_refused_at_once(
    http: httpx.Client, e2b: httpx.Client
) -> None:
    body: dict[str, Any] = {"name": "huge", "sandbox_limits": {"memory_mb": 262_144}}
    answer = http.post("/v1/templates", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == "body.sandbox_limits.memory_mb"
    told = e2b.post("/v3/templates", json={"name": "huge", "memoryMB": 262_144})
    assert told.status_code == 400
    assert "memory_mb is 262144; between" in told.json()["message"]
    assert http.get("/v1/templates", params={"name": "huge"}).json()["items"] == []


def wrote(ran: Any) -> str:
    """Return what a program wrote."""
    assert ran.stdout is not None, ran
    return str(ran.stdout.text)
