"""A living sandbox tells its events, and its terms change while it lives."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent_runner import ApiError, Client, Conflict, Invalid, NotFound, Sandbox
from runner.base.signing import read_public_key, verify
from runner.cli.app import app
from runner.store.receipts import SANDBOX_KIND
from runner.words.principal import Role
from tests.support.deployment import Deployment, eventually


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("lives")


@pytest.fixture
def brief(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox of this test's own."""
    with api.sandboxes.create(size="nano") as made:
        yield made


def kinds(sandbox: Sandbox, after: str | None = None) -> list[str]:
    """Return what has happened, in a word each."""
    found = sandbox.events(after=after, follow=False)
    return [str(each.data.get("state", each.kind)) for each in found]


def test_its_events_are_told_from_its_making_to_its_end(
    api: Client, shared: Deployment, brief: Sandbox
) -> None:
    """Once each and in order, from any event on, and never what a program was given."""
    brief.run(["echo", "a-word-nobody-tells"])
    brief.run(["sh", "-c", "exit 3"])
    brief.pause()
    brief.resume()
    brief.kill()
    events = list(brief.events())
    assert [each.data["state"] for each in events if each.kind == "life"] == [
        "starting", "running", "paused", "running", "stopping", "ended",
    ]  # fmt: skip
    assert events[-1].is_end
    assert events[-1].data["reason"] == "killed"
    assert "a-word-nobody-tells" not in str(events)
    started = [each.data for each in events if each.kind == "process_started"]
    ended = [each.data for each in events if each.kind == "process_ended"]
    assert [(each["program"], each["arguments"]) for each in started] == [("echo", 1), ("sh", 2)]
    assert [each["exit_code"] for each in ended] == [0, 3]
    assert [each["process"] for each in ended] == [each["process"] for each in started]
    for at, event in enumerate(events[:-1]):
        assert list(brief.events(after=event.id)) == events[at + 1 :]
    assert list(brief.events(after=events[-1].id)) == []
    with pytest.raises(NotFound):
        list(shared.client("lives-other").sandboxes.get(brief.id).events())


def test_who_follows_hears_of_what_happens_as_it_happens(brief: Sandbox) -> None:
    events = brief.events()
    while next(events).data.get("state") != "running":
        pass
    process = brief.start(["sleep", "600"])
    heard = next(events)
    assert (heard.kind, heard.data["process"]) == ("process_started", process.number)
    process.signal("SIGKILL")
    heard = next(events)
    assert (heard.kind, heard.data["signal"]) == ("process_ended", "SIGKILL")
    brief.update(timeout_s=900)
    assert (heard := next(events)).kind == "change"
    assert heard.data["timeout_s"] == 900
    brief.kill()
    assert list(events)[-1].data["reason"] == "killed"


def test_events_on_record_are_told_without_waiting(brief: Sandbox) -> None:
    brief.run("true")
    eventually(lambda: "process_ended" in kinds(brief))
    assert kinds(brief)[:2] == ["starting", "running"]


