"""Package managers in builds: Debian's own, as root, and with the folders that it looks for."""

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent_runner import Client
from tests.support import deployment as deployments
from tests.support.deployment import Deployment
from tests.support.sandboxes import build_image
from tests.support.templates import build, log

CONTROL = """Package: greeting
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@example.test>
Description: says hello
"""
AFTERWARDS = """#!/bin/sh
set -e
useradd --system --no-create-home greeter
"""
PROGRAM = "#!/bin/sh\necho hello\n"


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Deployment]:
    """Return a deployment."""
    build_image("data")
    with deployments.deployment(images=("python", "data")) as running:
        yield running


@pytest.fixture(scope="module")
def http(made: Deployment) -> httpx.Client:
    """Return a connection of a tenant that builds."""
    return made.http("builder")


@pytest.fixture(scope="module")
def api(made: Deployment) -> Client:
    """Return the same tenant's client."""
    return made.client("builder")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a package of Debian's in base64: a program, and a user that it needs."""
    root = tmp_path_factory.mktemp("package") / "greeting"
    for path, content, mode in (
        ("DEBIAN/control", CONTROL, 0o644),
        ("DEBIAN/postinst", AFTERWARDS, 0o755),
        ("usr/bin/greeting", PROGRAM, 0o755),
    ):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)
    file = Path(f"{root}.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, file], check=True)
    return base64.b64encode(file.read_bytes()).decode()


@pytest.mark.parametrize("base", ["python", "data"])
def test_apt_installs_a_package(http: httpx.Client, api: Client, package: str, base: str) -> None:
    """What its scripts call is in folders of root's, which a sandbox's PATH leaves out."""
    template = build(
        http,
        f"with-{base}",
        {"copy": {"to": "/srv/greeting.deb", "base64": package}},
        {"run": "apt-get install --yes /srv/greeting.deb && getent passwd greeter"},
        base=base,
    )
    assert template["state"] == "ready", log(http, template)
    with api.sandboxes.create(image=template["image"]) as sandbox:
        ran = sandbox.run("greeting; echo $PATH")
        assert ran.stdout is not None
        greeting, path = str(ran.stdout.text).splitlines()
    assert greeting == "hello"
    assert "sbin" not in path
