"""Files into and out of executions, by the SDK and the command line, through the whole stack."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_runner import Conflict, Invalid, NotFound, NotPermitted
from runner.words.principal import Role
from tests.support.deployment import Deployment, bearing, deployment, eventually

COPY = ["sh", "-c", "cat in.csv > out.csv; printf more > more.txt"]


def test_an_execution_takes_a_file_and_leaves_others(shared: Deployment) -> None:
    """Files come in by key and go out by prefix; the second execution takes the first one's."""
    client = shared.client("e2e-files")
    stored = client.files.put("data/in.csv", b"a,b\n", media_type="text/csv")
    ran = client.run(
        command=COPY, files={"in.csv": stored}, size="nano", artifacts_to="runs/{execution_id}/"
    )
    assert (ran.state, ran.artifacts_refused) == ("succeeded", ())
    left = [each.path for each in client.files.list("runs/")]
    assert left == [f"runs/{ran.id}/more.txt", f"runs/{ran.id}/out.csv"]
    assert client.files.read(left[1]) == b"a,b\n"
    again = client.run(
        command=["cat", "x"], size="nano",
        files={"x": next(client.files.list(left[0]))},
    )  # fmt: skip
    assert again.stdout is not None
    assert again.stdout.text == "more"
    # The artifacts are unchanged; both names have the same bytes.
    with client.download(ran.id, "out.csv") as pieces:
        assert b"".join(pieces) == b"a,b\n"
    client.files.delete(left[1])
    with client.download(ran.id, "out.csv") as pieces:
        assert b"".join(pieces) == b"a,b\n"


def test_an_execution_names_its_artifacts(shared: Deployment) -> None:
    """Only those are kept, and the result says which name has no file."""
    client = shared.client("e2e-named")
    ran = client.run(
        command=["sh", "-c", "mkdir out; for f in result.csv out/a.png log; do echo > $f; done"],
        size="nano",
        artifacts=["result.csv", "out/**", "missing.json"],
    )
    assert sorted(each.path for each in ran.artifacts) == ["out/a.png", "result.csv"]
    assert ran.artifacts_refused == ("missing.json: not_found",)
    for wrong in (["/etc/passwd"], ["../x"], [""], ["x"] * 65):
        with pytest.raises(Invalid, match="artifacts"):
            client.submit(command=["true"], size="nano", artifacts=wrong)


def test_a_large_file_goes_in_and_comes_out(shared: Deployment) -> None:
    """It is too large for a submission, so it is streamed all the way."""
    client = shared.client("e2e-large")
    content = bytes(range(256)) * 4096 * 24
    stored = client.files.put("large", content)
    ran = client.run(
        command=["sh", "-c", "sha256sum < in; cp in out"], files={"in": stored}, size="small",
        artifacts_to="back/",
    )  # fmt: skip
    assert ran.state == "succeeded", ran
    assert ran.stdout is not None
    assert ran.stdout.text.split()[0] == stored.sha256
    assert client.files.read("back/out") == content


def test_an_execution_gets_what_was_there_when_it_was_submitted(own: Deployment) -> None:
    """The file is overwritten and deleted while the execution waits for the stopped worker."""
    client = own.client("e2e-then")
    stored = client.files.put("in", b"then")
    own.portal.call(own.worker.stop)
    waiting = client.submit(command=["cat", "in"], files={"in": stored}, size="nano")
    client.files.put("in", b"now")
    client.files.delete("in")
    own.restart_worker()
    ended = client.wait(waiting)
    assert ended.stdout is not None
    assert ended.stdout.text == "then"


def test_what_is_not_there_is_refused_by_its_field(shared: Deployment) -> None:
    """The refusal comes at submission, not after a wait."""
    client = shared.client("e2e-none")
    client.files.put("there", b"x")
    with pytest.raises(Invalid) as refused:
        client.submit(command=["true"], files={"in": {"key": "missing"}})
    assert refused.value.errors[0]["field"] == "body.files.in.key"
    too_large = client.files.put("large", bytes(40 * 2**20))
    with pytest.raises(Invalid, match="do not fit"):
        client.submit(command=["true"], files={"in": too_large}, size="nano")


def test_a_key_without_the_permission_gets_no_files_that_way(shared: Deployment) -> None:
    """The key needs permission for everything that the body asks for, and the refusal says so."""
    owner = shared.http("e2e-limited")
    owner.put("/v1/files/in", content=b"x")
    made = owner.post(
        "/v1/keys",
        json={"name": "runs", "role": "developer", "permissions": ["execution:create"]},
    ).json()
    with bearing(shared.url, made["token"]) as limited:
        plain = {"command": ["true"]}
        assert limited.post("/v1/executions", json=plain).status_code == 202
        for more in ({"files": {"in": {"key": "in"}}}, {"artifacts_to": "out/"}):
            assert limited.post("/v1/executions", json={**plain, **more}).status_code == 403


