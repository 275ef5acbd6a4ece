"""What happens to hosts while clients submit: each event as its name, and how it is made to happen.

An event also checks what only it can know: what ran on the host that failed, and what became of a
sandbox there.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from runner.words.states import ENDED
from tests.support.deployment import eventually
from tests.support.hosts.fleet import LEASE_S, NODES, Fleet, FleetNode
from tests.support.hosts.slow import Delays

WITHIN_S = 90.0
SLOW = Delays(delay_s=0.1, loss=0.01)
"""In each direction: a round trip takes 200 ms, and one in fifty is lost."""
BLINK_S = LEASE_S / 8
QUIET = "quiet"
"""The tenant whose executions and sandboxes the events themselves look after."""
LONG_S = 8
MOST_TRIED = 12


@dataclass
class Scene:
    """The deployment, and what is not as it should be."""

    made: Fleet
    operator: httpx.Client
    client: httpx.Client
    release: Path
    """The code of another release."""
    wrong: list[str] = field(default_factory=list)
    turn: int = 0

    def next(self) -> FleetNode:
        """Return the host whose turn it is."""
        self.turn += 1
        return self.made.nodes[self.turn % len(self.made.nodes)]

    def order(self, node: FleetNode, what: str) -> None:
        """Drain a node, or let it go on."""
        self.operator.post(f"{NODES}/{node.name}/{what}").raise_for_status()

    def ready(self, node: FleetNode) -> None:
        """Wait until a node may take something."""
        eventually(lambda: self.made.states(self.operator).get(node.name) == "ready")

    def must(self, holds: object, what: str) -> None:
        """Note it if something does not hold."""
        if not holds:
            self.wrong.append(what)

    def one_execution(self) -> float:
        """Return how long an execution takes now."""
        began = time.monotonic()
        body = {"command": ["true"], "size": "nano", "wait_s": 20, "on_worker_loss": "retry"}
        found = eventually(lambda: _accepted(self.client, body), within_s=WITHIN_S)
        state = self.ended(found["id"])
        self.must(state == "succeeded", f"an execution afterwards ended as {state}")
        return time.monotonic() - began

    @contextmanager
    def alone(self, node: FleetNode) -> Iterator[None]:
        """Let only one node take something new inside the context."""
        others = [each for each in self.made.nodes if each is not node]
        for each in others:
            self.order(each, "drain")
        try:
            time.sleep(2.5)  # A node learns it within two seconds, an API within one.
            yield
        finally:
            for each in others:
                self.order(each, "resume")

    def running_on(self, node: FleetNode, *on_loss: str) -> list[str]:
        """Return an execution for each of these choices, whose programs run on a node."""
        body = {"command": ["sleep", str(LONG_S)], "size": "nano"}
        ids = [self._submitted({**body, "on_worker_loss": each}) for each in on_loss]
        eventually(lambda: self._on(ids, node) == len(ids), within_s=WITHIN_S)
        return ids

    def sandbox_on(self, node: FleetNode) -> str:
        """Return a new sandbox that lives on a node. The emptiest node takes the next one."""
        others: list[str] = []
        try:
            for _ in range(MOST_TRIED):
                found: str = eventually(lambda: _made(self.client), within_s=WITHIN_S)["id"]
                if self.node_of(found) == node.name:
                    return found
                others.append(found)
        finally:
            for each in others:
                self.end(each)
        raise RuntimeError(f"{node.name} took none of {MOST_TRIED} sandboxes")

    def end(self, sandbox: str) -> None:
        """Kill a sandbox."""
        self.client.delete(f"/v1/sandboxes/{sandbox}").raise_for_status()

    def node_of(self, sandbox: str) -> str:
        """Return the node of a sandbox."""
        (row,) = self.made.sql("SELECT node FROM sandboxes WHERE sandbox_id = %s", sandbox)
        return str(row["node"])

    def says(self, sandbox: str, text: str) -> bool:
        """Return whether a sandbox says something when it is asked to."""
        asked = {"command": ["echo", text], "wait_s": 20}
        answer = self.client.post(f"/v1/sandboxes/{sandbox}/processes", json=asked)
        return answer.is_success and text in answer.text

    def works(self, node: FleetNode) -> None:
        """Wait until an execution begins on a node."""
        (now,) = self.made.sql("SELECT clock_timestamp() AS now")
        begun = "SELECT 1 FROM executions WHERE node = %s AND started_at > %s LIMIT 1"
        eventually(lambda: self.made.sql(begun, node.name, now["now"]), within_s=WITHIN_S)

    def ended(self, id_: str) -> str:
        """Wait until an execution has ended; return its state."""
        return str(eventually(lambda: self._ended(id_), within_s=WITHIN_S))

    def _ended(self, id_: str) -> str | None:
        (row,) = self.made.sql("SELECT state FROM executions WHERE execution_id = %s", id_)
        return str(row["state"]) if row["state"] in ENDED else None

    def _submitted(self, body: dict[str, Any]) -> str:
        return str(eventually(lambda: _accepted(self.client, body), within_s=WITHIN_S)["id"])

    def _on(self, ids: list[str], node: FleetNode) -> int:
        return len(
            self.made.sql(
                "SELECT 1 FROM executions WHERE execution_id = ANY (%s::uuid[]) AND node = %s "
                "AND state = 'running'",
                ids,
                node.name,
            )
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to a host."""

    name: str
    happen: Callable[[Scene], None]


