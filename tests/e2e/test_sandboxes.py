"""Sandboxes that live, through the real API, node and supervisor."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from agent_runner import ApiError, Client, Conflict, Gone, Invalid, NotFound, Sandbox
from tests.support.deployment import Deployment, eventually

MIB = 2**20


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("living")


@pytest.fixture(scope="module")
def http(shared: Deployment) -> httpx.Client:
    """Return a plain connection of the same tenant."""
    return shared.http("living")


@pytest.fixture(scope="module")
def sandbox(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox for tests that leave it well."""
    with api.sandboxes.create(size="small", timeout_s=None) as made:
        yield made


@pytest.fixture
def brief(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox of this test's own."""
    with api.sandboxes.create(size="nano") as made:
        yield made


def test_a_sandbox_keeps_its_files_between_its_processes(api: Client, shared: Deployment) -> None:
    """It takes commands when its making is answered, and is gone when it is killed."""
    with api.sandboxes.create(size="nano", metadata={"agent": "a"}, env={"GREETING": "hi"}) as made:
        assert made.info.state == "running"
        assert made.info.started_at is not None
        assert made.run("echo $GREETING | tee kept").stdout.text == "hi\n"
        assert made.run(["cat", "kept"]).stdout.text == "hi\n"
        ran = made.run(language="python", code="import sys; sys.exit(int('3'))")
        assert (ran.exit_code, ran.signal) == (3, None)
        listed, _ = api.sandboxes.list(state=["running"], metadata={"agent": "a"})
        assert [each.id for each in listed] == [made.id]
    ended = api.sandboxes.get(made.id).info
    assert (ended.state, ended.reason) == ("ended", "killed")
    with pytest.raises(Gone) as refused:
        made.run("true")
    assert refused.value.reason == "killed"
    made.kill()
    # Docker removes the container after the kill is answered.
    eventually(lambda: not any(made.id in str(each) for each in shared.containers()))


def test_what_a_process_writes_is_told_apart_and_counted(sandbox: Sandbox) -> None:
    ran = sandbox.run("printf out; printf err >&2; printf '\\377'", output_kb=1)
    assert (ran.stdout.raw, ran.stderr.raw) == (b"out\xff", b"err")
    long = sandbox.run("head -c 5000 /dev/zero", output_kb=1)
    assert (len(long.stdout.raw), long.stdout.total_bytes) == (1024, 5000)
    assert (long.stdout.omitted_bytes, long.stdout.omitted_at) == (3976, 1024)


def test_a_process_that_takes_longer_than_the_answer_goes_on(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    """The answer and the bytes that follow it are the whole, without a byte twice."""
    script = "echo 1; echo 2; while [ ! -e go-on ]; do sleep 0.05; done; echo 3; echo 4"
    body = {"command": script, "wait_s": 0.5}
    answer = http.post(f"/v1/sandboxes/{sandbox.id}/processes", json=body)
    assert answer.status_code == 201, answer.text
    begun = answer.json()
    assert answer.headers["location"].endswith(f"/processes/{begun['process']}")
    assert begun["state"] == "running"
    process = sandbox.process(begun["process"])
    sandbox.files.write("go-on", "")
    rest = b"".join(each.raw for each in process.output(offset=begun["next_offset"]))
    assert begun["stdout"]["content"].encode() + rest == b"1\n2\n3\n4\n"
    assert process.wait().exit_code == 0


def test_a_command_has_ended_when_its_own_process_has(sandbox: Sandbox) -> None:
    """Not when those have that it leaves running, which hold its outputs open."""
    began = time.monotonic()
    ran = sandbox.run("sleep 601 & echo $!")
    assert time.monotonic() - began < 30
    assert sandbox.run(["kill", ran.stdout.text.strip()]).ok


def test_many_commands_run_at_once(shared: Deployment, sandbox: Sandbox) -> None:
    """Each gets what it wrote itself."""

    def run(number: int) -> str:
        with Client(shared.url, key) as own:
            return own.sandboxes.get(sandbox.id).run(["echo", str(number)]).stdout.text

    key = shared.key("living")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(40))) == [f"{number}\n" for number in range(40)]


