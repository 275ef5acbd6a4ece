"""What each pod may do, whom it reaches, and how long it lives."""

from collections.abc import Iterator

import pytest

from runner.base.settings import Settings
from tests.support.kubernetes import (
    COMPONENT,
    NAMESPACE,
    ROOT,
    Network,
    Object,
    Peer,
    Pod,
    of_kind,
    pods,
)

pytestmark = pytest.mark.timeout(600)  # kubectl may have to be downloaded first
API, NODES = "agent-runner", "agent-runner-nodes"
SOCKET, STATE = "/run/agent-runner", "/var/lib/agent-runner"
POSTGRES, REDIS, S3 = ("192.0.2.10", 5432), ("192.0.2.20", 6379), ("192.0.2.33", 443)
PUBLIC, PRIVATE = ("198.51.100.7", 443), ("10.96.0.1", 443)
DATA = {POSTGRES, REDIS, S3}
DOOR, ADMISSION, HTTP, METRICS, DNS = 7443, 7444, 8080, 9464, 53


def excesses(pod: Pod) -> Iterator[str]:
    """Yield what Kubernetes' standard `restricted` does not permit, as far as pods of ours go."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(field):
            yield field
    kinds = {kind for each in pod.spec.get("volumes", ()) for kind in each if kind != "name"}
    yield from kinds - {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    shared = pod.spec.get("securityContext", {})
    for container in pod.containers:
        context = {**shared, **container.get("securityContext", {})}
        if context.get("privileged"):
            yield "privileged"
        if context.get("allowPrivilegeEscalation") is not False:
            yield "allowPrivilegeEscalation"
        if not context.get("runAsNonRoot"):
            yield "root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield "seccomp"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield "capabilities"
        if not context.get("readOnlyRootFilesystem"):
            yield "a root that can be written"


@pytest.fixture(scope="module")
def network(plain: list[Object]) -> Network:
    """Return the policies of the overlay without options."""
    return Network(plain)


@pytest.fixture(scope="module")
def ours(whole: list[Object]) -> dict[str, Pod]:
    """Return all pods."""
    return pods(whole)


def peer(pod: Pod) -> Peer:
    """Return a pod as an end of a connection."""
    return Peer(pod.namespace, pod.labels)


def test_only_docker_has_rights_on_its_host(ours: dict[str, Pod]) -> None:
    """The worker sees folders of its host, and has nothing else that is not permitted."""
    found = {name: set(excesses(pod)) for name, pod in ours.items()}
    assert found.pop("docker") > {"privileged", "root", "hostPath"}
    assert found.pop("worker") == {"hostPath"}
    assert found == {name: set() for name in ("api", "migrate", "operator", "room")}


def test_namespaces_permit_no_more_than_their_pods_need(
    whole: list[Object], ours: dict[str, Pod]
) -> None:
    levels = {
        each["metadata"]["name"]: each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for each in of_kind(whole, "Namespace")
    }
    assert levels == {API: "restricted", NODES: "privileged"}
    assert {name for name, pod in ours.items() if pod.namespace == NODES} == {
        "docker", "worker", "room"
    }  # fmt: skip


def test_dockers_socket_is_the_workers_and_dockers_alone(
    whole: list[Object], ours: dict[str, Pod]
) -> None:
    """Its group is the worker's, who is in no other one."""
    holders = {name: pod.mounted(SOCKET) for name, pod in ours.items() if pod.mounted(SOCKET)}
    assert holders == {"docker": ["docker"], "worker": ["images", "worker"]}
    (config,) = (
        each["data"]["daemon.json"]
        for each in of_kind(whole, "ConfigMap")
        if "daemon.json" in each["data"]
    )
    user = ours["worker"].spec["securityContext"]
    assert f'"group": "{user["runAsGroup"]}"' in config
    assert f'"hosts": ["unix://{SOCKET}/docker.sock"]' in config
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in (ROOT / "Dockerfile").read_text()
    (folders,) = ours["docker"].spec["initContainers"]
    assert folders["command"][-5:] == ["-o", "10000", "-g", "10000", STATE]


def test_worker_and_docker_see_the_state_folder_by_one_path(ours: dict[str, Pod]) -> None:
    """Docker mounts a sandbox's folder by the path that the worker names."""
    for name in ("worker", "docker"):
        pod = ours[name]
        (volume,) = (
            each["name"]
            for each in pod.spec["volumes"]
            if each.get("hostPath", {}).get("path") == STATE
        )
        places = [
            each["mountPath"]
            for each in pod.spec["containers"][0]["volumeMounts"]
            if each["name"] == volume
        ]
        assert places == [STATE]


def test_nodes_run_apart_from_everything_else(ours: dict[str, Pod]) -> None:
    for name, pod in ours.items():
        apart = pod.spec.get("nodeSelector") == {"agent-runner/node": "true"}
        tolerates = [each["key"] for each in pod.spec.get("tolerations", ())]
        assert apart == (tolerates == ["agent-runner/node"]) == (pod.namespace == NODES), name


def test_no_pod_has_a_token_of_the_cluster(ours: dict[str, Pod]) -> None:
    assert all(pod.spec["automountServiceAccountToken"] is False for pod in ours.values())


