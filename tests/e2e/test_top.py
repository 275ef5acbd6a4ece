"""`runner top`, as an operator sees a deployment: by numbers, and by names of tenants."""

import json
import os
import pty
import subprocess
import sys

from tests.support.deployment import Deployment, eventually

TOP = [sys.executable, "-m", "runner", "top"]


def environment(shared: Deployment) -> dict[str, str]:
    """Return the variables with the operator's login."""
    url = shared.stack.services.operator_url
    return {**os.environ, "COLUMNS": "100", "RUNNER_DATABASE_OPERATOR_URL": url}


def test_it_tells_each_tenants_queue_and_each_nodes_load(shared: Deployment) -> None:
    client = shared.client("watched", max_concurrency=1)
    first = client.submit(command=["sleep", "600"])
    eventually(lambda: client.get(first.id).state == "running")
    waiting = [client.submit(command=["true"]) for _ in range(2)]
    with client.sandboxes.create():
        env = environment(shared)
        told = subprocess.run([*TOP, "--once", "--json"], env=env, capture_output=True, text=True,
                              timeout=120, check=True)  # fmt: skip
        shown = subprocess.run([*TOP, "--once"], env=env, capture_output=True, text=True,
                               timeout=120, check=True)  # fmt: skip
    client.cancel(first.id)
    for each in waiting:
        client.wait(each)
    found = json.loads(told.stdout)
    (ours,) = [each for each in found["tenants"] if each["tenant"] == "watched"]
    assert (ours["waiting"], ours["active"], ours["concurrent"], ours["living"]) == (2, 1, 1, 1)
    (node,) = found["nodes"]
    assert node["state"] == "ready"
    assert node["living"] >= 0
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("watched")]
    assert line.split() == [
        "watched",
        ours["tier"],
        "2",
        "1/1",
        str(ours["ended_last_minute"]),
        "1",
    ]
    assert "living sandbox" in shown.stdout
    for secret in (first.id, "sleep"):
        assert secret not in told.stdout


def test_on_a_terminal_it_goes_on_until_ctrl_c(shared: Deployment) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*TOP, "--every-s", "0.2"],
        env=environment(shared) | {"TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    try:
        read = b""
        # The numbers come again and again.
        while read.count(b"living sandbox") < 2:
            read += os.read(master, 65536)
        process.send_signal(2)
        while True:
            try:
                if not os.read(master, 65536):
                    break
            except OSError:
                break
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(master)


def test_without_the_operators_login_it_says_which_variable_is_missing(shared: Deployment) -> None:
    """A tenant's key does not help."""
    env = {**os.environ, "RUNNER_API_KEY": shared.key("watched"), "RUNNER_URL": shared.url,
           "RUNNER_STATE_DIR": "/nonexistent"}  # fmt: skip
    done = subprocess.run([*TOP, "--once"], env=env, capture_output=True, text=True, timeout=120,
                          check=False)  # fmt: skip
    assert done.returncode != 0
    assert "RUNNER_DATABASE_OPERATOR_URL" in done.stderr
