"""The manifests fit Kubernetes' schemas, and all that they name of the product is there."""

import copy
import re
import shlex
from collections.abc import Callable, Iterator, Sequence

import pytest
from kubernetes_validate.utils import ValidationError, validate
from typer.testing import CliRunner

from runner import __version__
from runner.api import health
from runner.api.gauges import as_gauges, read_figures
from runner.base.settings import Settings
from runner.cli.app import app
from runner.store.db import Database
from runner.words.states import ACTIVE, WAITING
from tests.support.kubernetes import (
    COMPONENT,
    MANIFESTS,
    OVERLAY,
    ROOT,
    Object,
    of_kind,
    options,
    pods,
)

pytestmark = pytest.mark.timeout(600)  # kubectl may have to be downloaded first
OLDEST, NEWEST = "1.30", "1.37"
OTHERS = {"ServiceMonitor", "PodMonitor", "ScaledObject"}
"""Kinds of the Prometheus Operator and of KEDA, which Kubernetes' schemas do not know."""
NOT_OURS = {"POD_IP", "SECRETS_DIR", "ADMISSION", "INVITATIONS", "TRUSTED", "DOCKER_HOST",
            "DOCKER_CONFIG"}  # fmt: skip
"""Variables that manifests, Docker and our scripts read, and no process of ours."""
RUNNER = re.compile(r"python -m runner ((?:[\w./-]+|\"\$\w+\")(?: (?:[\w./-]+|\"\$\w+\"))*)")


def misfits(objects: list[Object], version: str) -> list[str]:
    """Return which objects do not fit a release of Kubernetes, and why."""
    found = []
    for each in objects:
        if each["kind"] in OTHERS:
            continue
        try:
            validate(each, version, strict=True)
        except ValidationError as error:
            found.append(f"{each['kind']} {each['metadata']['name']}: {error.message}")
    return found


def variables(objects: list[Object]) -> dict[str, dict[str, str]]:
    """Return what the containers of each pod are given; what Kubernetes fills in is empty."""
    settings = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["data"]
        for each in of_kind(objects, "ConfigMap")
    }
    found: dict[str, dict[str, str]] = {}
    for pod in pods(objects).values():
        given = found.setdefault(pod.component, {})
        for container in pod.containers:
            for each in container.get("envFrom", ()):
                given |= settings[pod.namespace, each["configMapRef"]["name"]]
            given |= {each["name"]: each.get("value", "") for each in container.get("env", ())}
    return found


def unknown(objects: list[Object]) -> set[str]:
    """Return variables that are neither settings nor read by somebody else."""
    known = {f"RUNNER_{name.upper()}" for name in Settings.model_fields} | NOT_OURS
    return {name for each in variables(objects).values() for name in each} - known


def commands(objects: list[Object]) -> Iterator[list[str]]:
    """Yield the command lines of ours: those of containers, of probes and in their scripts."""
    for pod in pods(objects).values():
        for container in pod.containers:
            if container["image"].rpartition(":")[0].endswith("/agent-runner"):
                if "command" not in container:
                    yield container["args"]
                for script in container.get("args", ()):
                    yield from map(shlex.split, RUNNER.findall(script))
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container.get(probe, {}).get("exec", {}).get("command", [])
                if asked[:3] == ["python", "-m", "runner"]:
                    yield asked[3:]
    for each in of_kind(objects, "ConfigMap"):
        yield from map(shlex.split, RUNNER.findall(each["data"].get("become-node", "")))


def is_known(words: Sequence[str]) -> bool:
    """Return whether the program has this command with these options. It only shows its help."""
    return CliRunner().invoke(app, [*words, "--help"]).exit_code == 0


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_fits_the_schemas_of_kubernetes(whole: list[Object], version: str) -> None:
    assert misfits(whole, version) == []


