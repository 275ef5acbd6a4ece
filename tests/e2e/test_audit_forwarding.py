"""Forwarding through the whole stack: real receivers on loopback that accept, fail and mislead."""

import base64
import hashlib
import hmac
import json
import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runner import Client
from runner.audit import offline, webhook
from runner.words.ids import PLATFORM_TENANT
from tests.support import deployment as deployments
from tests.support.deployment import Deployment, eventually
from tests.support.upstreams import Answer, Authority, Request, Upstream, serving

HOOKS, PRIVATE, MISNAMED, OPERATORS = (
    "hooks.example.test", "private.example.test", "misnamed.example.test", "siem.example.test",
)  # fmt: skip
TRUSTED, UNTRUSTED, OPERATORS_OWN = "127.0.0.1", "127.0.0.2", "127.0.0.3"
SECRET = webhook.new_secret()


@dataclass
class Receiver:
    """A webhook's server, and how it answers."""

    upstream: Upstream
    answer: Callable[[Request], Answer] = lambda _: Answer(b"")

    def url(self, host: str = HOOKS, path: str = "/") -> str:
        """Return its address under a name."""
        return f"https://{host}:{self.upstream.port}{path}"

    def seqs(self, path: str) -> list[int]:
        """Return the numbers of the records that were sent to a path, in the order of arrival."""
        return [each["seq"] for request in self.of(path) for each in sent(request)["records"]]

    def of(self, path: str) -> list[Request]:
        """Return everything that was sent to a path."""
        return [each for each in self.upstream.requests if each.path == path]


@dataclass
class Syslog:
    """A syslog receiver: what it has read, and whether it accepts connections."""

    port: int
    received: bytearray = field(default_factory=bytearray)

    def messages(self) -> list[str]:
        """Return the messages, separated by their octet counts."""
        found, rest = [], bytes(self.received)
        while rest:
            length, _, rest = rest.partition(b" ")
            if len(rest) < int(length):
                break
            found.append(rest[: int(length)].decode())
            rest = rest[int(length) :]
        return found


def sent(request: Request) -> dict[str, Any]:
    """Return the body of a delivery."""
    body: dict[str, Any] = json.loads(request.body)
    return body