@pytest.fixture
def sleeper(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox that its use resumes."""
    with api.sandboxes.create(size="nano", auto_resume=True) as made:
        yield made


def test_its_use_resumes_a_paused_sandbox_that_was_made_so(
    shared: Deployment, sleeper: Sandbox
) -> None:
    """Only what acts in it does that. Who may only look cannot have it spend processor time."""
    process = sleeper.start(["sleep", "600"])
    assert sleeper.pause().state == "paused"
    viewer = shared.client("lives", role=Role.VIEWER).sandboxes.get(sleeper.id)
    for look in (viewer.processes, lambda: list(viewer.process(process.number).output())):
        with pytest.raises(Conflict, match="paused"):
            look()
    assert sleeper.refresh().state == "paused"
    assert sleeper.run(["echo", "awake"]).stdout.text == "awake\n"
    assert sleeper.refresh().state == "running"
    assert process.refresh().state == "running"
    for use in (
        lambda: sleeper.files.write("a", b"b"),
        lambda: process.signal("SIGCONT"),
        lambda: sleeper.terminal(["true"]).close(),
    ):
        sleeper.pause()
        use()
        assert sleeper.refresh().state == "running"
    resumed = [each for each in sleeper.events(follow=False) if each.data.get("auto")]
    assert len(resumed) == 4


def test_a_sandbox_sleeps_while_nobody_uses_it(api: Client) -> None:
    """Its time pauses it, and its use begins that anew."""
    with api.sandboxes.create(
        size="nano", timeout_s=5, on_timeout="pause", auto_resume=True
    ) as made:
        for _ in range(2):
            assert made.run(["echo", "here"]).stdout.text == "here\n"
            eventually(lambda: made.refresh().state == "paused")


def test_its_use_resumes_nothing_beyond_the_quota(api: Client, shared: Deployment) -> None:
    """The refusal names the quota; without it, the same call succeeds."""
    ours = shared.client("lives-hours")
    with ours.sandboxes.create(size="nano", auto_resume=True) as made:
        made.pause()
        tenant = "UPDATE tenants SET quotas = %s::jsonb WHERE name = 'lives-hours'"
        shared.sql(tenant, '{"sandbox_hours_per_day": 0}')
        with pytest.raises(ApiError) as refused:
            made.run("true")
        assert refused.value.status == 429
        assert "hours" in str(refused.value)
        assert made.refresh().state == "paused"
        with pytest.raises(ApiError, match="hours"):
            ours.sandboxes.create(size="nano")
        shared.sql(tenant, "{}")
        assert made.run("true").ok


def test_its_end_has_a_receipt(api: Client, shared: Deployment, tmp_path: Path) -> None:
    """Signed, and for its own tenant alone. Whatever is changed in it is found offline."""
    with api.sandboxes.create(size="nano", env={"A": "a-value-in-no-receipt"}) as made:
        made.run(["echo", "a-word-in-no-receipt"])
        made.files.write("a", b"12345")
        with pytest.raises(NotFound, match="no receipt"):
            api.sandboxes.receipt(made.id)
    text = api.sandboxes.receipt(made.id)
    keys = tuple(map(read_public_key, api.signing_keys().values()))
    body = verify(text, SANDBOX_KIND, keys)
    assert (body["sandbox"], body["reason"], body["records_lost"]) == (made.id, "killed", 0)
    assert body["isolation"]["no_new_privileges"] is True
    assert body["image_digest"].startswith("sha256:")
    counted = body["on_record"]
    assert (counted["processes_started"], counted["processes_ended"]) == (1, 1)
    assert (counted["files_written"], counted["bytes_written"]) == (1, 5)
    assert "in-no-receipt" not in text
    ends = [each for each in made.events() if each.is_end]
    assert ends[0].id == f"{body['audit_head']['seq']}-0"
    file, key = tmp_path / "receipt.json", tmp_path / "key.pem"
    key.write_text(next(iter(api.signing_keys().values())))
    for receipt, code in ((text, 0), (text.replace('"killed"', '"expired"'), 1)):
        file.write_text(receipt)
        said = CliRunner().invoke(app, ["receipt", "verify", str(file), "--key", str(key)])
        assert said.exit_code == code, said.output
    with pytest.raises(NotFound):
        shared.client("lives-other").sandboxes.receipt(made.id)


def test_what_it_uses_is_sampled(brief: Sandbox) -> None:
    """Processes and disk by what is there, in samples that follow each other."""
    brief.start(["sleep", "600"])
    before = brief.metrics()
    brief.files.write("kept", iter([bytes(2**20)] * 4))
    after = brief.metrics()
    assert after["processes"] == 1
    assert before["disk_bytes"] is not None
    assert after["disk_bytes"] is not None
    assert after["disk_bytes"] - before["disk_bytes"] >= 4 * 2**20
    series = eventually(lambda: (found := brief.metrics_series())[1:] and found)
    assert series[0]["at"] < series[1]["at"]
    assert series[-1]["disk_bytes"] == after["disk_bytes"]
    assert (series[-1]["processes"], series[-1]["egress_bytes_up"]) == (1, 0)


def test_what_it_may_reach_changes_while_it_lives(brief: Sandbox) -> None:
    """It can go from nothing to something and back. Log and events hold the old and new rules."""

    def fetch(host: str) -> str:
        """Return what the proxy answered: nothing if there is none."""
        asked = f"curl -s -o /dev/null -w '%{{http_connect}}' https://{host}.test/"
        return brief.run(asked).stdout.text

    def permitted(host: str) -> bool:
        """Return whether a rule permitted it; the name itself is not to be found."""
        *_, last = brief.events(follow=False)
        fetch(host)
        (decided,) = eventually(
            lambda: [
                each.data for each in brief.events(after=last.id, follow=False)
                if each.kind == "egress" and each.data["host"] == f"{host}.test"
            ]
        )  # fmt: skip
        return bool(decided["reason"] != "no_rule")

    assert fetch("first") == "000"
    changed = brief.update(egress=["first.test"])
    assert [rule["host"] for rule in changed.egress] == ["first.test"]
    assert (permitted("first"), permitted("second")) == (True, False)
    brief.update(egress=["second.test"])
    assert (permitted("first"), permitted("second")) == (False, True)
    brief.update(egress=[{"host": "third.test", "methods": ["GET"]}])
    system = "/etc/ssl/certs/ca-certificates.crt"
    trusted = brief.run(f"grep -c BEGIN $SSL_CERT_FILE; grep -c BEGIN {system}")
    ours, systems = map(int, trusted.stdout.text.split())
    assert ours == systems + 1
    brief.update(egress=[])
    assert fetch("second") == "000"
    changes = [each.data for each in brief.events(follow=False) if each.kind == "change"]
    assert changes[1]["egress_before"] == ["first.test"]
    assert changes[1]["egress"] == ["second.test"]
    with pytest.raises(Invalid, match="egress policy"):
        brief.update(egress_policy="nobodys")
    brief.pause()
    with pytest.raises(Conflict, match="while it runs"):
        brief.update(egress=["first.test"])
