"""`runner agents claude`: the real command and package, against a queue that the test serves."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runner.words.principal import Role
from tests.support.claude_queue import ENVIRONMENT, KEY, Session, queue_of
from tests.support.deployment import Deployment, eventually

RUNNER = Path(sys.executable).with_name("runner")
WITHIN_S = 120.0


@contextmanager
def serving(
    made: Deployment, tenant: str, queue: str, *options: str, **environment: str
) -> Iterator["subprocess.Popen[str]"]:
    """Run the command until the end of the context. It is killed then: what it leaves goes, too."""
    with tempfile.TemporaryDirectory(prefix="runner-test-") as folder:
        process = subprocess.Popen(
            [RUNNER, "agents", "claude", ENVIRONMENT, "--idle-s", "0", "--size", "nano", *options],
            env={
                **os.environ, "RUNNER_URL": made.url, "RUNNER_API_KEY": made.key(tenant),
                "ANTHROPIC_BASE_URL": queue, "ANTHROPIC_ENVIRONMENT_KEY": KEY, "TMPDIR": folder,
                **environment,
            },
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def sandboxes(made: Deployment, tenant: str) -> list[tuple[str, str]]:
    """Return the state and image of each of a tenant's sandboxes, oldest first."""
    found, _ = made.client(tenant).sandboxes.list()
    return [(each.state, each.image) for each in reversed(found)]


CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("bash", {"command": "cd /tmp; X=42; pwd"}, "/tmp"),  # noqa: S108 - the sandbox's
    ("bash", {"command": "echo $X in $PWD"}, "42 in /tmp"),
    ("bash", {"restart": True}, "bash session restarted"),
    ("bash", {"command": "echo [$X]"}, "[]"),
    ("bash", {"command": "echo out; echo err >&2; false"}, "out\nerr"),
    ("bash", {"command": "sleep 60", "timeout_ms": 500},
     "bash: the command took more than 0.5 s and was ended"),
    ("write", {"file_path": "a/b.txt", "content": "one\ntwo\nthree\n"},
     "wrote 14 bytes to a/b.txt"),
    ("read", {"file_path": "a/b.txt"}, "one\ntwo\nthree\n"),
    ("read", {"file_path": "/workspace/a/b.txt", "view_range": [2, 3]}, "two\nthree\n"),
    ("edit", {"file_path": "a/b.txt", "old_string": "two", "new_string": "2"},
     "edited a/b.txt (1 replacement(s))"),
    ("edit", {"file_path": "a/b.txt", "old_string": "e", "new_string": "E"},
     "edit: old_string appears 3 times in a/b.txt"),
    ("edit", {"file_path": "a/b.txt", "old_string": "x", "new_string": "y"},
     "edit: old_string not found in a/b.txt"),
    ("glob", {"pattern": "**/*.txt"}, "/workspace/a/b.txt"),
    ("glob", {"pattern": "*.none"}, "no matches"),
    ("grep", {"pattern": r"^\d$"}, "/workspace/a/b.txt:2:2"),
    ("grep", {"pattern": "none"}, "no matches"),
    ("grep", {"pattern": "("}, "grep: grep: "),
    ("read", {"file_path": "none.txt"}, "read: none.txt: "),
]  # fmt: skip
FAILS = {4, 5, 10, 11, 16, 17}


def test_a_session_runs_its_tools_in_one_sandbox_of_its_own(shared: Deployment) -> None:
    """Each tool answers, in order; afterwards the sandbox is gone, and the work given back."""
    session = Session([(name, given) for name, given, _ in CALLS], ttl_s=60)
    with queue_of(session) as queue, serving(shared, "claude", queue):
        assert session.stopped.wait(WITHIN_S), session.answers
    for (name, given, expected), answer in zip(CALLS, session.answers, strict=True):
        if expected.endswith(": "):
            assert answer.startswith(expected), (name, given)
        else:
            assert answer.rstrip("\n") == expected.rstrip("\n"), (name, given)
    assert {n for n, each in enumerate(session.results) if each["is_error"]} == FAILS
    assert sandboxes(shared, "claude") == [("ended", "python")]