def test_artifacts_beyond_the_quota_are_refused_by_name(shared: Deployment) -> None:
    """The execution succeeds, and the result says which artifacts were not kept, and why."""
    client = shared.client("e2e-full")
    client.files.put("a", b"x" * 900)
    shared.sql("UPDATE tenants SET quotas = '{\"storage_bytes\": 1000}' WHERE name = 'e2e-full'")
    ran = client.run(
        command=["sh", "-c", "head -c 50 /dev/zero > a; head -c 500 /dev/zero > b"], size="nano"
    )
    assert ran.state == "succeeded"
    assert [each.path for each in ran.artifacts] == ["a"]
    assert len(ran.artifacts_refused) == 1
    assert "b: storage_bytes is 1000: 900 are used" in ran.artifacts_refused[0]


def test_an_artifact_whose_name_no_file_may_have_stays_an_artifact(shared: Deployment) -> None:
    """Its own name is short enough, but not with the prefix below which it would be stored."""
    client = shared.client("e2e-names")
    long, below = "/".join(["d" * 200] * 5), "r" * 100
    ran = client.run(
        command=["sh", "-c", 'mkdir -p "${0%/*}" && echo 1 > "$0" && echo 2 > ok', long],
        size="nano",
        artifacts_to=f"{below}/",
    )
    assert sorted(each.path for each in ran.artifacts) == [long, "ok"]
    assert [each.path for each in client.files.list()] == [f"{below}/ok"]
    assert "no file" in ran.artifacts_refused[0]


def test_the_worker_removes_what_is_needed_no_more(image: None) -> None:
    """The running worker's job removes expired executions."""
    with deployment(retention_every_s=0.5, retention_days=7) as own:
        client = own.client("e2e-old")
        ran = client.run(command=["sh", "-c", "echo 1 > a"], size="nano")
        kept = client.run(command=["sh", "-c", "echo 1 > a"], size="nano")
        own.sql(
            "UPDATE executions SET ended_at = now() - interval '8 days' WHERE execution_id = %s",
            ran.id,
        )
        eventually(lambda: [each.id for each in client.list()[0]] == [kept.id])
        with pytest.raises(NotFound):
            client.artifacts(ran.id)
        actions = [each["record"]["action"] for each in client.audit()["items"]]
        assert "retention:remove" in actions
        own.sql("UPDATE objects SET since = now() - interval '1 h' WHERE state = 'doomed'")
        folder = own.stack.settings.objects_dir
        eventually(lambda: len([path for path in folder.rglob("*") if path.is_file()]) == 1)


def test_the_command_line(shared: Deployment, tmp_path: Path) -> None:
    """Put, list, get and delete, also with standard streams."""
    key = shared.key("e2e-cli")

    def runner(*arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-m", "runner", "files", *arguments],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
            env={"RUNNER_URL": shared.url, "RUNNER_API_KEY": key, "PATH": "/usr/bin:/bin"},
        )

    source = tmp_path / "in.csv"
    source.write_bytes(b"a,b\n")
    assert runner("put", str(source), "data/in.csv").returncode == 0
    assert runner("put", "-", "from-stdin", stdin=b"piped").returncode == 0
    again = runner("put", str(source), "data/in.csv", "--only-new")
    assert again.returncode != 0
    listed = runner("list").stdout.decode()
    assert "data/in.csv" in listed
    assert "from-stdin" in listed
    assert runner("get", "from-stdin").stdout == b"piped"
    target = tmp_path / "out"
    assert runner("get", "data/in.csv", str(target)).returncode == 0
    assert target.read_bytes() == b"a,b\n"
    assert runner("delete", "data/in.csv").returncode == 0
    gone = runner("get", "data/in.csv")
    assert gone.returncode != 0
    assert b"no such file" in gone.stderr


def test_the_sdk_says_what_was_refused(shared: Deployment) -> None:
    """Each refusal has an error class of its own."""
    client = shared.client("e2e-sdk")
    first = client.files.put("a", b"1", only_new=True)
    with pytest.raises(Conflict):
        client.files.put("a", b"2", only_new=True)
    client.files.put("a", b"2", if_match=first.etag)
    with pytest.raises(Conflict):
        client.files.put("a", b"3", if_match=first.etag)
    with pytest.raises(Invalid):
        client.files.put("../a", b"")
    with pytest.raises(NotFound):
        client.files.read("none")
    with pytest.raises(NotPermitted):
        shared.client("e2e-sdk", Role.VIEWER).files.put("a", b"")
