"""The command line, as somebody types it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import docker
import pytest

from runner.base.settings import Settings
from tests.support.deployment import Deployment, eventually, fork_server, state_folder

RUNNER = [sys.executable, "-m", "runner"]


def runner(
    *arguments: str, env: Mapping[str, str], stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, forked from a process that has imported what commands do.

    Its width is that of a pipe, 80 columns. Tests that signal a command start it as a shell does.
    """
    whole = {**os.environ, **env}
    return fork_server().run(*arguments, env=whole, stdin=stdin or "", timeout=120)


@pytest.fixture(scope="module")
def env(shared: Deployment) -> Mapping[str, str]:
    """Return the variables that name a deployment."""
    return {"RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("typist")}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a state folder."""
    with state_folder() as made:
        yield made


def test_run_streams_output_and_exits_as_the_program(
    env: Mapping[str, str], tmp_path: Path
) -> None:
    """stdout, stderr, exit code and artifacts are the same as without a sandbox."""
    program = tmp_path / "hello.py"
    program.write_text(
        "import sys\nprint(open('in.txt').read())\nprint('warn', file=sys.stderr)\n"
        "open('out.txt', 'w').write('made')\nsys.exit(4)"
    )
    (tmp_path / "in.txt").write_text("given")
    ran = runner("run", str(program), "-f", str(tmp_path / "in.txt"), "--out",
                 str(tmp_path / "saved"), env=env)  # fmt: skip
    assert (ran.returncode, ran.stdout) == (4, "given\n"), ran.stderr
    assert ran.stderr.startswith("warn\n")
    assert (tmp_path / "saved" / "out.txt").read_text() == "made"


def test_a_program_gets_arguments_input_and_variables_as_here(
    env: Mapping[str, str], tmp_path: Path
) -> None:
    """Words behind the program are the program's, even if they look like an option or a `--`."""
    program = tmp_path / "tell.py"
    program.write_text(
        "import os, sys\nprint(sys.argv, repr(sys.stdin.read()), os.environ['GREETING'])"
    )
    ran = runner("run", "-e", "GREETING=hi=there", str(program), "one", "--", "--two",
                 env=env, stdin="from a pipe")  # fmt: skip
    assert ran.stdout == "['tell.py', 'one', '--', '--two'] 'from a pipe' hi=there\n", ran.stderr
    dashed = runner("run", "-e", "GREETING=", str(program), "--", "--two", env=env)
    assert dashed.stdout == "['tell.py', '--two'] '' \n", dashed.stderr
    without = runner("run", "-n", "-e", "GREETING=", str(program), env=env, stdin="from a pipe")
    assert without.stdout == "['main.py'] '' \n", without.stderr


def test_image_and_isolation_are_asked_for_and_a_refusal_says_field_and_reason(
    env: Mapping[str, str], tmp_path: Path
) -> None:
    """Each refusal is one line."""
    program = tmp_path / "hello.py"
    program.write_text("print(6 * 7)")
    ran = runner("run", "--image", "python", "--isolation", "container", str(program), env=env)
    assert (ran.returncode, ran.stdout) == (0, "42\n"), ran.stderr
    for words, said in (
        (["--image", "nope"], "image: there is no image 'nope'"),
        (["--timeout-s", "-3"], "limits.timeout_s: Input should be greater than or equal to 0.1"),
        (["-e", "1=x"], "env.1"),
    ):
        refused = runner("run", *words, str(program), env=env)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr


def test_the_result_is_json_on_request(env: Mapping[str, str], tmp_path: Path) -> None:
    """It replaces the output; the exit code is still the program's."""
    program = tmp_path / "hello.py"
    program.write_text("print(6 * 7)\nraise SystemExit(3)")
    ran = runner("run", "--json", str(program), env=env)
    result = json.loads(ran.stdout)
    assert (ran.returncode, ran.stderr) == (3, "")
    assert (result["state"], result["stdout"]["content"]) == ("failed", "42\n")


@pytest.fixture
def running(env: Mapping[str, str], tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Return a command whose program has written its first line."""
    program = tmp_path / "slow.py"
    program.write_text(
        "import time\nfor n in range(600):\n    print(n, flush=True)\n    time.sleep(0.1)"
    )
    with subprocess.Popen(
        [*RUNNER, "run", str(program)],
        env={**os.environ, **env, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_command_cancels_what_it_runs(
    running: "subprocess.Popen[str]", shared: Deployment, by: signal.Signals, code: int
) -> None:
    """The command exits as shells expect after that signal, once the execution has ended."""
    running.send_signal(by)
    _, told = running.communicate(timeout=60)
    assert running.returncode == code, told
    assert told.startswith("cancelling ")
    assert "Traceback" not in told
    newest, _ = shared.client("typist").list(limit=1)
    assert newest[0].state == "cancelled"


def test_a_second_interruption_leaves_at_once(
    running: "subprocess.Popen[str]", shared: Deployment
) -> None:
    """It does not wait for the execution: here, the worker does not hear of the first one."""
    os.kill(shared.worker.pid, signal.SIGSTOP)
    try:
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        assert running.stderr.readline().startswith("cancelling ")
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
    finally:
        os.kill(shared.worker.pid, signal.SIGCONT)
    assert (running.returncode, "Traceback" in told) == (130, False), told


def test_output_that_nobody_reads_ends_the_program(
    running: "subprocess.Popen[str]", shared: Deployment
) -> None:
    """The program ends as after SIGPIPE: `runner run slow.py | head -1`."""
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    told = running.stderr.read()
    assert (running.wait(60), told) == (141, "")
    client = shared.client("typist")
    newest, _ = client.list(limit=1)
    assert client.wait(newest[0]).state == "cancelled"


def test_executions_are_listed_shown_followed_and_cancelled(
    env: Mapping[str, str], shared: Deployment
) -> None:
    """Commands name an execution by its id, or by the beginning of it."""
    client = shared.client("typist")
    submitted = client.submit(code="print('early', flush=True)\nimport time\ntime.sleep(60)",
                              language="python")  # fmt: skip
    eventually(lambda: client.get(submitted.id).state == "running")
    assert submitted.id in runner("executions", "list", env=env).stdout
    listed = runner("executions", "list", "--json", "--limit", "1", env=env)
    assert json.loads(listed.stdout)["items"][0]["id"] == submitted.id
    assert runner("executions", "cancel", submitted.id, env=env).returncode == 0
    assert runner("executions", "logs", "-f", submitted.id, env=env).stdout == "early\n"
    assert "cancel_requested" in runner("executions", "show", submitted.id, env=env).stdout
    begins = submitted.id[:30]
    for command in ("show", "cancel", "logs"):
        assert runner("executions", command, begins, env=env).returncode == 0
    assert json.loads(runner("receipt", "get", begins, env=env).stdout)["body"]["execution"] == (
        submitted.id
    )
    client.submit(command=["true"])
    several = runner("executions", "cancel", submitted.id[:4], env=env)
    assert (several.returncode, "several executions begin" in several.stderr) == (1, True)
    none = runner("executions", "show", "0000-0000", env=env)
    assert (none.returncode, "begins with 0000-0000" in none.stderr) == (1, True)


def test_executions_are_found_by_their_labels(env: Mapping[str, str], tmp_path: Path) -> None:
    program = tmp_path / "labelled.py"
    program.write_text("print(1)\n")
    ran = runner("run", str(program), "-m", "agent=a", "-m", "run=7", "--json", env=env)
    made = json.loads(ran.stdout)["id"]

    def found(*labels: str) -> list[str]:
        listed = runner("executions", "list", "--json", *labels, env=env)
        return [each["id"] for each in json.loads(listed.stdout)["items"]]

    assert found("-m", "agent=a", "--metadata", "run=7") == [made]
    assert found("-m", "agent=a", "-m", "run=8") == []
    assert "no such executions" in runner("executions", "list", "-m", "agent=b", env=env).stderr
    wrong = runner("executions", "list", "-m", "agent", env=env)
    assert (wrong.returncode, "write it as NAME=VALUE" in wrong.stderr) == (1, True)


def test_output_that_was_cut_says_so(env: Mapping[str, str], tmp_path: Path) -> None:
    """On stderr, it says how much is missing: where it is missing, and again at the end."""
    program = tmp_path / "long.py"
    program.write_text("print('x' * 3000)\nprint('the summary')\n")
    limits = ("--output-kb", "2")
    ran = runner("run", str(program), *limits, env=env)
    assert (ran.returncode, ran.stdout) == (0, "x" * 2048)
    assert "stdout was cut: 965 of 3,013 bytes left out at its end" in ran.stderr
    ran = runner("run", str(program), *limits, "--output-keep", "head_and_tail", env=env)
    assert ran.stdout == "x" * 2035 + "\nthe summary\n"
    assert "stdout: [… 965 bytes left out …]" in ran.stderr
    assert "965 of 3,013 bytes left out between its beginning and its end" in ran.stderr


def test_the_audit_log_is_listed_newest_first_page_by_page(shared: Deployment) -> None:
    """Each page says how to get the next one; together, they are the whole log, backwards."""
    env = {"RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("reader")}
    shared.client("reader").run(code="pass", language="python")
    seen: list[int] = []
    cursor: list[str] = []
    while True:
        page = runner("audit", "list", "--limit", "3", *cursor, env=env)
        seen += [int(row.split()[0]) for row in page.stdout.splitlines()[1:]]
        if not page.stderr:
            break
        cursor = page.stderr.split()[1:]
    assert seen == list(range(len(seen), 0, -1))
    assert len(seen) > 3
    assert "tenant:create" in runner("audit", "list", "--oldest", "--limit", "1", env=env).stdout


def test_the_audit_log_is_verified(env: Mapping[str, str]) -> None:
    """Exit code 0 means that it is complete and unchanged."""
    verified = runner("audit", "verify", env=env)
    assert (verified.returncode, verified.stdout[:5]) == (0, "whole")


def test_a_wrong_key_is_told_in_a_line(env: Mapping[str, str]) -> None:
    """There is no traceback, and the line does not repeat the key."""
    key = "rk_aaaaaaaaaaaa_" + "A" * 43
    ran = runner("executions", "list", env={**env, "RUNNER_API_KEY": key})
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: a valid API key is needed")
    assert "RUNNER_API_KEY" in ran.stderr
    assert key not in ran.stderr + ran.stdout


def test_a_wrong_setting_is_named_without_its_value() -> None:
    """Exit code 78, EX_CONFIG."""
    ran = runner("worker", env={"RUNNER_LEASE_S": "s3cret"})
    assert ran.returncode == 78
    assert "RUNNER_LEASE_S" in ran.stderr
    assert "s3cret" not in ran.stderr


def test_an_api_whose_port_is_taken_says_so(shared: Deployment) -> None:
    """One line names the port and the setting; exit code 78, EX_CONFIG."""
    port = shared.url.rpartition(":")[2]
    services = shared.stack.services
    ran = runner(
        "api",
        env={
            "RUNNER_STATE_DIR": str(shared.stack.settings.state_dir),
            "RUNNER_DATABASE_API_URL": services.api_url,
            "RUNNER_REDIS_URL": services.redis_url,
            "RUNNER_PORT": port,
        },
    )
    assert ran.returncode == 78
    assert ran.stderr.startswith(f"error: cannot listen at 127.0.0.1 port {port}: ")
    assert "RUNNER_PORT" in ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr


def test_doctor_and_images_tell_what_is_there(image: None) -> None:
    """`runner doctor` shows the host's facts, and `runner images` the built image."""
    assert "Docker Engine" in runner("doctor", env={}).stdout
    assert "sha256:" in runner("images", "list", env={}).stdout


def test_a_command_that_finds_no_deployment_and_can_start_none_says_what_to_set(
    folder: Path,
) -> None:
    """A newcomer who forgot to copy the variables reads about these first, not about Docker."""
    ran = runner(
        "sandbox",
        "list",
        env={"RUNNER_STATE_DIR": str(folder), "RUNNER_DOCKER_URL": "unix:///nowhere.sock"},
    )
    assert (ran.returncode, ran.stdout) == (78, "")
    assert ran.stderr.startswith("error: RUNNER_URL and RUNNER_API_KEY are not set"), ran.stderr
    assert "unix:///nowhere.sock" in ran.stderr
    assert left_running(folder) == []


def test_dev_prints_commands_that_work_and_stops_on_ctrl_c(image: None, folder: Path) -> None:
    """They run as they stand in another terminal; after Ctrl-C, no process is left."""
    env = {**os.environ, "RUNNER_STATE_DIR": str(folder), "RUNNER_PORT": "0", "COLUMNS": "80"}
    with subprocess.Popen([*RUNNER, "dev"], env=env, stdout=subprocess.PIPE, text=True) as dev:
        eventually((folder / "run" / "dev.json").exists)
        assert (folder / "run" / "dev.json").stat().st_mode & 0o077 == 0
        beside(folder)
        assert dev.stdout is not None
        said = [dev.stdout.readline() for _ in range(9)]
        copied = said[said.index("\n") + 1 :]
        ran = subprocess.run(
            ["bash", "-euc", "".join(copied)],
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (0, "42\n"), (copied, ran.stderr)
        dev.send_signal(signal.SIGINT)
        assert dev.wait(60) == 0
    assert not (folder / "run" / "dev.json").exists()
    assert left_running(folder) == []


def beside(folder: Path) -> None:
    """Try what users and operators type beside `runner dev`, with only its state folder."""
    env = {"RUNNER_STATE_DIR": str(folder)}
    listed = runner("executions", "list", env=env)
    assert listed.returncode == 0, listed.stderr
    key = runner("keys", "create", "--tenant", "acme", "--tier", "free", env=env)
    assert key.stdout.startswith("rk_"), key.stderr
    assert "no tenant 'acme': it was made" in key.stderr
    assert "it was made" not in runner("keys", "create", "--tenant", "acme", env=env).stderr
    for words in (
        ["tenants", "set", "acme", "--quota", "storage_bytes=1048576", "--concurrency", "2"],
        ["tenants", "create", "other"],
        ["tenants", "suspend", "other", "--why", "test"],
        ["operators", "create", "ops"],
        ["members", "add", "--tenant", "acme", "--email", "ada@example.com"],
        ["doctor"],
        ["images", "list"],
        ["usage"],
    ):
        ran = runner(*words, env=env)
        assert ran.returncode == 0, (words, ran.stderr)
    shown = runner("tenants", "show", "acme", env=env).stdout
    assert re.search(r"storage_bytes +1.0 MiB +its own", shown), shown
    assert re.search(r"concurrent +2 +its own", shown), shown
    # Its terms permit `large`, and its tier `medium`.
    assert re.search(r"at most for each +cpu 2, memory_mb 1024", shown), shown
    tenants = json.loads(runner("tenants", "list", "--json", env=env).stdout)
    assert {each["name"]: each["suspended_why"] for each in tenants} == {
        "acme": None, "dev": None, "other": "test"
    }  # fmt: skip


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_stopped_takes_its_sandbox_with_it(
    image: None, folder: Path, by: signal.Signals
) -> None:
    """This also holds on SIGTERM, which timeout(1) or a closed terminal sends."""
    with subprocess.Popen(
        [*RUNNER, "profile", "learn", "--", "sleep", "120"],
        env={**os.environ, "RUNNER_STATE_DIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    ) as learning:
        eventually(lambda: any(" sleep 120" in line for line in sandboxed(folder)))
        learning.send_signal(by)
        _, told = learning.communicate(timeout=60)
    assert learning.returncode == 128 + by, told
    assert "Traceback" not in told
    assert list(folder.glob("learn-*")) == []
    assert sandboxed(folder) == []


def sandboxed(folder: Path) -> list[str]:
    """Return what runs in the sandboxes of a folder, which Docker finds by their mounts."""
    client = docker.APIClient(Settings().docker_url, version="auto", timeout=30)
    try:
        return [
            f" {' '.join(process)}"
            for each in client.containers()
            if any(str(mount.get("Source")).startswith(str(folder)) for mount in each["Mounts"])
            for process in client.top(each["Id"])["Processes"]
        ]
    finally:
        client.close()


def test_the_demo_shows_everything_and_leaves_nothing(image: None, folder: Path) -> None:
    """The exit code is 0 only if everything that it showed was right."""
    ran = runner("demo", env={"RUNNER_STATE_DIR": str(folder)})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Everything shown came out right." in ran.stdout
    assert "succeeded" in ran.stdout
    assert list(folder.iterdir()) == []
    assert left_running(folder) == []


def left_running(folder: Path) -> list[str]:
    """Return the command lines of processes that name a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_keys_are_listed_rotated_and_revoked_by_their_prefix(shared: Deployment) -> None:
    """A key that is revoked is listed on request only."""
    env = {"RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("locksmith")}
    own = env["RUNNER_API_KEY"].split("_")[1]
    listed = runner("keys", "list", env=env)
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["key", own]
    rotated = runner("keys", "rotate", own, env=env)
    assert rotated.returncode == 0, rotated.stderr
    env["RUNNER_API_KEY"] = rotated.stdout.strip()
    new = env["RUNNER_API_KEY"].split("_")[1]
    revoked = runner("keys", "revoke", own, env=env)
    assert (revoked.returncode, revoked.stderr) == (0, f"{own} is revoked\n")
    assert own not in runner("keys", "list", env=env).stdout
    everything = runner("keys", "list", "--all", "--json", env=env)
    assert [each["prefix"] for each in json.loads(everything.stdout)] == [new, own]
    unknown = runner("keys", "revoke", "no-such-key", env=env)
    assert unknown.returncode == 1
    assert "runner keys list --all" in unknown.stderr