def power(scene: Scene) -> None:
    """Take a host's power away, and give it back once everybody has noticed."""
    node = scene.next()
    with scene.alone(node):
        sandbox = scene.sandbox_on(node)
        again, never = scene.running_on(node, "retry", "fail")
        node.power_off()
    _given_to_others(scene, node, sandbox, again, never)
    node.power_on()
    scene.ready(node)


def cable(scene: Scene) -> None:
    """Cut a host off until others have its work; it comes back with results too late."""
    node = scene.next()
    with scene.alone(node):
        sandbox = scene.sandbox_on(node)
        again, never = scene.running_on(node, "retry", "fail")
        with node.machine.unplugged():
            for each in scene.made.nodes:
                if each is not node:
                    scene.order(each, "resume")
            _given_to_others(scene, node, sandbox, again, never)


def _given_to_others(scene: Scene, node: FleetNode, sandbox: str, again: str, never: str) -> None:
    """Require that what may be repeated is, elsewhere, and that nothing else is."""
    state = scene.ended(again)
    scene.must(state == "succeeded", f"what may be repeated ended as {state}")
    state = scene.ended(never)
    scene.must(state == "system_error", f"what must not be repeated ended as {state}")
    (where,) = scene.made.sql("SELECT node FROM executions WHERE execution_id = %s", again)
    scene.must(where["node"] != node.name, "what may be repeated ended where it began")
    lost = eventually(lambda: _reason(scene.client, sandbox), within_s=WITHIN_S)
    scene.must(lost == "lost", f"the sandbox of {node.name} ended as {lost}")


def blink(scene: Scene) -> None:
    """Give a host's cable a loose contact, for less than a lease: nothing is lost."""
    node = scene.next()
    with scene.alone(node):
        sandbox = scene.sandbox_on(node)
        (ran,) = scene.running_on(node, "fail")
        with node.machine.unplugged():
            time.sleep(BLINK_S)
        state = scene.ended(ran)
    scene.must(state == "succeeded", f"after a short cut, an execution ended as {state}")
    scene.must(scene.says(sandbox, "still here"), "a sandbox is gone after a short cut")
    scene.end(sandbox)


def slow(scene: Scene) -> None:
    """Let a host be far away, on a bad line: all of its work ends, though later."""
    node = scene.next()
    content = bytes(range(256)) * 1024
    with scene.alone(node), node.machine.slowed(SLOW):
        sandbox = scene.sandbox_on(node)
        state = scene.ended(*scene.running_on(node, "fail"))
        scene.must(state == "succeeded", f"on a slow line, an execution ended as {state}")
        scene.must(scene.says(sandbox, "far away"), "a sandbox does not answer on a slow line")
        client, path = scene.client, f"/v1/sandboxes/{sandbox}/files/content"
        client.put(path, params={"path": "a"}, content=content).raise_for_status()
        kept = client.get(path, params={"path": "a"}).raise_for_status().content
        scene.must(kept == content, "a file is another one after a slow line")
    scene.end(sandbox)


def drain(scene: Scene) -> None:
    """Drain a host, stop it once it is empty, and take it back."""
    node = scene.next()
    _emptied(scene, node)
    node.stop()
    scene.must(scene.made.states(scene.operator)[node.name] == "away", "a stopped node works")
    node.start()
    scene.order(node, "resume")


def add(scene: Scene) -> None:
    """Let a host join while clients submit, take its share, and be removed again."""
    node = scene.made.join()
    scene.ready(node)
    with scene.alone(node):
        scene.running_on(node, "retry")
    _emptied(scene, node)
    node.stop()
    scene.operator.delete(f"{NODES}/{node.name}").raise_for_status()
    scene.must(node.containers() == 0, f"{node.name} has containers left")
    scene.made.leave(node)


def upgrade(scene: Scene) -> None:
    """Give each host another release, one after another; a sandbox on each lives on."""
    for node in scene.made.nodes:
        sandbox = scene.sandbox_on(node)
        _emptied(scene, node, but=sandbox)
        node.stop()
        node.tree = scene.release if node.tree is None else None
        node.start()
        scene.order(node, "resume")
        scene.ready(node)
        version = scene.operator.get(f"{NODES}/{node.name}").json()["node"]["version"]
        scene.must(version == node.version, f"{node.name} has the version {version}")
        scene.works(node)
        scene.must(scene.says(sandbox, "older than this"), "a sandbox is gone after an upgrade")
        scene.end(sandbox)


def _emptied(scene: Scene, node: FleetNode, but: str | None = None) -> None:
    """Drain a node, and wait until it holds nothing, except for one sandbox."""
    scene.order(node, "drain")
    path = f"{NODES}/{node.name}"
    eventually(
        lambda: {each["id"] for each in scene.operator.get(path).json()["held"]} <= {but},
        within_s=WITHIN_S,
    )


def _accepted(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any] | None:
    answer = client.post("/v1/executions", json=body)
    found: dict[str, Any] = answer.json()
    return found if answer.is_success else None


def _made(client: httpx.Client) -> dict[str, Any] | None:
    answer = client.post("/v1/sandboxes", json={"size": "nano"})
    found: dict[str, Any] = answer.json()
    return found if answer.is_success else None


def _reason(client: httpx.Client, sandbox: str) -> str | None:
    found = client.get(f"/v1/sandboxes/{sandbox}").json()
    return str(found["reason"]) if found["state"] == "ended" else None


EVENTS = tuple(
    Event(each.__name__, each) for each in (power, cable, blink, slow, drain, add, upgrade)
)
