"""The main job, through the public API, on real Docker, Redis and PostgreSQL."""

import json

import pytest

from agent_runner import Client, NotFound
from tests.support.deployment import Deployment


@pytest.fixture
def api(shared: Deployment) -> Client:
    """Return a client of a tenant."""
    return shared.client("main-job")


def test_python_code_runs_and_answers_with_its_output(api: Client) -> None:
    """`code` in Python runs in the workspace; the answer has output, usage and origins."""
    ended = api.run(
        code="import sys\nprint(6 * 7)\nprint('oops', file=sys.stderr)", language="python"
    )
    assert (ended.state, ended.reason, ended.exit_code) == ("succeeded", "completed", 0)
    assert ended.stdout is not None and ended.stdout.text == "42\n"
    assert ended.stderr is not None and ended.stderr.text == "oops\n"
    assert ended.usage["wall_s"] > 0
    assert ended.usage["cpu_s"] > 0
    assert ended.usage["memory_peak_bytes"] > 2**20
    assert ended.usage["pids_peak"] >= 2


@pytest.mark.parametrize(
    "code",
    [
        "print('quick')",
        "import os; os.write(1, b'no text: \\xff')",
        "open('left.txt', 'w').write('one')",
        "[open(name, 'w').write(name) for name in ('b', 'a', 'B')]",
        "import time; print('early', flush=True); time.sleep(0.3); print('late')",
        "print('x' * 20_000)",
        "raise SystemExit(3)",
    ],
    ids=["text", "bytes", "an artifact", "artifacts", "output in parts", "long output", "failure"],
)
def test_whoever_waits_is_told_what_others_read(api: Client, code: str) -> None:
    ended = api.run(code=code, language="python")
    assert ended == api.get(ended.id)


def test_bash_code_runs(api: Client) -> None:
    """`code` in bash runs by bash."""
    ended = api.run(code='echo "$BASH_VERSION" | head -c 1; exit 3', language="bash")
    assert (ended.state, ended.reason, ended.exit_code) == ("failed", "exit_nonzero", 3)
    assert ended.stdout is not None and ended.stdout.text == "5"


def test_a_command_gets_stdin_files_and_environment_and_no_shell(api: Client) -> None:
    """`command` is an argv, in which nothing is expanded."""
    ended = api.run(
        command=["python3", "-c", PROBE, "$HOME; *"],
        stdin=b"from stdin \xff",
        files={"in/a.txt": "text", "b.bin": b"\x00\xfe"},
        env={"GREETING": "hello"},
    )
    assert ended.state == "succeeded", ended.stderr
    assert ended.stdout is not None
    assert json.loads(ended.stdout.raw) == {
        "argument": "$HOME; *",
        "stdin": list(b"from stdin \xff"),
        "a": "text",
        "b": [0, 254],
        "greeting": "hello",
        "cwd": "/workspace",
    }


PROBE = """
import json, os, sys
print(json.dumps({
    "argument": sys.argv[1],
    "stdin": list(sys.stdin.buffer.read()),
    "a": open("in/a.txt").read(),
    "b": list(open("b.bin", "rb").read()),
    "greeting": os.environ["GREETING"],
    "cwd": os.getcwd(),
}))
"""


def test_artifacts_are_new_and_changed_files_only(api: Client) -> None:
    """A file that the program got and did not change is no artifact; a new or changed one is."""
    ended = api.run(
        code="open('out/x.bin', 'wb').write(bytes(range(256)) * 4096)\nopen('b', 'a').write('!')",
        language="python",
        files={"a": "same", "b": "before", "out/keep": ""},
    )
    assert {a.path: a.size for a in ended.artifacts} == {"b": 7, "out/x.bin": 256 * 4096}
    with api.download(ended.id, "out/x.bin") as chunks:
        assert b"".join(chunks) == bytes(range(256)) * 4096
    with pytest.raises(NotFound), api.download(ended.id, "a"):
        pass


def test_events_tell_the_whole_story_and_resume_anywhere(api: Client) -> None:
    """Events are numbered in order and without a gap; a reader that returns misses none."""
    submitted = api.submit(
        code="import time\nfor n in range(5):\n    print(n, flush=True)\n    time.sleep(0.1)",
        language="python",
    )
    live = list(api.events(submitted.id))
    assert [event.id for event in live] == list(range(1, len(live) + 1))
    states = [event.data["state"] for event in live if event.kind == "state"]
    assert states == ["queued", "starting", "running", "succeeded"]
    assert b"".join(event.raw for event in live if event.kind == "stdout") == b"0\n1\n2\n3\n4\n"
    for after in range(len(live) + 1):
        assert list(api.events(submitted.id, after=after)) == live[after:]


def test_output_arrives_while_the_program_runs(api: Client) -> None:
    """The first line arrives long before the program ends."""
    submitted = api.submit(
        code="import time\nprint('early', flush=True)\ntime.sleep(30)", language="python"
    )
    for event in api.events(submitted.id):
        if event.kind == "stdout":
            assert event.raw == b"early\n"
            break
    assert api.get(submitted.id).state == "running"
    api.cancel(submitted.id)
    assert api.wait(api.get(submitted.id)).state == "cancelled"


def test_the_same_idempotency_key_returns_the_same_execution(api: Client) -> None:
    """A repeated submission runs nothing twice."""
    first = api.submit(code="print(1)", language="python", idempotency_key="once")
    second = api.submit(code="print(1)", language="python", idempotency_key="once", wait_s=20)
    assert first.id == second.id
    assert second.state == "succeeded"


def test_the_audit_trail_names_every_step(api: Client) -> None:
    """Submission, start and end are there, with the actor of each, and the chain holds."""
    ended = api.run(code="pass", language="python")
    records = api.audit(resource_id=ended.id)["items"]
    assert [each["record"]["action"] for each in records] == [
        "execution:submit",
        "execution:start",
        "execution:end",
    ]
    assert records[0]["record"]["actor"].startswith("key:")
    assert records[2]["record"]["metadata"]["state"] == "succeeded"
    verdict = api.verify_audit()
    assert verdict["valid"], verdict


def test_pandas_and_matplotlib_are_in_the_default_image(api: Client) -> None:
    """It has what the data task of the demo needs."""
    ended = api.run(
        code="import pandas, matplotlib.pyplot as p\np.plot([1, 2])\np.savefig('c.png')\n"
        "print(pandas.DataFrame({'a': [1, 2]}).a.sum())",
        language="python",
    )
    assert ended.stdout is not None and ended.stdout.text == "3\n", ended
    assert [a.path for a in ended.artifacts] == ["c.png"]
