"""A host that is short of memory, with real sandboxes: what goes, and how its owner goes on."""

from collections.abc import Iterator

import httpx
import pytest

from agent_runner import Client, Gone
from runner.base.signing import read_public_key, verify
from runner.store.receipts import SANDBOX_KIND
from tests.support.deployment import NO_POOL, Deployment, deployment, eventually

EVERYTHING_MB = 10**9
"""More than any host has: a node that must leave so much free is always short."""


@pytest.fixture(scope="module")
def short(image: None) -> Iterator[Deployment]:
    """Return a deployment whose host is short of memory."""
    with deployment(sandbox_reserve_mb=EVERYTHING_MB, reconcile_s=0.5, **NO_POOL) as made:
        yield made


@pytest.fixture(scope="module")
def api(short: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return short.client("evicted")


@pytest.mark.parametrize("isolation", ["container", "gvisor"])
def test_a_paused_sandbox_becomes_a_snapshot_from_which_its_owner_goes_on(
    isolation: str, api: Client
) -> None:
    """One beside it whose owner did not choose that stays, and so does one that runs."""
    chosen = {"size": "nano", "on_shortage": "snapshot", "isolation": isolation}
    with (
        api.sandboxes.create(size="nano", timeout_s=None) as stays,
        api.sandboxes.create(**chosen, timeout_s=None) as runs,
        api.sandboxes.create(**chosen, timeout_s=None, metadata={"agent": "seven"}) as goes,
    ):
        stays.pause()
        goes.files.write("work.txt", b"so far")
        process = goes.start(["sleep", "600"])
        goes.pause()
        eventually(lambda: goes.refresh().ended)
        told = goes.info
        assert (told.reason, told.on_shortage) == ("evicted", "snapshot")
        assert told.kept_as is not None
        with pytest.raises(Gone, match=told.kept_as) as gone:
            goes.run("true")
        assert (gone.value.reason, gone.value.kept_as) == ("evicted", told.kept_as)
        with pytest.raises(Gone):
            process.signal("SIGKILL")
        last = list(goes.events())[-1]
        assert (last.data["reason"], last.data["kept_as"]) == ("evicted", told.kept_as)
        (key,) = api.signing_keys().values()
        body = verify(api.sandboxes.receipt(goes.id), SANDBOX_KIND, (read_public_key(key),))
        assert body["kept_as"] == told.kept_as
        assert (stays.refresh().state, runs.refresh().state) == ("paused", "running")
        with api.sandboxes.create(snapshot=told.kept_as) as again:
            assert again.info.isolation == isolation
            assert again.files.read("work.txt") == b"so far"
        kept = api.snapshots.get(told.kept_as)
        assert (kept.sandbox, kept.metadata) == (goes.id, {"agent": "seven"})


def test_the_choice_is_made_later_too_and_a_fork_has_it(api: Client) -> None:
    with api.sandboxes.create(size="nano", timeout_s=None) as sandbox:
        assert sandbox.info.on_shortage == "keep"
        assert sandbox.update(on_shortage="snapshot").on_shortage == "snapshot"
        (copy,) = sandbox.fork()
        with copy:
            assert copy.info.on_shortage == "snapshot"
            copy.pause()
            sandbox.pause()
            eventually(lambda: copy.refresh().reason == "evicted")
            eventually(lambda: sandbox.refresh().reason == "evicted")


def test_another_choice_is_refused(short: Deployment) -> None:
    refused = short.http("evicted").post("/v1/sandboxes", json={"on_shortage": "kill"})
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert refused.json()["errors"][0]["field"] == "body.on_shortage"
