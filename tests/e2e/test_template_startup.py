"""A template begins a start command in its sandboxes, and another says when it is ready."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agent_runner import ApiError, Client, Sandbox
from tests.support import deployment as deployments
from tests.support.deployment import Deployment, eventually
from tests.support.templates import build, log

SERVES = "sleep 1; exec python3 -m http.server 8000 --bind 127.0.0.1 --directory /srv"
LISTENS = '[ -n "$(ss -Htuln sport = :8000)" ]'
"""As E2B's `wait_for_port(8000)` writes it."""
FETCHES = "curl -sS --fail http://127.0.0.1:8000/page"


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Deployment]:
    """Return a deployment of this module's own."""
    with deployments.deployment() as running:
        yield running


@pytest.fixture(scope="module")
def http(made: Deployment) -> httpx.Client:
    """Return a connection of a tenant that builds."""
    return made.http("starter")


@pytest.fixture(scope="module")
def api(made: Deployment) -> Client:
    """Return the same tenant's client."""
    return made.client("starter")


@pytest.fixture(scope="module")
def serving(http: httpx.Client) -> dict[str, Any]:
    """Return a template whose sandboxes serve a page, a second after they begin."""
    page = {"copy": {"to": "/srv/page", "text": "served\n"}}
    template = build(http, "serving", page, start=SERVES, ready=LISTENS)
    assert template["state"] == "ready", (template, log(http, template))
    return template


def fetched(sandbox: Sandbox) -> str:
    """Return what the server in a sandbox answers, asked only once."""
    ran = sandbox.run(FETCHES)
    assert ran.exit_code == 0, ran
    assert ran.stdout is not None
    return str(ran.stdout.text)


@pytest.mark.parametrize("isolation", ["container", "gvisor"])
def test_a_sandbox_is_made_once_its_template_is_ready(
    api: Client, serving: dict[str, Any], isolation: str
) -> None:
    """Its start command is a process like others; the ready command leaves none."""
    assert (serving["start"], serving["ready"], serving["ready_s"]) == (SERVES, LISTENS, 60)
    with api.sandboxes.create(image="serving", isolation=isolation) as sandbox:
        assert sandbox.info.state == "running"
        assert fetched(sandbox) == "served\n"
        assert [(each.tag, each.state) for each in sandbox.processes() if each.tag is not None] == [
            ("start", "running")
        ]


def test_a_copy_of_its_sandbox_and_a_template_upon_it_begin_alike(
    api: Client, http: httpx.Client, serving: dict[str, Any]
) -> None:
    upon = build(http, "upon-serving", {"run": "echo other > /srv/page"}, base="serving")
    assert upon["start"] == SERVES, (upon, log(http, upon))
    with api.sandboxes.create(image="upon-serving") as sandbox:
        assert fetched(sandbox) == "other\n"
        (copy,) = sandbox.fork()
        with copy:
            assert fetched(copy) == "other\n"


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        ({"start": "echo no port >&2; exit 3", "ready": "false"},
         "start command exited with 3; it wrote: no port"),
        ({"start": "sleep 600", "ready": "echo not yet; false", "ready_s": 2},
         "did not exit with 0 within 2 s; it wrote: not yet"),
        ({"ready": "sleep 600", "ready_s": 2}, "did not exit with 0 within 2 s"),
        ({"ready": r"printf 'not\0\033[2J yet'; false", "ready_s": 2},
         "it wrote: not\ufffd\ufffd[2J yet"),
    ],
)  # fmt: skip
def test_a_build_fails_whose_sandbox_does_not_become_ready(
    http: httpx.Client, commands: dict[str, Any], why: str
) -> None:
    template = build(http, "never", {"run": "true"}, **commands)
    assert template["state"] == "failed"
    assert why in template["detail"]


def test_a_sandbox_that_does_not_become_ready_has_ended_and_says_why(
    api: Client, http: httpx.Client
) -> None:
    """A variable of this one sandbox kept it, so that the build's trial is ready."""
    ready = '[ -z "$KEPT" ] || { echo kept by $KEPT; false; }'
    template = build(http, "kept", ready=ready, ready_s=10, start="sleep 600")
    assert template["state"] == "ready", template
    with api.sandboxes.create(image="kept") as sandbox:
        assert sandbox.info.state == "running"
    with pytest.raises(ApiError) as refused:
        api.sandboxes.create(image="kept", env={"KEPT": "me"}, metadata={"which": "kept"})
    assert refused.value.status == 409
    assert "within 10 s; it wrote: kept by me" in str(refused.value)

    def ended() -> list[Any]:
        found, _ = api.sandboxes.list(state=["ended"], metadata={"which": "kept"})
        return list(found)

    (row,) = eventually(ended, within_s=20)
    assert row.reason == "start_failed"
    assert "kept by" in row.detail
