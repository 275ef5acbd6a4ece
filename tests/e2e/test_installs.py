"""Packages come from a real index, through the egress proxy, into sandboxes that live.

Needs an index of Python packages and a registry of npm packages: those that this host's pip and the
image's npm are set to. They may have private addresses, or be signed by an authority of the host's
own, so the deployment trusts what the host trusts.
"""

import contextlib
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import urlopen

import docker
import pytest

from agent_runner import Client, Sandbox
from runner.base.settings import Settings
from tests.support import deployment as deployments
from tests.support.deployment import Deployment

INSTALL_S = 120.0
AUTHORITIES = "authorities.pem"
DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


@dataclass(frozen=True)
class World:
    """A deployment whose operator permits what the host's own package managers use."""

    deployment: Deployment
    index: str
    registry: str
    authorities: str

    def client(self, tenant: str) -> Client:
        """Return a client of a tenant."""
        return self.deployment.client(tenant)


def told(*command: str) -> str:
    """Return what a program says, or nothing if it fails."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def told_inside(image: str, *command: str) -> str:
    """Return what a program says in a container of a sandbox image, without any network."""
    engine = docker.DockerClient(base_url=Settings().docker_url)
    with contextlib.closing(engine):
        said = engine.containers.run(
            image, list(command[1:]), entrypoint=command[0], network_mode="none", remove=True,
            environment={"HOME": "/"},
        )  # fmt: skip
    return bytes(said).decode().strip()


def host_of(url: str) -> str:
    """Return the host that a URL names."""
    host = urlsplit(url).hostname
    assert host, f"no host in {url!r}"
    return host


def addresses(*hosts: str) -> list[str]:
    """Return the networks of one address each that these hosts have."""
    found = {str(info[4][0]) for host in hosts for info in socket.getaddrinfo(host, 443)}
    return sorted(f"{each}/{128 if ':' in each else 32}" for each in found)


@pytest.fixture(scope="module")
def world(image: None) -> Iterator[World]:
    """Return a deployment that permits the index, and the registry as far as it is known here."""
    index = told("-m", "pip", "config", "get", "global.index-url") or told("-c", DEFAULT_INDEX)
    authorities = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    registry = told_inside(deployments.build_image("code"), "npm", "config", "get", "registry")
    networks = addresses(host_of(index), *files_hosts(index, "iniconfig"), host_of(registry))
    images = ("python", "code")
    with deployments.deployment(images=images, egress_trusted_networks=networks) as made:
        yield World(made, index, registry, Path(authorities).read_text())


def files_hosts(index: str, package: str) -> set[str]:
    """Return the hosts that an index names for a package's files."""
    page = f"{index.rstrip('/')}/{package}/"
    with urlopen(page) as answer:  # noqa: S310 - the host's own index
        links = re.findall(r'href="([^"]+)"', answer.read().decode())
    assert links, f"{page} lists no files"
    return {host_of(urljoin(page, link)) for link in links}


@pytest.fixture
def sandbox(world: World) -> Iterator[Sandbox]:
    """Return a living sandbox that reaches the index and nothing else."""
    hosts = {host_of(world.index), *files_hosts(world.index, "iniconfig")}
    env = {"PIP_INDEX_URL": world.index, "PIP_CERT": AUTHORITIES}
    made = world.client("installs").sandboxes.create(egress=sorted(hosts), env=env, timeout_s=600)
    with made:
        made.files.write(AUTHORITIES, world.authorities)
        yield made


def test_pip_installs_what_the_next_process_imports(sandbox: Sandbox) -> None:
    """Below the home folder: without an option, a virtual environment or root."""
    assert sandbox.run(["python3", "-c", "import iniconfig"]).exit_code != 0
    installed = sandbox.run("pip install --quiet iniconfig", timeout_s=INSTALL_S)
    assert installed.exit_code == 0, installed.stderr.text
    found = sandbox.run(["python3", "-c", "import iniconfig; print(iniconfig.__file__)"])
    assert found.exit_code == 0, found.stderr.text
    assert "/.local/" in found.stdout.text


def test_a_virtual_environment_takes_packages_too(sandbox: Sandbox) -> None:
    made = sandbox.run(
        "python3 -m venv v && v/bin/pip install --quiet iniconfig && v/bin/python -c "
        "'import iniconfig; print(iniconfig.__file__)'",
        timeout_s=INSTALL_S,
    )
    assert made.exit_code == 0, made.stderr.text
    assert made.stdout.text.startswith("/workspace/v/")


def test_without_a_rule_for_the_index_pip_says_why_it_fails(world: World) -> None:
    """The control taken away: it is the rule that lets the package in."""
    env = {"PIP_INDEX_URL": world.index}
    with world.client("installs").sandboxes.create(env=env, egress=["files.example.com"]) as made:
        refused = made.run("pip install --quiet iniconfig", timeout_s=INSTALL_S)
    assert refused.exit_code != 0
    assert "403" in refused.stderr.text


def test_npm_installs_what_the_next_process_requires(world: World) -> None:
    env = {"NODE_EXTRA_CA_CERTS": f"/workspace/{AUTHORITIES}"}
    reached = [host_of(world.registry)]
    with world.client("installs").sandboxes.create(image="code", egress=reached, env=env) as made:
        made.files.write(AUTHORITIES, world.authorities)
        # npm asks for a scoped package by a path with %2f in it.
        installed = made.run("npm install --silent is-number @types/ms", timeout_s=INSTALL_S)
        assert installed.exit_code == 0, installed.stderr.text
        found = made.run(["node", "-e", "console.log(require('is-number')('7'))"])
        scoped = made.run("cat node_modules/@types/ms/package.json")
    assert (found.exit_code, found.stdout.text) == (0, "true\n"), found.stderr.text
    assert '"name": "@types/ms"' in scoped.stdout.text