def test_each_pod_has_the_secrets_that_are_its_own(ours: dict[str, Pod]) -> None:
    """A token of a node that joins is in no container that runs on."""
    found = {
        name: {
            each["secret"]["secretName"] for each in pod.spec.get("volumes", ()) if "secret" in each
        }
        for name, pod in ours.items()
    }
    assert found == {
        "api": {"api", "api-door"}, "worker": {"worker", "invitations"}, "docker": set(),
        "migrate": {"operator"}, "operator": {"operator"}, "room": set(),
    }  # fmt: skip
    for running in ours["worker"].spec["containers"]:
        assert "invitations" not in {each["name"] for each in running["volumeMounts"]}


def test_each_pod_reaches_what_it_needs_and_nothing_else(
    network: Network, ours: dict[str, Pod]
) -> None:
    """By the policies alone, for each address and port that the product knows."""
    needs = {
        "api": DATA, "worker": DATA | {PUBLIC}, "migrate": {POSTGRES}, "operator": {POSTGRES},
        "docker": set(), "room": set(),
    }  # fmt: skip
    for name, pod in ours.items():
        reached = {
            (address, port)
            for address, port in (*DATA, PUBLIC, PRIVATE)
            if network.reaches(peer(pod), Peer(address=address), port)
        }
        assert reached == needs[name], name
    names = Peer("kube-system", {"k8s-app": "kube-dns"})
    assert {
        name for name, pod in ours.items() if network.reaches(peer(pod), names, DNS, "UDP")
    } == {"api", "worker", "migrate", "operator"}


def test_only_the_apis_reach_doors_and_only_nodes_the_admission(
    network: Network, ours: dict[str, Pod]
) -> None:
    strangers = [
        Peer("default", {COMPONENT: "api"}), Peer(NODES, {COMPONENT: "api"}), Peer(API, {}),
        Peer(address="198.51.100.7"),
    ]  # fmt: skip
    reached = {
        (source, target, port)
        for source, one in ours.items()
        for target, other in ours.items()
        for port in (DOOR, ADMISSION, HTTP)
        if network.reaches(peer(one), peer(other), port)
    }
    assert reached == {("api", "worker", DOOR), ("worker", "operator", ADMISSION)}
    for each in strangers:
        for pod in ours.values():
            for port in (DOOR, ADMISSION, HTTP):
                assert not network.reaches(each, peer(pod), port)


def test_without_the_policies_strangers_would_reach_a_door(
    plain: list[Object], ours: dict[str, Pod]
) -> None:
    stranger, worker = Peer("default", {}), peer(ours["worker"])
    denying = [each for each in plain if each["kind"] != "NetworkPolicy"]
    assert Network(denying).reaches(stranger, worker, DOOR)
    one_gone = [each for each in plain if each["metadata"]["name"] != "doors-from-api"]
    assert not Network(one_gone).reaches(peer(ours["api"]), worker, DOOR)


def test_options_let_in_the_ingress_and_prometheus(
    whole: list[Object], ours: dict[str, Pod]
) -> None:
    network, names = Network(whole), ("ingress-nginx", "monitoring", "default", "keda")
    let_in = {
        (name, target, port)
        for name in names
        for target, pod in ours.items()
        for port in (HTTP, DOOR, ADMISSION, METRICS)
        if network.reaches(Peer(name, {NAMESPACE: name}), peer(pod), port)
    }
    assert let_in == {
        ("ingress-nginx", "api", HTTP), ("monitoring", "api", HTTP),
        ("monitoring", "worker", METRICS),
    }  # fmt: skip


def test_the_ingress_passes_on_nothing_that_needs_no_key(whole: list[Object]) -> None:
    (ingress,) = of_kind(whole, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    paths = {each["path"] for each in rule["http"]["paths"]}
    assert paths == {"/v1", "/console", "/docs", "/openapi.json"}


def test_executions_may_end_before_their_worker_is_killed(ours: dict[str, Pod]) -> None:
    pod = ours["worker"].spec
    (drain,) = (
        float(each["value"])
        for each in pod["containers"][0]["env"]
        if each["name"] == "RUNNER_DRAIN_S"
    )
    assert drain > Settings().drain_s
    assert pod["terminationGracePeriodSeconds"] >= drain + 20


def test_a_rollout_of_workers_leaves_docker_and_its_sandboxes(
    whole: list[Object], ours: dict[str, Pod]
) -> None:
    """No probe restarts either, and only who deletes the pod of a Docker daemon replaces it."""
    how = {
        each["metadata"]["name"]: each["spec"]["updateStrategy"]
        for each in of_kind(whole, "DaemonSet")
    }
    assert how == {
        "docker": {"type": "OnDelete"},
        "worker": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
    }
    for name in ("docker", "worker"):
        container = ours[name].spec["containers"][0]
        assert {"livenessProbe", "startupProbe"}.isdisjoint(container)
        assert "exec" in container["readinessProbe"]


def test_some_apis_stay_while_hosts_are_maintained(whole: list[Object]) -> None:
    (budget,) = of_kind(whole, "PodDisruptionBudget")
    (scaler,) = of_kind(whole, "HorizontalPodAutoscaler")
    (deployment,) = (
        each for each in of_kind(whole, "Deployment") if each["metadata"]["name"] == "api"
    )
    assert budget["spec"]["maxUnavailable"] < scaler["spec"]["minReplicas"]
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == "api"
    assert "replicas" not in deployment["spec"], "the autoscaler's number would be undone"
