"""A sandbox whose image has its home elsewhere, through the API of our own."""

from collections.abc import Iterator

import pytest

from agent_runner import Client, Sandbox
from tests.support.deployment import Deployment

HOME = "/home/user"
BOTH = (HOME, "/workspace")


@pytest.fixture(scope="module")
def api(deployed: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return deployed.client("e2b-home")


@pytest.fixture(scope="module")
def sandbox(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox of the template `base`."""
    with api.sandboxes.create(image="base", timeout_s=600) as made:
        yield made


def test_processes_and_contexts_start_at_home(sandbox: Sandbox) -> None:
    """So does a process that names the workspace as its folder."""
    for cwd in (None, *BOTH):
        assert sandbox.run(["pwd"], cwd=cwd).stdout.text == f"{HOME}\n"
    ran = sandbox.run_code("pwd; echo ~user", language="bash")
    assert ran.stdout == f"{HOME}\n{HOME}\n"


def test_files_have_one_place_under_both_names(sandbox: Sandbox) -> None:
    """Relative paths begin there, listings show it, and removing what it holds leaves it."""
    sandbox.files.write("kept/a", "one")
    for folder in BOTH:
        assert sandbox.files.read(f"{folder}/kept/a") == b"one"
        found, _ = sandbox.files.list(f"{folder}/kept")
        assert [each.path for each in found] == [f"{folder}/kept/a"]
    assert [each.path for each in sandbox.files.list(HOME)[0]] == [f"{HOME}/kept"]
    assert len(sandbox.files.list()[0]) == 1
    sandbox.files.write("/workspace/kept/b", "two")
    assert sandbox.run(["cat", f"{HOME}/kept/b"]).stdout.text == "two"
    sandbox.files.remove(f"{HOME}/kept", recursive=True)
    assert sandbox.files.list() == ([], False)


def test_snapshots_and_forks_have_what_home_holds(api: Client, sandbox: Sandbox) -> None:
    """A sandbox of another image gets the files in its own workspace."""
    sandbox.files.write("in/a", "kept")
    kept = sandbox.snapshot("home")
    with api.sandboxes.create(snapshot=kept.id) as again:
        assert again.run("pwd; cat in/a").stdout.text == f"{HOME}\nkept"
    with api.sandboxes.create(snapshot=kept.id, image="python") as other:
        assert other.run("pwd; cat in/a").stdout.text == "/workspace\nkept"
    (copy,) = sandbox.fork(1, timeout_s=60)
    with copy:
        assert copy.run(["cat", f"{HOME}/in/a"]).stdout.text == "kept"
    api.snapshots.delete(kept.id)
    sandbox.files.remove("in", recursive=True)


def test_its_disk_is_measured(sandbox: Sandbox) -> None:
    before = sandbox.metrics()["disk_bytes"]
    sandbox.run("head -c 4194304 /dev/zero > four")
    after = sandbox.metrics()["disk_bytes"]
    assert before is not None
    assert after is not None
    assert after - before >= 4 * 2**20
