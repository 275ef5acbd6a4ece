"""The user whom a template's steps name last is that of its sandboxes, through every door."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agent_runner import Client
from tests.support import deployment as deployments
from tests.support.connect import bash, streamed, written
from tests.support.deployment import Deployment
from tests.support.e2b import control, create, within
from tests.support.templates import build, log

TENANT = "users"
IS_APP = "id -un; echo $HOME; pwd; cat own; touch made && stat -c %U made; ls -d /workspace/own"
APP = "app\n/home/app\n/home/app\nby app\napp\n/workspace/own\n"


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Deployment]:
    """Return a deployment with an image of ours and one of E2B's."""
    deployments.build_image("base")
    with deployments.deployment(images=("python", "base")) as running:
        yield running


@pytest.fixture(scope="module")
def http(made: Deployment) -> httpx.Client:
    """Return a connection of a tenant that builds."""
    return made.http(TENANT)


@pytest.fixture(scope="module")
def api(made: Deployment) -> Client:
    """Return the same tenant's client."""
    return made.client(TENANT)


@pytest.fixture(scope="module", params=["python", "base"])
def app(request: pytest.FixtureRequest, http: httpx.Client) -> dict[str, Any]:
    """Return a template whose last user its steps have made, on each kind of home."""
    template = build(
        http,
        f"app_on_{request.param}",
        {"run": "useradd --create-home app && mkdir /srv/shared && chown app /srv/shared"},
        {"user": "app"},
        {"run": "cd && echo by app > own && id -un > /srv/shared/who"},
        base=request.param,
    )
    assert template["state"] == "ready", log(http, template)
    assert template["user"] == "app"
    return template


def test_processes_run_as_that_user_at_its_home(api: Client, app: dict[str, Any]) -> None:
    """Commands, terminals, code contexts and copies; the files that steps left there are its."""
    with api.sandboxes.create(image=app["name"]) as sandbox:
        assert wrote(sandbox.run(IS_APP)) == APP
        assert wrote(sandbox.run("cat /srv/shared/who")) == "app\n"
        with sandbox.terminal("id -un; pwd") as terminal:
            assert b"".join(each.raw for each in terminal) == b"app\r\n/home/app\r\n"
        context = sandbox.contexts.create("bash")
        assert context.run("id -un; pwd; cat own").stdout == "app\n/home/app\nby app\n"
        sandbox.files.write("by-path", "x")
        assert sandbox.files.read("/home/app/by-path") == b"x"
        (copy,) = sandbox.fork()
        with copy:
            assert wrote(copy.run("id -un; cat own by-path")) == "app\nby app\nx"


def test_an_execution_runs_as_that_user_and_leaves_artifacts(
    api: Client, app: dict[str, Any]
) -> None:
    ran = api.run(image=app["name"], command=f"{IS_APP}; cat in.txt", files={"in.txt": "mine"})
    assert wrote(ran) == f"{APP}mine"
    assert [each.path for each in ran.artifacts] == ["made"]


def test_a_template_built_on_it_goes_on_as_that_user(
    http: httpx.Client, api: Client, app: dict[str, Any]
) -> None:
    """Its users are known there, and each one's home is its own again."""
    upon = build(
        http,
        f"upon_{app['name']}",
        {"run": "useradd -m second && id app && id second"},
        {"user": "second"},
        {"run": "echo by second > ~/own"},
        {"user": "app"},
        {"run": "echo more >> ~/own"},
        base=app["name"],
    )
    assert (upon["state"], upon["user"]) == ("ready", "app"), log(http, upon)
    with api.sandboxes.create(image=upon["name"]) as sandbox:
        assert wrote(sandbox.run("id -un; cat own")) == "app\nby app\nmore\n"
    third = build(http, f"third_{app['name']}", {"user": "second"}, base=upon["name"])
    assert (third["state"], third["user"]) == ("ready", "second"), log(http, third)
    with api.sandboxes.create(image=third["name"]) as sandbox:
        # The base's home is none any more: a folder of root's.
        look = "id -un; pwd; cat own; test -w own && test ! -w /home/app; cat /home/app/own"
        assert wrote(sandbox.run(look)) == "second\n/home/second\nby second\nby app\nmore\n"


def test_a_build_that_begins_with_steps_done_before_knows_their_users(
    http: httpx.Client, app: dict[str, Any]
) -> None:
    steps: tuple[dict[str, str], ...] = (
        {"run": "useradd -m first && useradd -m other"},
        {"user": "first"},
        {"run": "touch ~/a"},
        {"user": "app"},
    )
    before = build(http, f"before_{app['name']}", *steps, base=app["name"])
    assert before["state"] == "ready", log(http, before)
    after = build(
        http,
        f"after_{app['name']}",
        *steps,
        {"user": "other"},
        {"run": "touch ~/b"},
        {"user": "first"},
        {"run": "touch ~/c && find ~ -name '[ac]' -printf '%p %u;' && echo"},
        base=app["name"],
    )
    assert after["state"] == "ready", log(http, after)
    assert "what it was made by is not done again" in log(http, after)
    assert "/home/first/a first;" in log(http, after)
    assert "/home/first/c first;" in log(http, after)