@contextmanager
def syslog(tls: ssl.SSLContext | None) -> Iterator[Syslog]:
    """Run a syslog receiver on the operator's address."""
    with socket.create_server((OPERATORS_OWN, 0)) as listener:
        made = Syslog(listener.getsockname()[1])

        def read(connection: socket.socket) -> None:
            try:
                with tls.wrap_socket(connection, server_side=True) if tls else connection as stream:
                    while piece := stream.recv(65536):
                        made.received += piece
            except OSError:
                connection.close()

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                read(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@dataclass
class World:
    """A deployment and the receivers that it knows."""

    deployment: Deployment
    hooks: Receiver
    syslog: Syslog

    def client(self, tenant: str) -> Client:
        """Return a client of a tenant."""
        return self.deployment.client(tenant)


def receiver(stack: ExitStack, tls: ssl.SSLContext) -> Receiver:
    """Return a running webhook's server."""

    def answer(request: Request) -> Answer:
        return made.answer(request)

    made = Receiver(stack.enter_context(serving(answer, tls)))
    return made


@pytest.fixture(scope="module")
def world(image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return a deployment that forwards to the operator by TLS, and knows the tenants' names."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    with ExitStack() as stack:
        hooks = receiver(stack, authority.context(HOOKS, PRIVATE))
        receiving = stack.enter_context(syslog(authority.context(OPERATORS)))
        made = stack.enter_context(
            deployments.deployment(
                reconcile_s=0.5,
                audit_checkpoint_s=0.5,
                egress_trusted_networks=(f"{TRUSTED}/32",),
                egress_hosts={
                    HOOKS: TRUSTED, MISNAMED: TRUSTED, PRIVATE: UNTRUSTED,
                    OPERATORS: OPERATORS_OWN,
                },
                egress_roots=authority.path,
                audit_trusted_networks=(f"{OPERATORS_OWN}/32",),
                audit_syslog_url=f"tls://{OPERATORS}:{receiving.port}",
                audit_webhook_url=f"https://{HOOKS}:{hooks.upstream.port}/operator",
                audit_webhook_secret=SECRET,
            )
        )  # fmt: skip
        yield World(made, hooks, receiving)


def logged(client: Client) -> list[dict[str, Any]]:
    """Return a tenant's complete log."""
    items: list[dict[str, Any]] = client.audit(limit=500)["items"]
    return items


def state(client: Client) -> dict[str, Any]:
    """Return what the tenant sees of its webhook."""
    return client.audit_webhook()


def test_a_tenants_log_arrives_in_order_and_signed(world: World) -> None:
    """It begins with the webhook's own record. Its secret is shown once, and it verifies."""
    client = world.client("forwarded")
    made = client.put_audit_webhook(world.hooks.url(path="/in-order"))
    begun = len(logged(client))
    for number in range(5):
        client.put_secret(f"s{number}", "a-value-of-it")
    total = begun + 5
    eventually(lambda: len(world.hooks.seqs("/in-order")) == 6)
    assert world.hooks.seqs("/in-order") == list(range(begun, total + 1))
    by_seq = {each["seq"]: each for each in logged(client)}
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    for request in world.hooks.of("/in-order"):
        headers = {name.lower(): value for name, value in request.headers.items()}
        over = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
        mac = base64.b64encode(hmac.new(key, over, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{mac}"
        for record in sent(request)["records"]:
            assert record["record"] == by_seq[record["seq"]]["record"]
            assert record["hash"] == by_seq[record["seq"]]["hash"]
    eventually(lambda: state(client)["delivered_seq"] == total)
    assert "secret" not in state(client)
    assert made["secret"] not in json.dumps(logged(client))


def test_a_receiver_that_fails_gets_everything_in_order_once_it_works(world: World) -> None:
    """Failures are repeated after longer pauses; nothing overtakes; the tenant can see it."""
    client = world.client("failing")
    failures = 3

    def fails(request: Request) -> Answer:
        nonlocal failures
        if request.path != "/failing" or failures == 0:
            return Answer(b"")
        failures -= 1
        return Answer(b"", status=503)

    world.hooks.answer = fails
    client.put_audit_webhook(world.hooks.url(path="/failing"))
    told = eventually(lambda: state(client) if state(client)["failures"] == 2 else None)
    assert told["problem"] == "it answered 503"
    assert told["retry_at"] is not None
    client.put_secret("later", "a-value-of-it")
    eventually(lambda: state(client)["delivered_seq"] == len(logged(client)))
    taken = [
        each["seq"]
        for request in world.hooks.of("/failing")[3:]
        for each in sent(request)["records"]
    ]
    assert taken == list(range(taken[0], len(logged(client)) + 1))
    assert state(client)["failures"] == 0


def test_nothing_is_lost_when_the_worker_is_killed(world: World) -> None:
    """The cursor is stored: the next worker sends what was not taken, perhaps a second time."""
    client = world.client("killed")
    client.put_audit_webhook(world.hooks.url(path="/killed"))
    begun = state(client)["delivered_seq"] + 1
    world.deployment.portal.call(world.deployment.worker.stop, signal.SIGKILL)
    for number in range(7):
        client.put_secret(f"s{number}", "a-value-of-it")
    assert state(client)["delivered_seq"] < len(logged(client))
    world.deployment.restart_worker()
    eventually(lambda: state(client)["delivered_seq"] == len(logged(client)), within_s=90)
    arrived = world.hooks.seqs("/killed")
    assert sorted(set(arrived)) == list(range(begun, len(logged(client)) + 1))
    first = list(dict.fromkeys(arrived))
    assert first == sorted(first), "in order, whatever came twice"


REFUSED: dict[str, tuple[str, Callable[[World], str]]] = {
    "redirect": (
        "it answered 302; redirects are not followed", lambda w: w.hooks.url(path="/redirect"),
    ),
    "private": (
        "its host name is not at a public address", lambda w: w.hooks.url(PRIVATE, "/private"),
    ),
    "misnamed": (
        "its certificate is not valid for its name", lambda w: w.hooks.url(MISNAMED, "/misnamed"),
    ),
    "unknown": ("its host name was not found", lambda _: "https://nowhere.invalid/"),
    "closed": ("it cannot be connected to", lambda _: f"https://{HOOKS}:1/"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_delivery_that_must_not_be_made_is_not(name: str, world: World) -> None:
    """Redirects, private addresses, other names: nothing is sent; the tenant sees why."""
    problem, url = REFUSED[name]
    client = world.client(f"refused-{name}")
    target = world.hooks.url(path="/behind-the-redirect")

    def redirects(request: Request) -> Answer:
        if request.path == "/redirect":
            return Answer(b"", status=302, headers={"Location": target})
        return Answer(b"")

    world.hooks.answer = redirects
    client.put_audit_webhook(url(world))
    told = eventually(lambda: state(client) if state(client)["failures"] else None)
    assert told["problem"] == problem
    for path in ("/behind-the-redirect", "/private", "/misnamed"):
        assert world.hooks.of(path) == []
    client.delete_audit_webhook()


def test_the_same_private_address_is_reached_once_its_network_is_trusted(world: World) -> None:
    """The control: only the guard prevented the delivery to loopback."""
    client = world.client("trusted")
    client.put_audit_webhook(world.hooks.url(HOOKS, "/trusted"))
    eventually(lambda: world.hooks.of("/trusted"))


def test_the_operator_gets_every_chain_from_its_beginning(world: World) -> None:
    """By webhook and by syslog over TLS, for tenants and the platform, each without a gap."""
    client = world.client("everything")
    client.put_secret("token", "a-value-of-it")
    export = b"".join(_exported(client)).decode().splitlines()
    report = offline.verify(export)
    assert report.findings == ()
    wanted = [json.loads(line) for line in export[1:-1]]

    def by_webhook() -> list[dict[str, Any]]:
        bodies = [sent(request) for request in world.hooks.of("/operator")]
        found = [r for body in bodies if body["tenant"] == report.tenant for r in body["records"]]
        return list({each["seq"]: each for each in found}.values())[: len(wanted)]

    def by_syslog() -> list[dict[str, Any]]:
        pattern = re.compile(rf'tenant="{report.tenant}" seq="\d+"\] (.*)', re.DOTALL)
        found = [pattern.search(each) for each in world.syslog.messages()]
        parsed = [json.loads(each[1]) for each in found if each]
        return list({each["seq"]: each for each in parsed}.values())[: len(wanted)]

    eventually(lambda: by_webhook() == wanted)
    eventually(lambda: by_syslog() == wanted)
    key = webhook.key_of(SECRET)
    (request, *_) = world.hooks.of("/operator")
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["webhook-signature"] == webhook.sign(
        key, headers["webhook-id"], int(headers["webhook-timestamp"]), request.body
    )
    # A record that belongs to no tenant, too: somebody used an unknown key.
    guess = {"Authorization": "Bearer rk_aaaaaaaaaaaa_" + "A" * 43}
    assert httpx.get(f"{world.deployment.url}/v1/audit", headers=guess).status_code == 401
    nobody = f'tenant="{PLATFORM_TENANT}"'
    eventually(lambda: any(nobody in each for each in world.syslog.messages()))
    # A network of the operator's own is not open to tenants.
    client.put_audit_webhook(f"https://{OPERATORS}:{world.syslog.port}/")
    told = eventually(lambda: state(client) if state(client)["failures"] else None)
    assert told["problem"] == "its host name is not at a public address"


def _exported(client: Client) -> Iterator[bytes]:
    with client.export_audit() as pieces:
        yield from pieces


def test_the_secret_is_nowhere_in_clear(world: World) -> None:
    """It is in neither the database nor a log in clear text, and each webhook gets a new one."""
    client = world.client("sealed")
    secrets = {client.put_audit_webhook(world.hooks.url(path="/sealed"))["secret"] for _ in "ab"}
    eventually(lambda: world.hooks.of("/sealed"))
    assert len(secrets) == 2
    stored = json.dumps(world.deployment.sql("SELECT * FROM audit_webhooks"), default=str)
    folder: Path = world.deployment.stack.settings.state_dir / "log"
    logs = "".join(path.read_text("utf-8", "replace") for path in folder.iterdir())
    for secret in (*secrets, SECRET):
        assert secret not in stored + logs