def test_what_does_not_fit_is_found(plain: list[Object]) -> None:
    """A misspelt field, a wrong type, and one that is missing."""
    (deployment,) = (
        each for each in of_kind(plain, "Deployment") if each["metadata"]["name"] == "api"
    )
    changes: tuple[Callable[[Object], object], ...] = (
        lambda spec: spec["template"]["spec"].update(nodeSelecter={}),
        lambda spec: spec.update(minReadySeconds="many"),
        lambda spec: spec.pop("selector"),
    )
    for change in changes:
        broken = copy.deepcopy(deployment)
        change(broken["spec"])
        assert len(misfits([broken], OLDEST)) == 1


def test_the_overlay_alone_has_no_object_of_an_option(
    plain: list[Object], whole: list[Object]
) -> None:
    assert options() == ["ingress", "keda", "monitoring"]
    kinds = {each["kind"] for each in whole} - {each["kind"] for each in plain}
    assert kinds == OTHERS | {"Ingress"}


def test_every_variable_is_a_setting(whole: list[Object]) -> None:
    assert unknown(whole) == set()
    given = variables(whole)
    assert given["worker"]["RUNNER_IMAGES"] == given["api"]["RUNNER_IMAGES"] == '["python", "data"]'


def test_a_variable_that_is_no_setting_is_found(plain: list[Object]) -> None:
    changed = copy.deepcopy(plain)
    (env,) = (each["env"] for each in pods(changed)["api"].spec["containers"])
    env.append({"name": "RUNNER_STATEDIR", "value": "/"})
    assert unknown(changed) == {"RUNNER_STATEDIR"}