def test_output_is_followed_from_any_byte(sandbox: Sandbox, http: httpx.Client) -> None:
    """By offset, and by the id of the last event that a client has."""
    process = sandbox.start("printf abc; read go; printf def >&2", keep_stdin_open=True)
    following = process.output()
    events = [next(following)]
    process.write(b"go\n")
    events += following
    assert [(each.kind, each.raw) for each in events[:-1]] == [
        ("stdout", b"abc"),
        ("stderr", b"def"),
    ]
    assert (events[-1].kind, events[-1].exit_code, events[-1].next_offset) == ("ended", 0, 6)
    path = f"/v1/sandboxes/{sandbox.id}/processes/{process.number}/output"
    assert contents(http.get(path, params={"offset": 2})) == ["c", "def"]
    assert contents(http.get(path, headers={"Last-Event-ID": "4"})) == ["ef"]
    assert contents(http.get(path, params={"offset": 6})) == []


def contents(answer: httpx.Response) -> list[str]:
    """Return the output that an event stream holds."""
    assert answer.status_code == 200, answer.text
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if "data: " in line]
    return [each["content"] for each in map(json.loads, data) if "content" in each]


def test_output_that_is_kept_no_more_is_told(sandbox: Sandbox) -> None:
    process = sandbox.start("head -c 300000 /dev/zero; echo end", keep_kb=16)
    process.wait()
    gap, *rest = process.output(offset=0)
    written = b"".join(each.raw for each in rest)
    assert gap.kind == "gap"
    assert gap.omitted_bytes + len(written) == 300_004
    assert written.endswith(b"\0end\n")


def test_a_process_is_fed_while_it_runs(sandbox: Sandbox) -> None:
    process = sandbox.start(["cat"], keep_stdin_open=True, stdin="one ")
    process.write(b"two ")
    process.write(iter([b"thr", b"ee"]))
    process.close_stdin()
    assert process.wait().exit_code == 0
    assert b"".join(each.raw for each in process.output(offset=0)) == b"one two three"


def test_a_large_input_comes_back_whole(sandbox: Sandbox) -> None:
    """More than pipes and windows hold, in both directions at once."""
    data = bytes(range(256)) * 4096
    ran = sandbox.run(["cat"], stdin=data, output_kb=1024)
    assert ran.stdout.raw == data


def test_a_process_is_signalled_and_killed_with_its_group(sandbox: Sandbox) -> None:
    process = sandbox.start(
        ["sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"]
    )
    eventually(lambda: process.refresh().output_bytes)
    process.signal("SIGINT")
    assert process.wait().exit_code == 5
    group = sandbox.start("sleep 1234 & sleep 1234")
    group.signal(9)
    assert group.wait().signal == "SIGKILL"
    # All are sent the signal at once; the kernel may need a moment more to end the last of them.
    listed = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    eventually(lambda: "sleep 1234" not in sandbox.run(listed).stdout.text)
    gone = sandbox.start(["sleep", "600"])
    gone.kill()
    with pytest.raises(NotFound, match="process"):
        gone.refresh()


def test_a_process_ends_when_its_own_time_is_up(sandbox: Sandbox) -> None:
    ran = sandbox.run("sleep 60", timeout_s=0.3)
    assert (ran.exit_code, ran.signal, ran.timed_out) == (None, "SIGKILL", True)


def test_a_terminal_is_one(sandbox: Sandbox) -> None:
    process = sandbox.start(
        "tty; stty size; read line; stty size", terminal={"rows": 24, "columns": 80}
    )
    process.resize(50, 132)
    process.write(b"\n")
    process.wait()
    text = b"".join(each.raw for each in process.output(offset=0)).decode()
    assert "/dev/pts/" in text
    assert "50 132" in text


def test_processes_are_listed_with_what_became_of_them(brief: Sandbox) -> None:
    brief.run("exit 3", tag="first")
    running = brief.start(["sleep", "600"], tag="second")
    first, second = brief.processes()
    assert (first.tag, first.state, first.exit_code) == ("first", "ended", 3)
    assert (second.tag, second.state, second.process) == ("second", "running", running.number)
    assert second.command == ("sleep", "600")


def test_a_program_that_is_not_there_is_told(sandbox: Sandbox) -> None:
    with pytest.raises(NotFound) as refused:
        sandbox.run(["no-such-program"])
    assert refused.value.reason == "ENOENT"


