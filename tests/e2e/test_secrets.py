"""Secrets through the whole stack: they are used, and found nowhere afterwards."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import docker
import psycopg
import pytest
import redis
from psycopg import sql

from agent_runner import Client, Execution
from tests.support.deployment import Deployment, deployment, eventually

CANARY = 'canary/7f3e+2b "8d" & more'

LEAKY = """
import base64, json, os, sys, time
from pathlib import Path
from urllib.parse import quote
token = os.environ["TOKEN"]
forms = [token, base64.b64encode(token.encode()).decode(), quote(token, safe=""),
         json.dumps({"token": token})]
for form in forms:
    print(form)
    print(form, file=sys.stderr)
print("length", len(token), "says", token[:3])
for character in token:  # In pieces, each a write and an event of its own.
    sys.stdout.write(character); sys.stdout.flush(); time.sleep(0.01)
Path("notes.txt").write_text("\\n".join(forms))
Path("no-suffix").write_text("\\n".join(forms))
Path("sized.json").write_text(json.dumps(dict(os.environ)))
Path(token.replace("/", "-").replace('"', "'")).write_text("a name")
Path(base64.urlsafe_b64encode(token.encode()).decode()).write_text("a name")
time.sleep(float(os.environ.get("STAY", 0)))
raise RuntimeError(token)
"""


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Deployment]:
    """Return a deployment whose stores hold only what these tests put there."""
    with deployment(log_level="debug") as running:
        yield running


def needles(value: str) -> set[bytes]:
    """Return the forms of a value, and their hexadecimal digits as PostgreSQL prints bytes."""
    forms = {
        value.encode(),
        base64.b64encode(value.encode()),
        quote(value, safe="").encode(),
        json.dumps(value)[1:-1].encode(),
    }
    return forms | {form.hex().encode() for form in forms}


def everything_stored(made: Deployment) -> Iterator[tuple[str, bytes]]:
    """Yield everything stored: every table, every key in Redis, every file of the deployment."""
    with psycopg.connect(made.stack.services.postgres.url("postgres", "runner")) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        assert len(tables) > 10
        for (table,) in tables:
            rows = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))
            for (row,) in connection.execute(rows):
                yield f"table {table}", row.encode()
                # The text of a row doubles what it escapes.
                yield f"table {table}", row.replace('""', '"').replace("\\\\", "\\").encode()
    with redis.Redis.from_url(made.stack.services.redis_url) as connection:
        for key in connection.scan_iter():
            kind = connection.type(key)
            read = {
                b"string": connection.get,
                b"hash": connection.hgetall,
                b"list": lambda key: connection.lrange(key, 0, -1),
                b"set": connection.smembers,
                b"zset": lambda key: connection.zrange(key, 0, -1),
                b"stream": connection.xrange,
                b"none": lambda _: None,  # The file has gone since the scan.
            }[kind]
            yield f"redis {key!r}", key + repr(read(key)).encode()
    for path in sorted(made.stack.settings.state_dir.rglob("*")):
        if path.is_file():
            yield f"file {path.relative_to(made.stack.settings.state_dir)}", path.read_bytes()


def found(made: Deployment, value: str) -> set[str]:
    """Return the kinds of places that store some form of a value."""
    wanted = needles(value)
    return {
        place.split()[0] + " " + place.split()[1].split("/")[0]
        for place, content in everything_stored(made)
        if any(needle in content for needle in wanted)
    }


def leaky(client: Client, **options: Any) -> Execution:
    """Run the program that gives its token away in every way that it knows."""
    return client.run(code=LEAKY, language="python", **options)


def test_a_stored_secret_is_found_nowhere_after_runs_that_leak_it(made: Deployment) -> None:
    """Not in PostgreSQL, Redis, objects, logs, Docker, or any answer."""
    client = made.client("canaries")
    client.put_secret("token", CANARY)
    running = client.submit(
        code=LEAKY, language="python", secret_env={"TOKEN": "token"}, env={"STAY": "3"}
    )
    eventually(lambda: client.get(running.id).state == "running")
    inspected = inspect(made)
    ended = client.wait(running)
    assert (ended.state, ended.exit_code) == ("failed", 1)
    assert ended.stdout is not None
    assert ended.stderr is not None
    lines = ended.stdout.text.splitlines()
    assert lines[4] == f"length {len(CANARY)} says {CANARY[:3]}", "the program did hold it"
    assert set(lines[0]) == {"*"}
    assert ended.stdout.text.endswith("*" * len(CANARY))
    assert "RuntimeError: ****" in ended.stderr.text
    names = {each.path: each for each in ended.artifacts}
    assert {"notes.txt", "no-suffix", "sized.json"} <= set(names)
    assert len(names) == 5
    contents = [downloaded(client, ended, name) for name in names]
    answers = json.dumps([client.audit(limit=500), client.receipt(ended.id), sorted(names)])
    events = "".join(str((event.data, event.raw)) for event in client.events(ended.id))
    for needle in needles(CANARY):
        assert needle not in inspected
        assert needle not in answers.encode()
        assert needle not in events.encode()
        assert not [each for each in contents if needle in each]
        assert needle not in ended.stdout.raw + ended.stderr.raw
    assert found(made, CANARY) == set()


def test_the_search_finds_a_canary_that_is_no_secret(made: Deployment) -> None:
    """The control: the same program, with the value given as plain environment."""
    plain = CANARY.replace("7f3e", "0000")
    ended = leaky(made.client("unmasked"), env={"TOKEN": plain})
    assert ended.stdout is not None
    assert plain in ended.stdout.text
    assert {"table executions", "table events", "file objects"} <= found(made, plain)


def test_the_search_sees_every_store(made: Deployment) -> None:
    """The control for the places that the other one does not reach: Redis, logs, Docker."""
    marker = "marker-in-every-store"
    log = made.stack.settings.state_dir / "log" / "worker.log"
    before = log.read_text()
    with redis.Redis.from_url(made.stack.services.redis_url) as connection:
        connection.set("planted", marker)
        log.write_text(before + marker)
        seen = found(made, marker)
        connection.delete("planted")
    log.write_text(before)
    assert seen == {"redis b'planted'", "file log"}
    assert b'"Env"' in inspect(made, of=made.client("seen"))


def test_a_secret_that_is_missing_fails_the_run_before_it_begins(made: Deployment) -> None:
    """The program does not start; the attempt to use the secret is recorded."""
    client = made.client("missing")
    ended = client.run(command=["env"], secret_env={"TOKEN": "absent"})
    assert (ended.state, ended.reason) == ("failed", "secret_unavailable")
    assert "absent" in (ended.detail or "")
    assert uses(client, "absent") == [("failure", "environment", None)]
    assert not ended.stdout or ended.stdout.raw == b""


def test_another_tenants_secret_is_not_to_be_had(made: Deployment) -> None:
    """Its name is as unknown as any other."""
    made.client("has").put_secret("shared-name", CANARY)
    ended = made.client("has-not").run(command=["env"], secret_env={"TOKEN": "shared-name"})
    assert (ended.state, ended.reason) == ("failed", "secret_unavailable")


@pytest.mark.parametrize(("length", "kept"), [(3, CANARY[:3]), (12, "*" * 12)])
def test_output_that_ends_as_a_secret_begins_is_whole(
    length: int, kept: str, made: Deployment
) -> None:
    """A few of its first letters are no secret; more of them are one that was cut off."""
    client = made.client("cut-off")
    client.put_secret("token", CANARY)
    ended = client.run(
        command=["bash", "-c", f'printf %s "<${{TOKEN:0:{length}}}"'],
        secret_env={"TOKEN": "token"},
    )
    assert ended.stdout is not None
    assert ended.stdout.text == f"<{kept}"
    assert ended.stdout.total_bytes == length + 1


@pytest.mark.parametrize("hidden", [True, False], ids=["secret", "control"])
def test_a_secret_that_we_cut_ourselves_is_starred(hidden: bool, made: Deployment) -> None:
    """In the name of a file that is refused, and of a command that does not exist."""
    value = "0d5f-e2c4-91ab-77f0-" * 2
    client = made.client(f"cut-{hidden}".lower())
    client.put_secret("token", value)
    given: dict[str, Any] = (
        {"secret_env": {"TOKEN": "token"}} if hidden else {"env": {"TOKEN": value}}
    )
    link = "import os; os.symlink('/', 'd' * 180 + os.environ['TOKEN'])"
    left = client.run(code=link, language="python", **given)
    asked = client.run(command=["c" * 110 + value], **given)
    (refused,) = left.artifacts_refused
    assert refused.startswith("d" * 180)
    assert refused.endswith(": not_a_regular_file")
    assert asked.reason == "command_not_started"
    assert asked.detail is not None
    shown = [value[:8] in refused, value[:8] in asked.detail]
    assert shown == [not hidden, not hidden]


def test_a_changed_secret_is_used_by_the_next_run(made: Deployment) -> None:
    """Each use is recorded with its execution."""
    client = made.client("changing")
    lengths = []
    for value in ("first-value", "the-second-value"):
        client.put_secret("token", value)
        ended = client.run(
            command=["sh", "-c", "printf %s ${#TOKEN}"], secret_env={"TOKEN": "token"}
        )
        assert ended.stdout is not None
        lengths.append(ended.stdout.text)
    assert lengths == ["11", "16"]
    assert uses(client, "token") == [("success", "environment", "store")] * 2


def test_a_secret_that_does_not_open_ends_the_run_and_nothing_else(made: Deployment) -> None:
    """Its key is gone. We say that it is our fault; with the key back, the next run has it."""
    client = made.client("unopened")
    client.put_secret("token", CANARY)
    asked: dict[str, Any] = {"command": ["true"], "secret_env": {"TOKEN": "token"}}
    ring = made.stack.settings.secrets_key_path
    before = ring.read_text()
    ring.write_text(base64.b64encode(os.urandom(32)).decode())
    try:
        ended = client.run(**asked)
        assert (ended.state, ended.reason) == ("system_error", "secret_unavailable")
        assert client.run(command=["true"]).state == "succeeded"
    finally:
        ring.write_text(before)
    assert client.run(**asked).state == "succeeded"


def test_keys_are_rotated_while_executions_run(made: Deployment) -> None:
    """The operator's command runs twice: no run fails, nothing restarts, the first key is gone."""
    client = made.client("rotating")
    client.put_secret("token", CANARY)
    ring = made.stack.settings.secrets_key_path
    first = ring.read_text()
    env = {
        "RUNNER_STATE_DIR": str(made.stack.settings.state_dir),
        "RUNNER_DATABASE_OWNER_URL": made.stack.services.owner_url,
    }
    asked: dict[str, Any] = {
        "command": ["sh", "-c", "printf %s ${#TOKEN}"],
        "secret_env": {"TOKEN": "token"},
    }
    started: list[Execution] = []
    for _ in range(2):
        started += [client.submit(**asked, size="nano") for _ in range(3)]
        command("secrets", "rotate", env=env)
        client.put_secret(f"token-{len(started)}", CANARY)
        started += [client.submit(**asked, size="nano") for _ in range(3)]
    ended = [client.wait(each) for each in started]
    assert [(each.state, each.stdout and each.stdout.text) for each in ended] == [
        ("succeeded", str(len(CANARY)))
    ] * 12
    assert first.strip() not in ring.read_text()
    assert len(ring.read_text().split()) == 2


