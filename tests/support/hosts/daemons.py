"""A Docker daemon on each machine."""

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from tests.support.deployment import build_image, eventually
from tests.support.hosts.images import ImageStore
from tests.support.hosts.machines import Machine

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
STORE = "images"
"""The daemon's folder on the machine's disk."""


def address(machine: Machine) -> str:
    """Return where a machine's daemon answers."""
    return f"unix://{_socket(machine)}"


def start(machine: Machine, store: ImageStore) -> None:
    """Start a daemon on a machine, and wait until it answers."""
    disk, images = machine.disk, machine.disk / STORE
    if not images.exists():
        store.copy_to(images)
        (disk / "daemon.json").write_text(json.dumps({"log-level": "error"}))
    store.mount_on(machine, images)
    # What a power failure leaves in /run is gone after the next start.
    shutil.rmtree(disk / "exec", ignore_errors=True)
    (disk / "docker.pid").unlink(missing_ok=True)
    machine.spawn(
        ["dockerd", "--config-file", disk / "daemon.json", "--data-root", images,
         "--exec-root", disk / "exec", "--pidfile", disk / "docker.pid",
         "--host", address(machine), "--bridge", "none", "--iptables=false", "--ip6tables=false"],
        _ENVIRONMENT, disk / "dockerd.log",
    )  # fmt: skip
    eventually(lambda: _answers(machine))


@contextmanager
def client(url: str) -> "Iterator[docker.APIClient]":
    """Yield a connection to a daemon."""
    made = docker.APIClient(url, version="1.41", timeout=300)
    try:
        yield made
    finally:
        made.close()


def image_store(url: str, name: str, folder: Path) -> ImageStore:
    """Return an image of ours as the daemon at `url` has it; it is built unless it exists."""
    image_id = build_image(name)
    with client(url) as asked:
        facts = asked.info()
        tags: list[str] = asked.inspect_image(image_id)["RepoTags"]  # type: ignore[no-untyped-call]
    driver = facts["Driver"]
    assert driver == "overlay2", f"hosts of tests share layers of overlay2, not of {driver}"
    return ImageStore.of(image_id, tags[0], Path(facts["DockerRootDir"]), folder)


def _answers(machine: Machine) -> bool:
    """Return whether the daemon answers. Docker's client leaves its socket open if it does not."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        try:
            link.connect(str(_socket(machine)))
            link.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in link.recv(64)
        except OSError:
            return False


def _socket(machine: Machine) -> Path:
    return machine.disk / "docker.sock"