@pytest.mark.parametrize("component", ["api", "worker", "migrate", "operator"])
def test_each_process_takes_its_settings(
    whole: list[Object], component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the cluster knows stands for itself: the node's name, and the pod's address."""
    given = variables(whole)[component]
    filled = {"RUNNER_NODE": "node-1", "RUNNER_DOOR_ADDRESS": "192.0.2.1:7443"}
    for name, value in given.items():
        if name.startswith("RUNNER_"):
            monkeypatch.setenv(name, filled.get(name, value))
    settings = Settings()
    assert str(settings.state_dir) == "/var/lib/agent-runner"
    assert settings.objects_url == "s3://agent-runner/production"


def test_every_command_is_one_of_the_program(whole: list[Object]) -> None:
    found = {tuple(each) for each in commands(whole)}
    assert {each[:2] for each in found} == {
        ("api",), ("migrate",), ("worker",), ("worker", "--healthy"), ("nodes", "admit"),
        ("nodes", "authority"), ("nodes", "join"), ("signing", "trust"),
    }  # fmt: skip
    assert [each for each in found if not is_known(each)] == []
    assert not is_known(["nodes", "admit", "--authority", "/authority/doors", "--listens", ":7444"])
    assert not is_known(["nodes", "admits"])


def test_probes_and_prometheus_ask_what_the_api_answers(whole: list[Object]) -> None:
    (container,) = pods(whole)["api"].spec["containers"]
    (port,) = container["ports"]
    assert port == {"name": "http", "containerPort": Settings().port}
    (service,) = (each for each in of_kind(whole, "Service") if each["metadata"]["name"] == "api")
    (monitor,) = of_kind(whole, "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], service["spec"]["ports"][0]["targetPort"]) == ("http", "http")
    wanted, labels = monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"]
    assert wanted.items() <= labels.items()
    asked = [
        container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    ]
    assert {each["port"] for each in asked} == {"http"}
    routes = {route.path for route in health.router.routes}  # type: ignore[attr-defined]
    assert {*(each["path"] for each in asked), endpoint["path"]} == routes


def test_prometheus_finds_apis_and_workers_as_the_jobs_of_the_alert_rules(
    whole: list[Object],
) -> None:
    """In the form that the Prometheus Operator's page gives to both kinds."""
    rules = (ROOT / "deploy/monitoring/rules.yaml").read_text()
    for kind, ends, job in (
        ("ServiceMonitor", "endpoints", "runner-api"),
        ("PodMonitor", "podMetricsEndpoints", "runner-worker"),
    ):
        (monitor,) = of_kind(whole, kind)
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        assert set(monitor["spec"]) == {"selector", ends}
        (end,) = monitor["spec"][ends]
        assert set(end) == {"port", "path", "interval", "relabelings"}
        assert end["relabelings"] == [{"targetLabel": "job", "replacement": job}]
        assert f'up{{job="{job}"}}' in rules
    worker = pods(whole)["worker"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= worker.labels.items()
    (beside,) = (each for each in worker.spec["containers"] if each["name"] == "metrics")
    assert beside["ports"] == [{"name": end["port"], "containerPort": 9464}]
    assert variables(whole)["worker"]["RUNNER_WORKER_METRICS_PORT"] == beside["command"][-1]


async def test_keda_counts_what_the_api_tells(whole: list[Object], api: Database) -> None:
    """Its object has the form that KEDA's page on Prometheus gives; nothing takes a node away."""
    (scaled,) = of_kind(whole, "ScaledObject")
    spec = scaled["spec"]
    assert (scaled["apiVersion"], set(spec)) == (
        "keda.sh/v1alpha1",
        {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "advanced", "triggers"},
    )
    target = spec["scaleTargetRef"]["name"]
    assert (scaled["metadata"]["namespace"], target) == (pods(whole)[target].namespace, "room")
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == {
        "scaleDown": {"selectPolicy": "Disabled"}
    }
    told = {each.name for each in as_gauges(await read_figures(api)).collect()}
    asked = set()
    for trigger in spec["triggers"]:
        assert (trigger["type"], set(trigger["metadata"])) == (
            "prometheus", {"serverAddress", "query", "threshold"}
        )  # fmt: skip
        assert float(trigger["metadata"]["threshold"]) > 0
        asked |= set(re.findall(r"runner_\w+", trigger["metadata"]["query"]))
    assert asked == {"runner_executions", "runner_sandboxes"} <= told
    states = re.search(r'state=~"([a-z|]+)"', spec["triggers"][0]["metadata"]["query"])
    assert states is not None
    assert set(states[1].split("|")) == {state.value for state in WAITING | ACTIVE}


def test_whatever_an_object_refers_to_is_there(whole: list[Object]) -> None:
    """ConfigMaps, claims, services, volumes and ports; Secrets are made by the operator."""
    made = {
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in whole
    }
    for pod in pods(whole).values():
        volumes = {each["name"]: each for each in pod.spec.get("volumes", ())}
        assert {each["name"] for c in pod.containers for each in c.get("volumeMounts", ())} == set(
            volumes
        )
        for volume in volumes.values():
            config = volume.get("configMap", {"optional": True})
            assert config.get("optional") or ("ConfigMap", pod.namespace, config["name"]) in made
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", pod.namespace, claim["claimName"]) in made
        account = pod.spec.get("serviceAccountName")
        assert account is None or ("ServiceAccount", pod.namespace, account) in made
    for each in of_kind(whole, "Service"):
        pod = pods(whole)[each["spec"]["selector"][COMPONENT]]
        ports = [port["name"] for c in pod.containers for port in c.get("ports", ())]
        assert [port["targetPort"] for port in each["spec"]["ports"]] == ports
    host, _, port = variables(whole)["worker"]["ADMISSION"].partition(":")
    assert host.endswith(".svc")
    assert ("Service", *reversed(host.split(".")[:2])) in made
    assert pods(whole)["operator"].spec["containers"][0]["args"][-1].endswith(f":{port}")


def test_images_are_named_by_the_overlay_and_have_this_release(whole: list[Object]) -> None:
    used = {c["image"] for pod in pods(whole).values() for c in pod.containers}
    assert used == {
        f"registry.example.com/{name}:{__version__}"
        for name in ("agent-runner", "agent-runner-docker", "agent-runner-sandboxes")
    }
    made = {path.name for path in (MANIFESTS / "images").iterdir()}
    assert made == {"docker.Dockerfile", "sandboxes.Dockerfile"}


def test_no_secret_is_in_the_folder() -> None:
    for path in MANIFESTS.rglob("*"):
        if path.is_file():
            assert "kind: Secret" not in path.read_text()
    assert not list((MANIFESTS / OVERLAY).rglob("*secret*"))
