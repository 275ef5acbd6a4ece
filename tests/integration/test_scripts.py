"""`scripts/` prepare a machine to run everything, and say what they cannot do."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from runner.base.settings import Settings
from runner.sandbox.engine.spec import GVISOR_ARGUMENTS
from tests.support.deployment import DISK, eventually

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
SOCKET = Path("/var/run/docker.sock").resolve()
# In a mount and a network namespace of its own: the host's daemon is out of sight, and its bridge
# out of reach of a daemon that is told to have none and removes docker0.
HIDDEN = 'mount --make-rprivate / && mount --bind /dev/null "$1" && shift && exec "$@"'


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short path that everybody may read, for sockets."""
    made = Path(tempfile.mkdtemp(prefix="rs-", dir=DISK))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def no_daemon() -> list[str]:
    """Return a command prefix under which no Docker daemon answers."""
    if not SOCKET.exists():
        return ["env"]
    return ["unshare", "--mount", "--net", "bash", "-c", HIDDEN, "hide", str(SOCKET)]


def with_docker(
    folder: Path, prefix: list[str], script: str, **env: str
) -> "subprocess.Popen[str]":
    """Start a shell script under `with-docker`, with a state folder of its own."""
    return subprocess.Popen(
        [*prefix, SCRIPTS / "with-docker", "bash", "-c", script],
        env={"PATH": os.environ["PATH"], "RUNNER_STATE_DIR": str(folder), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


PING = (
    'python3 -c "import os, socket; s = socket.socket(socket.AF_UNIX); '
    "s.connect(os.environ['RUNNER_DOCKER_URL'].removeprefix('unix://')); "
    "s.sendall(b'GET /_ping HTTP/1.0\\r\\n\\r\\n'); print(b'200 OK' in s.recv(99), flush=True)\""
)
LISTENER = """
import os, signal
def told(number, frame):
    os.write(1, b"told\\n")
    os._exit(3)
signal.signal(signal.SIGINT, told)
signal.signal(signal.SIGTERM, told)
os.write(1, b"up\\n")
signal.pause()
"""


def command_lines() -> Iterator[list[str]]:
    """Yield the words of every process that runs."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield line.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:  # it has just ended
            continue


def daemon_runs(folder: Path) -> bool:
    """Return whether a daemon with its data below the folder runs."""
    data = str(folder / "docker" / "data")
    return any(words[0].endswith("dockerd") and data in words for words in command_lines())


def test_a_daemon_that_answers_is_used_and_left_alone(folder: Path) -> None:
    daemon = Settings().docker_url
    script = f'{PING}; echo "$RUNNER_DOCKER_URL"; exit 5'
    ran = with_docker(folder, [], script, DOCKER_HOST=daemon)
    said, _ = ran.communicate(timeout=30)
    assert (ran.returncode, said) == (5, f"True\n{daemon}\n")
    assert list(folder.iterdir()) == []


def test_a_private_daemon_serves_one_command_and_is_gone(
    folder: Path, no_daemon: list[str]
) -> None:
    """The exit code is the command's."""
    ran = with_docker(folder, no_daemon, f"{PING}; exit 7")
    said, _ = ran.communicate(timeout=60)
    assert (ran.returncode, said) == (7, "True\n")
    assert not daemon_runs(folder)


INFO = (
    'python3 -c "import json, os, socket; s = socket.socket(socket.AF_UNIX); '
    "s.connect(os.environ['RUNNER_DOCKER_URL'].removeprefix('unix://')); "
    "s.sendall(b'GET /info HTTP/1.0\\r\\n\\r\\n'); "
    "body = b''.join(iter(lambda: s.recv(65536), b'')).partition(b'\\r\\n\\r\\n')[2]; "
    "print(json.dumps(json.loads(body)['Runtimes']), flush=True)\""
)


def test_a_private_daemon_has_gvisor_with_all_that_it_needs(
    folder: Path, no_daemon: list[str]
) -> None:
    """So the tests of gVisor run on every machine that has the program."""
    said, _ = with_docker(folder, no_daemon, INFO).communicate(timeout=60)
    assert json.loads(said)["runsc"]["runtimeArgs"] == list(GVISOR_ARGUMENTS)


def test_a_private_daemon_has_a_crun_that_says_its_version(
    folder: Path, no_daemon: list[str]
) -> None:
    """It does so even where crun is started in a mount namespace of its own."""
    version = '$(sed \'s/.*"crun": {"path": "\\([^"]*\\).*/\\1/\' daemon.json)'
    script = f'{INFO}; cd "$RUNNER_STATE_DIR/docker" && "{version}" --version'
    said, _ = with_docker(folder, no_daemon, script).communicate(timeout=60)
    runtimes, _, told = said.partition("\n")
    crun = json.loads(runtimes)["crun"]
    assert (Path(crun["path"]).is_absolute(), crun.get("runtimeArgs")) == (True, None)
    assert told.startswith("crun version ")


def test_a_daemon_that_runs_learns_of_a_runtime_that_was_installed_since(
    folder: Path, no_daemon: list[str]
) -> None:
    """Here it is made to forget it. Who asks for no runtime changes nothing."""
    forget = (
        'cd "$RUNNER_STATE_DIR/docker" && echo \'{"runtimes": {}}\' >daemon.json && '
        'kill -HUP "$(cat docker.pid)" && sleep 1'
    )
    first = with_docker(folder, no_daemon, f"{forget}; {INFO}; exec sleep 120")
    assert first.stdout is not None
    told = [first.stdout.readline()]
    for asked in ("", "runsc crun"):
        second = with_docker(folder, no_daemon, INFO, WITH_DOCKER_RUNTIME=asked)
        told.append(second.communicate(timeout=60)[0])
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    eventually(lambda: not daemon_runs(folder), within_s=10)
    known = [set(json.loads(each)) & {"runsc", "crun"} for each in told]
    assert known == [set(), set(), {"runsc", "crun"}]


def test_a_daemon_without_the_runtime_asked_for_is_passed_over(folder: Path) -> None:
    """A private one is started instead, in a network namespace away from the host's bridge."""
    ran = with_docker(
        folder,
        ["unshare", "--net"],
        'echo "$RUNNER_DOCKER_URL"',
        DOCKER_HOST=Settings().docker_url,
        WITH_DOCKER_RUNTIME="no-such-runtime",
    )
    assert ran.communicate(timeout=60)[0] == f"unix://{folder}/docker/docker.sock\n"
    assert not daemon_runs(folder)


def test_the_bridge_of_another_daemon_is_left_alone(folder: Path) -> None:
    """The daemon is in a network namespace with a docker0 of its own."""
    script = (
        "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && "
        f"{SCRIPTS}/with-docker true && ip -br addr show docker0"
    )
    ran = subprocess.run(
        ["unshare", "--net", "bash", "-c", script],
        env={
            "PATH": os.environ["PATH"],
            "RUNNER_STATE_DIR": str(folder),
            "WITH_DOCKER_RUNTIME": "no-such-runtime",
            "DOCKER_HOST": "",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "172.17.0.1/16" in ran.stdout, (ran.stdout, ran.stderr)


COUNTS = '#!/bin/sh\necho "$@" >>"${0%/*}/counted"\n'


@pytest.mark.parametrize(("patience", "looks"), [("1", "300"), ("4", "1200")])
def test_a_slow_host_waits_longer_for_a_private_daemon(
    folder: Path, no_daemon: list[str], patience: str, looks: str
) -> None:
    """It looks so often, a tenth of a second apart; here `seq` is told and grants no look.

    The daemon that is late is not left behind.
    """
    counts = folder / "seq"
    counts.write_text(COUNTS)
    counts.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    ran = with_docker(folder, no_daemon, "true", PATH=path, RUNNER_PATIENCE=patience)
    assert "dockerd did not start" in ran.communicate(timeout=60)[0]
    assert (folder / "counted").read_text().splitlines() == [looks]
    assert not daemon_runs(folder)


@pytest.mark.parametrize("patience", ["0", "1.5", "1000", "x"])
def test_a_patience_that_is_no_number_is_refused(folder: Path, patience: str) -> None:
    ran = with_docker(folder, [], "true", RUNNER_PATIENCE=patience)
    said, _ = ran.communicate(timeout=30)
    assert ran.returncode == 78
    assert f"RUNNER_PATIENCE is '{patience}'" in said


def test_nothing_of_a_killed_daemon_outlives_the_last_command(
    folder: Path, no_daemon: list[str]
) -> None:
    """Its containers continue without it, each below a shim; a new daemon would end them."""
    waits = with_docker(folder, no_daemon, 'echo "$RUNNER_DOCKER_URL"; exec sleep 120')
    assert waits.stdout is not None
    url = waits.stdout.readline().strip()
    with closing(docker.APIClient(url, version="auto", timeout=30)) as client:
        client.import_image_from_data(archive_of("/bin/sleep"), repository="sleep")
        made = client.create_container("sleep", ["/bin/sleep", "120"], network_disabled=True)
        client.start(made["Id"])
        program = int(client.inspect_container(made["Id"])["State"]["Pid"])
    os.kill(int((folder / "docker" / "docker.pid").read_text()), signal.SIGKILL)
    assert alive(program)
    waits.terminate()
    waits.communicate(timeout=60)
    eventually(lambda: not alive(program), within_s=5)
    assert not [words for words in command_lines() if any(str(folder) in each for each in words)]


def test_a_daemon_that_is_slow_to_answer_keeps_its_containers(
    folder: Path, no_daemon: list[str]
) -> None:
    """The script waits for it, and then names it. The control: a dead daemon's are ended."""
    with with_docker(folder, no_daemon, f"{PING}; exec sleep 600") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "True\n"
        daemon = int((folder / "docker/docker.pid").read_text())
        shim = subprocess.Popen(
            ["containerd-shim-test", "-c", "sleep 600; true", "test", f"{folder}/docker/exec"],
            executable="/bin/bash",
        )
        os.kill(daemon, signal.SIGSTOP)
        try:
            second = with_docker(folder, no_daemon, "true")
            said, _ = second.communicate(timeout=120)
            assert (second.returncode, shim.poll()) == (78, None), said
            assert f"dockerd ({daemon}) runs but does not answer" in said
        finally:
            os.kill(daemon, signal.SIGCONT)
        first.terminate()
        first.wait(60)
    # A shim's processes are ended first, and this one is over with its child.
    assert shim.wait(10) in {0, -signal.SIGKILL}


def archive_of(program: str) -> bytes:
    """Return a root file system with a program and the libraries that it is linked to."""
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", dereference=True) as archive:
        for path in (program, *re.findall(r"(/\S+) \(0x", linked)):
            archive.add(path)
    return made.getvalue()


def alive(process: int) -> bool:
    """Return whether the process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_commands_share_a_private_daemon_until_the_last_ends(
    folder: Path, no_daemon: list[str]
) -> None:
    first = with_docker(folder, no_daemon, f"echo up; sleep 3; {PING}")
    assert first.stdout is not None
    assert first.stdout.readline() == "up\n"
    began = time.monotonic()
    second = with_docker(folder, no_daemon, PING)
    assert second.communicate(timeout=60)[0] == "True\n"
    assert time.monotonic() - began < 3
    assert daemon_runs(folder)
    assert first.communicate(timeout=60)[0] == "True\n"
    assert not daemon_runs(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_and_the_daemon_is_stopped(
    folder: Path, no_daemon: list[str], number: signal.Signals
) -> None:
    ran = with_docker(folder, no_daemon, f"exec python3 -c '{LISTENER}'")
    assert ran.stdout is not None
    assert ran.stdout.readline() == "up\n"
    ran.send_signal(number)
    assert ran.communicate(timeout=60)[0] == "told\n"
    assert ran.returncode == 3
    eventually(lambda: not daemon_runs(folder), within_s=10)


def test_without_root_what_is_missing_is_named_with_how_to_get_it(folder: Path) -> None:
    """The machine has Python and little else."""
    (folder / "scripts").mkdir()
    programs = folder / "bin"
    programs.mkdir()
    for script in ("bootstrap", "with-docker"):
        shutil.copy(SCRIPTS / script, folder / "scripts")
    for name in ("bash", "dirname", "id", "python3", "timeout", "seq"):
        found = shutil.which(name, path="/usr/bin:/bin")
        assert found is not None, name
        (programs / name).symlink_to(found)
    told = subprocess.run(
        [folder / "scripts" / "bootstrap"],
        env={"PATH": str(programs), "DOCKER_HOST": ""},
        user="nobody",
        group="nogroup",
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 78
    for package in ("mmdebstrap", "redis-server", "git"):
        assert package in told.stderr
    assert "apt-get install" in told.stderr


@pytest.mark.parametrize("named", ["/nonexistent", "false"])
def test_a_named_python_that_is_none_is_refused(named: str) -> None:
    told = subprocess.run(
        [SCRIPTS / "bootstrap"],
        env={"PATH": os.environ["PATH"], "PYTHON": named},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 78
    assert f"PYTHON names {named}, which is not Python 3.11 or newer" in told.stderr