@pytest.mark.parametrize("base", ["python", "base"])
def test_a_build_does_not_begin_with_steps_of_a_template_of_another_user(
    http: httpx.Client, base: str
) -> None:
    """Its steps find the owners, rights and homes that they find when all steps are done.

    The control is the template built on the other one: where the workspace is the home of the
    image's own user, it is another user's there.
    """
    own = "agent" if base == "python" else "user"
    steps: tuple[dict[str, str], ...] = (
        {"run": "useradd -m app"},
        {"user": own},
        {"run": "echo mine > ~/own && chmod 600 ~/own"},
        {"user": "app"},
    )
    look = (
        {"run": "if echo x >> $(getent passwd " + own + " | cut -d: -f6)/own; then echo ours; fi"},
        {"user": own},
        {"run": "cat ~/own; find ~ -name own -printf 'own: %u\\n'; id -u; id -u app"},
        {"user": "app"},
    )
    other = build(http, f"other_{base}", *steps, base=base)
    assert (other["state"], other["user"]) == ("ready", "app"), log(http, other)
    whole = build(http, f"whole_{base}", *steps, *look, base=base)
    assert whole["state"] == "ready", log(http, whole)
    assert "is not done again" not in log(http, whole)
    for anew in (False, True):
        again = build(http, f"whole_{base}", *steps, *look, base=base, anew=anew)
        told = log(http, again)
        assert f"own: {own}\n" in told, told
        assert "ours" not in told.splitlines(), told
    if base == "python":
        upon = log(http, build(http, f"upon_{base}", *look, base=other["name"]))
        assert f"own: {own}\n" not in upon, upon


def test_a_home_that_is_a_link_does_not_keep_others_from_building_on_the_template(
    http: httpx.Client, api: Client
) -> None:
    """The link stays, and what it leads to is root's, as everything outside of homes.

    So is the root itself, by whatever name an account calls it its home.
    """
    linked = build(
        http,
        "linked",
        {"run": "useradd app && useradd --create-home other && touch /home/other/own"},
        {"run": "mkdir /srv/app && touch /srv/app/kept && ln -s /srv/app /home/app"},
        {"run": "ln -s /usr/bin /home/bin && useradd bin2 --home-dir /home/bin"},
        {"run": "useradd dots --no-create-home --home-dir /home/.."},
    )
    assert linked["state"] == "ready", log(http, linked)
    owners = "find /home/app /home/other/own /usr/bin/env /srv/app/kept -printf '%p %u %l;'"
    upon = build(
        http, "upon_linked", {"run": owners}, {"user": "app"}, {"run": "cd && pwd -P"},
        {"user": "other"}, base="linked",
    )  # fmt: skip
    told = log(http, upon)
    assert (upon["state"], upon["user"]) == ("ready", "other"), told
    assert "/home/app root /srv/app;/home/other/own other ;/usr/bin/env root" in told
    assert "/srv/app/kept root ;" in told
    assert "/srv/app\n" in told


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([{"user": "nobodys"}], "there is no user nobodys"),
        (
            [{"run": "useradd -d /srv/site site"}, {"user": "site"}],
            "the home of the user site is /srv/site: it must be /home/site",
        ),
        ([{"run": "useradd -m -o -u 0 toor"}, {"user": "toor"}], "the user toor is root"),
        (
            [{"run": "useradd app && ln -s /srv /home/app"}, {"user": "app"}],
            "/home/app is a link: the home /home/app of the template's sandboxes must be a folder",
        ),
        ([{"run": "rmdir /workspace && ln -s /srv /workspace"}], "/workspace is a link"),
    ],
    ids=["unknown", "home elsewhere", "root by another name", "a link as home", "a link as own"],
)
def test_a_user_whom_no_sandbox_can_have_fails_the_build(
    http: httpx.Client, steps: list[dict[str, str]], why: str
) -> None:
    template = build(http, "refused", *steps)
    assert template["state"] == "failed"
    assert why in log(http, template)


def test_e2bs_clients_are_that_user(
    made: Deployment, http: httpx.Client, app: dict[str, Any]
) -> None:
    """Of commands and files. Another user is refused by name, and so is root."""
    e2b = control(made, TENANT)
    inside = within(made, create(e2b, templateID=app["name"]))
    messages, _ = streamed(inside, "process.Process/Start", bash("id -un; pwd"))
    assert written(messages, "stdout") == b"app\n/home/app\n"
    for path, owner in (("own", "app"), ("/srv/shared", "root"), ("/home/user", "root")):
        if path == "/home/user" and app["base"] != "base":
            continue
        found = inside.post("/filesystem.Filesystem/Stat", json={"path": path}).json()
        assert (found["entry"]["owner"], found["entry"]["group"]) == (owner, owner), path
    assert inside.get("/files", params={"path": "own", "username": "app"}).text == "by app\n"
    for name, why in (("user", "there is no user 'user'"), ("root", "nobody is root")):
        told = inside.get("/files", params={"path": "own", "username": name})
        assert told.status_code == 403, told.text
        assert why in told.json()["message"]
        assert "`app`" in told.json()["message"]
        stat = inside.post("/filesystem.Filesystem/Stat", json={"path": "own"}, auth=(name, ""))
        assert stat.status_code == 403, stat.text


def wrote(ran: Any) -> str:
    """Return what a program wrote."""
    assert ran.stdout is not None, ran
    return str(ran.stdout.text)