def test_what_is_missing_of_an_answer_is_said(shared: Deployment) -> None:
    """And no answer takes more memory than the limits of its tool."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("bash", {"command": "yes long | head -c 200000 > long; mkdir many; cd many;"
                             "touch {1..201}.txt"}),
        ("read", {"file_path": "long", "view_range": [1, -1]}),
        ("glob", {"pattern": "many/*.txt"}),
        ("edit", {"file_path": "long", "old_string": "l", "new_string": "l" * 200_000,
                  "replace_all": True}),
    ]  # fmt: skip
    session = Session(calls, ttl_s=60)
    with queue_of(session) as queue, serving(shared, "claude-missing", queue):
        assert session.stopped.wait(WITHIN_S), session.answers
    _, read, glob, edit = session.answers
    assert read.endswith("[output truncated at 100 KiB]")
    assert glob.endswith("[the newest 200 of 201 files]")
    assert edit == "edit: long would be above 262144 bytes"


def test_a_picture_is_shown_as_one(shared: Deployment) -> None:
    draw = "import matplotlib.pyplot as p; p.plot([1]); p.savefig('/workspace/x.png')"
    calls = [("bash", {"command": f'python3 -c "{draw}"'}), ("read", {"file_path": "x.png"})]
    session = Session(calls, ttl_s=60)
    with queue_of(session) as queue, serving(shared, "claude-picture", queue, "--size", "small"):
        assert session.stopped.wait(WITHIN_S), session.answers
    (shown,) = session.results[1]["content"]
    assert (shown["type"], shown["source"]["media_type"]) == ("image", "image/png")


def test_a_lease_is_kept_while_a_tool_runs(shared: Deployment) -> None:
    """The call takes longer than the lease, which is 4 seconds."""
    session = Session([("bash", {"command": "sleep 8; echo done"})], ttl_s=4)
    with queue_of(session) as queue, serving(shared, "claude-lease", queue):
        assert session.stopped.wait(WITHIN_S), session.answers
    assert session.answers == ["done"]
    assert len(session.workers) == 1


def test_the_work_of_a_killed_runner_is_done_by_another(shared: Deployment) -> None:
    """It begins in a fresh sandbox; that of the killed one is still there, and ends by itself."""
    calls = [("bash", {"command": "echo 1"}), ("bash", {"command": "sleep 5; ls; echo 2"})]
    session = Session(calls, ttl_s=4)
    with queue_of(session) as queue:
        with serving(shared, "claude-killed", queue, "--unused-s", "60") as first:
            eventually(lambda: len(session.results) == 1, within_s=WITHIN_S)
            first.kill()
        with serving(shared, "claude-killed", queue):
            assert session.stopped.wait(WITHIN_S), session.answers
    assert session.answers == ["1", "2"]
    assert len(set(session.workers)) == 2
    assert sandboxes(shared, "claude-killed") == [("running", "python"), ("ended", "python")]


def test_a_runner_that_is_told_to_stop_gives_back_its_work(shared: Deployment) -> None:
    session = Session([("bash", {"command": "echo 1"}), ("bash", {"command": "sleep 2"})], ttl_s=60)
    with queue_of(session) as queue, serving(shared, "claude-stopped", queue) as process:
        eventually(lambda: len(session.results) == 1, within_s=WITHIN_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=WITHIN_S) == 0
        assert session.stopped.is_set()
    assert sandboxes(shared, "claude-stopped") == [("ended", "python")]


def test_several_sessions_are_served_at_once(shared: Deployment) -> None:
    calls = [("bash", {"command": "sleep 3; hostname"})]
    both = [Session(calls, ttl_s=60, id=f"session_{n}") for n in range(2)]
    with queue_of(*both) as queue, serving(shared, "claude-two", queue, "--at-once", "2"):
        eventually(lambda: {each.state for each in both} == {"active"}, within_s=WITHIN_S)
        assert all(each.stopped.wait(WITHIN_S) for each in both)
    assert [state for state, _ in sandboxes(shared, "claude-two")] == ["ended", "ended"]


def test_a_session_with_memory_is_given_up(shared: Deployment) -> None:
    """It would else run without what it remembers, and lose what it writes."""
    store = {
        "type": "memory_store", "memory_store_id": "memstore_1", "access": "read_write",
        "mount_path": "/mnt/memory",
    }  # fmt: skip
    session = Session([("bash", {"command": "echo 1"})], ttl_s=60, resources=[store])
    with queue_of(session) as queue, serving(shared, "claude-memory", queue) as process:
        assert session.stopped.wait(WITHIN_S)
        process.terminate()
        said, _ = process.communicate(timeout=WITHIN_S)
    assert "memory stores are not supported" in said
    assert session.results == []


def test_no_secret_of_the_runner_is_in_the_sandbox(shared: Deployment) -> None:
    """The control: the same search finds a word that is there."""
    search = "grep -alE '{}' /proc/*/environ /proc/*/cmdline 2>/dev/null | wc -l"
    # In brackets, so that the search does not find its own words.
    secrets = "[s]k-ant|[r]k_|[a]-token-of"
    calls = [("bash", {"command": search.format(each)}) for each in (secrets, "[H]OME=")]
    session = Session(calls, ttl_s=60)
    with queue_of(session) as queue, serving(shared, "claude-secrets", queue):
        assert session.stopped.wait(WITHIN_S), session.answers
    assert session.answers[0] == "0"
    assert int(session.answers[1]) > 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ANTHROPIC_ENVIRONMENT_KEY": "wrong"}, "Anthropic refuses work of env_test"),
        ({"RUNNER_API_KEY": "rk_wrong"}, "a valid API key is needed"),
    ],
    ids=["anthropic's", "ours"],
)
def test_a_wrong_key_fails_at_the_start(
    shared: Deployment, wrong: dict[str, str], says: str
) -> None:
    with queue_of() as queue, serving(shared, "claude-wrong", queue, **wrong) as process:
        said, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode in {1, 78}
    assert says in said
    assert "Traceback" not in said


def test_a_viewer_cannot_make_sandboxes(shared: Deployment) -> None:
    """The agent is told why."""
    session = Session([("bash", {"command": "echo 1"})], ttl_s=60)
    key = {"RUNNER_API_KEY": shared.key("claude-viewer", Role.VIEWER)}
    with queue_of(session) as queue, serving(shared, "claude-viewer", queue, **key):
        assert session.stopped.wait(WITHIN_S)
    assert session.answers == ["sandbox: the role viewer lacks the permission sandbox:create"]