def test_a_file_goes_in_and_comes_out_by_any_way(sandbox: Sandbox, http: httpx.Client) -> None:
    """Declared or in chunks, whole or a range of it."""
    data = bytes(range(256)) * 20_000
    sandbox.files.write("folder/large", data)
    assert sandbox.files.read("folder/large") == data
    pieces = (data[at : at + 100_000] for at in range(0, len(data), 100_000))
    written = sandbox.files.write("/workspace/folder/chunked", pieces, mode=0o755)
    assert (written.size, written.mode, written.kind) == (len(data), "0755", "file")
    path = f"/v1/sandboxes/{sandbox.id}/files/content"
    asked = {"path": "folder/chunked"}
    for header, expected in (
        ("bytes=1-3", data[1:4]), ("bytes=-5", data[-5:]), ("bytes=5119990-", data[5_119_990:]),
    ):  # fmt: skip
        answer = http.get(path, params=asked, headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, expected)
    answer = http.get(path, params=asked, headers={"Range": "bytes=9999999-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(data)}")
    answer = http.get(path, params=asked)
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''chunked"
    assert answer.headers["content-type"] == "application/octet-stream"


def test_folders_are_made_listed_moved_and_removed(brief: Sandbox) -> None:
    files = brief.files
    files.make_folder("a/b")
    files.write("a/b/c", "text")
    listed, more = files.list("a", depth=2)
    assert ([(each.path, each.kind) for each in listed], more) == (
        [("/workspace/a/b", "folder"), ("/workspace/a/b/c", "file")], False,
    )  # fmt: skip
    assert files.list("a", depth=2, limit=1)[1]
    files.write("d", "other")
    with pytest.raises(Conflict) as refused:
        files.move("a/b/c", "d")
    assert refused.value.reason == "EEXIST"
    files.move("a/b/c", "d", replace=True)
    assert files.read("d") == b"text"
    with pytest.raises(Conflict) as refused:
        files.remove("a")
    assert refused.value.reason == "ENOTEMPTY"
    files.remove("a", recursive=True)
    assert (files.exists("a"), files.exists("d")) == (False, True)
    with pytest.raises(NotFound) as missing:
        files.read("a")
    assert missing.value.reason == "ENOENT"


def test_an_upload_that_breaks_off_leaves_the_file_as_it_was(
    brief: Sandbox, http: httpx.Client
) -> None:
    brief.files.write("kept", "before")

    def breaks() -> Iterator[bytes]:
        yield b"x" * MIB
        raise OSError("the client's own")

    with pytest.raises(OSError, match="own"):
        http.put(
            f"/v1/sandboxes/{brief.id}/files/content", params={"path": "kept"}, content=breaks()
        )
    eventually(lambda: [each.path for each in brief.files.list()[0]] == ["/workspace/kept"])
    assert brief.files.read("kept") == b"before"


def test_a_full_disk_is_told(brief: Sandbox) -> None:
    """One file is above what the disk holds; two together are."""
    disk = int(brief.info.limits["disk_mb"])
    with pytest.raises(ApiError) as large:
        brief.files.write("large", iter([b"x" * MIB] * (disk + 1)))
    assert (large.value.status, large.value.reason) == (507, "ENOSPC")
    size = disk * 2 // 3
    brief.files.write("first", iter([b"x" * MIB] * size))
    with pytest.raises(ApiError) as full:
        brief.files.write("second", iter([b"x" * MIB] * size))
    assert (full.value.status, full.value.reason) == (507, "ENOSPC")
    assert (brief.files.exists("large"), brief.files.exists("second")) == (False, False)


def test_a_watch_tells_what_happens(brief: Sandbox) -> None:
    """From when it is made on, until it is closed."""
    with brief.files.watch() as watch:
        brief.files.write("new", "x")
        told = (change["path"] for changes in watch for change in changes.changes)
        assert next(path for path in told if path.endswith("/new"))
    with pytest.raises(StopIteration):
        next(watch)


def test_its_time_is_set_again_and_ends_it(api: Client) -> None:
    with api.sandboxes.create(size="nano", timeout_s=600) as made:
        before = made.info.expires_at
        changed = made.update(metadata={"step": "2"})
        assert (changed.metadata, changed.expires_at) == ({"step": "2"}, before)
        assert made.update(timeout_s=None).expires_at is None
        made.update(timeout_s=1)
        eventually(lambda: made.refresh().ended)
        assert made.info.reason == "expired"


COUNTING = """
import time
while True:
    print(".", flush=True)
    time.sleep(0.02)
"""


def test_a_paused_sandbox_waits(brief: Sandbox) -> None:
    # Without forks: Docker may fail to freeze, on control groups v1, what forks all the time.
    counting = brief.start(language="python", code=COUNTING)
    eventually(lambda: counting.refresh().output_bytes)
    assert brief.pause().state == "paused"
    with pytest.raises(Conflict, match="paused"):
        brief.processes()
    assert brief.resume().state == "running"
    before = counting.refresh().output_bytes
    eventually(lambda: counting.refresh().output_bytes > before)
    assert brief.pause().state == "paused"
    brief.kill()
    assert brief.refresh().reason == "killed"


def test_what_it_uses_is_measured(sandbox: Sandbox) -> None:
    before = sandbox.metrics()
    sandbox.run(language="python", code="sum(range(5_000_000))")
    after = sandbox.metrics()
    assert before["cpu_s"] is not None
    assert after["cpu_s"] is not None
    assert after["cpu_s"] > before["cpu_s"]
    assert after["memory_bytes"]


def test_one_idempotency_key_makes_one_sandbox(api: Client) -> None:
    made = [api.sandboxes.create(size="nano", idempotency_key="living-once") for _ in range(2)]
    assert made[0].id == made[1].id
    with pytest.raises(Conflict):
        api.sandboxes.create(size="nano", env={"A": "b"}, idempotency_key="living-once")
    made[0].kill()


def test_a_secret_is_masked_in_output(api: Client) -> None:
    api.put_secret("living-token", "a-value-to-be-masked")
    with api.sandboxes.create(size="nano", secret_env={"TOKEN": "living-token"}) as made:
        ran = made.run("printf %s $TOKEN; printf %s $TOKEN | wc -c >&2")
        assert "a-value-to-be-masked" not in ran.stdout.text
        assert ran.stderr.text.strip() == "20"


def test_who_leaves_lets_the_process_go_on(brief: Sandbox, http: httpx.Client) -> None:
    process = brief.start("for n in $(seq 40); do echo $n; sleep 0.05; done")
    path = f"/v1/sandboxes/{brief.id}/processes/{process.number}/output"
    with http.stream("GET", path) as answer:
        next(answer.iter_bytes())
    process.wait()
    written = b"".join(each.raw for each in process.output(offset=0))
    assert written.splitlines() == [b"%d" % n for n in range(1, 41)]


def test_who_follows_a_sandbox_that_is_killed_is_told_why(brief: Sandbox) -> None:
    process = brief.start(language="python", code=COUNTING)
    events = process.output()
    next(events)
    brief.kill()
    with pytest.raises(Gone) as over:
        list(events)
    assert over.value.reason == "killed"


WRONG: dict[str, tuple[str, Any, str]] = {
    "neither command nor code": ("", {}, "body"),
    "both": ("", {"command": ["a"], "code": "1", "language": "bash"}, "body"),
    "a signal that is none": ("/1/signal", {"signal": "SIGNOTHING"}, "body.signal"),
    "a terminal without a side": ("", {"command": ["a"], "terminal": {"rows": 1}}, "body.terminal"),
    "too long a wait": ("", {"command": ["a"], "wait_s": 301}, "body.wait_s"),
    "NUL in an argument": ("", {"command": ["a\0"]}, "body.command"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_request_that_is_wrong_is_told_so(
    name: str, sandbox: Sandbox, http: httpx.Client
) -> None:
    below, body, field = WRONG[name]
    answer = http.post(f"/v1/sandboxes/{sandbox.id}/processes{below}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"].startswith(field)


def test_a_sandbox_that_cannot_be_is_refused(api: Client) -> None:
    """The refusal names the field, as that of an execution does."""
    for options, field in (
        ({"image": "windows"}, "body.image"),
        ({"size": "gigantic"}, "body.size"),
        ({"limits": {"memory_mb": 262_144}}, "body.limits.memory_mb"),
        ({"project": "nobodys"}, "body.project"),
        ({"env": {"A": "b"}, "secret_env": {"A": "b"}}, "body"),
    ):
        with pytest.raises(Invalid) as refused:
            api.sandboxes.create(**options)
        assert refused.value.errors[0]["field"] == field


def test_its_life_is_on_record(api: Client) -> None:
    """The maker is on record, each process by name and number of arguments, and the end."""
    with api.sandboxes.create(size="nano") as made:
        made.run(["echo", "a-word-nobody-records"])

    def records() -> str:
        return json.dumps(api.audit(resource_id=made.id, limit=100)["items"])

    eventually(lambda: "sandbox:end" in records())
    said = records()
    assert "sandbox:create" in said
    assert "a-word-nobody-records" not in said