def test_secrets_by_the_command_line(made: Deployment, tmp_path: Path) -> None:
    """The value comes from standard input and is on no command line."""
    env = {"RUNNER_URL": made.url, "RUNNER_API_KEY": made.key("typing")}
    command("secrets", "put", "token", env=env, stdin="typed-value\n")
    assert "token" in command("secrets", "list", env=env)
    program = tmp_path / "length.sh"
    program.write_text("printf %s ${#TOKEN}")
    said = command("run", str(program), "--secret", "TOKEN=token", env=env)
    assert said == str(len("typed-value")), "without the newline"
    command("secrets", "delete", "token", env=env)
    assert "token" not in command("secrets", "list", env=env)


def command(*arguments: str, env: Mapping[str, str], stdin: str = "") -> str:
    """Run a command of ours and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        input=stdin, env={**os.environ, "COLUMNS": "200", **env},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def uses(client: Client, name: str) -> list[tuple[str, str, str | None]]:
    """Return the records of a secret's uses: outcome, purpose and source."""
    records = [each["record"] for each in client.audit(resource_id=name)["items"]]
    return [
        (each["outcome"], each["metadata"]["purpose"], each["metadata"].get("source"))
        for each in records
        if each["action"] == "secret:use"
    ]


def downloaded(client: Client, execution: Execution, path: str) -> bytes:
    """Return an artifact."""
    with client.download(execution.id, path) as chunks:
        return b"".join(chunks)


def inspect(made: Deployment, of: Client | None = None) -> bytes:
    """Return what Docker shows of this deployment's containers while one of them runs."""
    if of is not None:
        execution = of.submit(command=["sleep", "2"])
        eventually(lambda: of.get(execution.id).state == "running")
    client = docker.APIClient(made.stack.settings.docker_url, version="auto", timeout=30)
    try:
        containers = made.containers()
        assert containers
        told = [client.inspect_container(each["Id"]) for each in containers]
    finally:
        client.close()
    if of is not None:
        of.wait(execution)
    # Docker keeps no output of sandboxes, so there are no logs to search.
    assert {each["HostConfig"]["LogConfig"]["Type"] for each in told} == {"none"}
    return json.dumps(told).encode()
