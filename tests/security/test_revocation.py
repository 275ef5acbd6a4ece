"""Everything that somebody made or opened ends within a second after their right.

One table says how a right ends, and which of the things that its holder made or opened end with it.
Every test opens all of them and checks each one a second after the end. In the control nothing
ends, and all of them must live, or the table would show nothing. What needs a worker has tests of
its own: all else is opened where executions stay queued.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from queue import Queue
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from runner.words.principal import Role
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, bearing, eventually
from tests.support.people import PASSWORD, Person

WITHIN_S = 1.0
LARGE = 24 * 2**20
"""Size of a file: more than all buffers between disk and client hold."""
ECHO = """
import socket, threading
def echo(connection):
    while data := connection.recv(100): connection.sendall(data)
listener = socket.create_server(("127.0.0.1", 9000))
while True: threading.Thread(target=echo, args=(listener.accept()[0],)).start()
"""
NEW_PASSWORD = "walrus tempo granite umbrella"  # noqa: S105 - of people who are not

Lives = Callable[[], bool]
_numbers = count(1)


class SlowBody:
    """A request's body whose second half is sent when the test releases it."""

    def __init__(self, body: bytes) -> None:
        self.first, self.second = body[: len(body) // 2], body[len(body) // 2 :]
        self.begun, self.go = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        yield self.first
        self.begun.set()
        self.go.wait(60)
        yield self.second


@dataclass(frozen=True)
class Present:
    """What the tenant has before the holder opens anything, by id."""

    execution: str = ""
    """It stays queued."""
    sandbox: str = ""
    """On its port 9000, a server repeats what it hears."""


@dataclass
class Holder:
    """Somebody with a right, a session or a key, and a client that uses it."""

    http: httpx.Client
    deployment: Deployment
    present: Present
    stack: ExitStack = field(default_factory=ExitStack)

    def another(self) -> httpx.Client:
        """Return another connection that uses the same right."""
        made = httpx.Client(
            base_url=self.http.base_url,
            headers=self.http.headers,
            cookies=self.http.cookies,
            timeout=30,
        )
        return self.stack.enter_context(made)


Opening = Callable[[Holder], Lives]


def session_or_key(holder: Holder) -> Lives:
    """Check the holder's own session or key."""
    return lambda: holder.another().get("/v1/executions").status_code == 200


def event_stream(holder: Holder) -> Lives:
    """Follow an execution that says nothing more."""
    client = holder.another()
    url = f"/v1/executions/{holder.present.execution}/events"
    timeout = httpx.Timeout(30, read=0.3)
    answer = holder.stack.enter_context(client.stream("GET", url, timeout=timeout))
    assert answer.status_code == 200
    parts = answer.iter_raw()
    assert next(parts)

    def lives() -> bool:
        try:
            for _ in parts:
                pass
        except httpx.ReadTimeout:
            return True
        except httpx.RemoteProtocolError:
            return False
        return False

    return lives


def download(holder: Holder) -> Lives:
    """Begin to read a large file slowly."""
    client = holder.another()
    answer = holder.stack.enter_context(client.stream("GET", "/v1/files/large"))
    assert answer.status_code == 200
    parts = answer.iter_raw()
    got = [len(next(parts))]

    def lives() -> bool:
        with suppress(httpx.RemoteProtocolError, httpx.ReadError):
            got.extend(map(len, parts))
        return sum(got) == LARGE

    return lives


def slow_request(holder: Holder, method: str, path: str, body: bytes, media_type: str) -> Lives:
    """Begin a request whose body comes in two parts; it lives if it succeeds in the end."""
    client, slow = holder.another(), SlowBody(body)
    answers: Queue[httpx.Response | Exception] = Queue()
    headers = {"Content-Length": str(len(body)), "Content-Type": media_type}

    def send() -> None:
        try:
            answers.put(client.request(method, path, content=iter(slow), headers=headers))
        except httpx.HTTPError as error:
            answers.put(error)

    sender = threading.Thread(target=send)
    sender.start()
    holder.stack.callback(sender.join, 60)
    holder.stack.callback(slow.go.set)
    assert slow.begun.wait(30)

    def lives() -> bool:
        slow.go.set()
        answer = answers.get(timeout=30)
        return isinstance(answer, httpx.Response) and answer.is_success

    return lives


def upload(holder: Holder) -> Lives:
    """Begin to send a file."""
    path = f"/v1/files/up-{next(_numbers)}"
    return slow_request(holder, "PUT", path, b"x" * 2**16, "application/octet-stream")


def submission(holder: Holder) -> Lives:
    """Begin to submit an execution."""
    body = b'{"command": ["true"], "stdin": "' + b"x" * 2000 + b'"}'
    return slow_request(holder, "POST", "/v1/executions", body, "application/json")


def port_stream(holder: Holder) -> Lives:
    """Dial a port of a sandbox."""
    url = f"{holder.deployment.url}/v1/sandboxes/{holder.present.sandbox}/tcp/9000"
    given = {"Authorization": holder.http.headers.get("Authorization", "")}
    if not given["Authorization"]:
        cookies = (f"{each.name}={each.value}" for each in holder.http.cookies.jar)
        given = {"Cookie": "; ".join(cookies), "Origin": holder.deployment.url}

    def dialled() -> ClientConnection | None:
        try:
            dialling = connect(url.replace("http", "ws", 1), additional_headers=given, proxy=None)
            return holder.stack.enter_context(dialling)
        except InvalidStatus as refused:
            if refused.response.status_code == 502:  # The server listens soon.
                return None
            raise

    opened: ClientConnection = eventually(dialled)

    def lives() -> bool:
        try:
            opened.send(b"heard?")
            return opened.recv(30) == b"heard?"
        except ConnectionClosed:
            return False

    assert lives()
    return lives


def child_key(holder: Holder, role: str = "viewer") -> Lives:
    """Make a key."""
    made = holder.http.post("/v1/keys", json={"name": "child", "role": role})
    assert made.status_code == 201, made.text
    client = holder.stack.enter_context(bearing(holder.deployment.url, made.json()["token"]))
    return lambda: client.get("/v1/executions").status_code == 200


def grandchild_key(holder: Holder) -> Lives:
    """Make a key with a key that the holder made."""
    made = holder.http.post("/v1/keys", json={"name": "child", "role": "admin"}).json()
    child = holder.stack.enter_context(bearing(holder.deployment.url, made["token"]))
    return child_key(Holder(child, holder.deployment, holder.present, holder.stack))


def invitation(holder: Holder) -> Lives:
    """Invite somebody, who may accept later."""
    email = f"rev-{next(_numbers)}@example.com"
    made = holder.http.post("/v1/members", json={"email": email, "role": "viewer"})
    assert made.status_code == 201, made.text
    token = made.json()["token"]
    return lambda: Person(holder.deployment, email).accept(token).status_code == 204


def invitation_by_a_child(holder: Holder) -> Lives:
    """Invite somebody with a key that the holder made."""
    made = holder.http.post("/v1/keys", json={"name": "child", "role": "admin"}).json()
    child = holder.stack.enter_context(bearing(holder.deployment.url, made["token"]))
    return invitation(Holder(child, holder.deployment, holder.present, holder.stack))


READS = (event_stream, download)
WRITES = (upload, submission, port_stream)
MADE = (child_key, grandchild_key, invitation, invitation_by_a_child)
LIVING = (port_stream,)
"""What needs a worker."""
EVERYTHING = {each.__name__ for each in (session_or_key, *READS, *WRITES, *MADE)}
OPENED: tuple[Opening, ...] = (session_or_key, *READS, upload, submission, *MADE)


def names(*groups: Opening) -> set[str]:
    """Return the names of these in the table."""
    return {each.__name__ for each in groups}


@dataclass(frozen=True)
class Case:
    """A tenant with its owner, and a key that another key made."""

    deployment: Deployment
    tenant: str
    owner: httpx.Client
    maker_id: str
    maker: httpx.Client
    made: Mapping[str, Any]

    def joined(self, role: Role) -> Person:
        """Return a new member who has logged in."""
        person = Person(self.deployment, f"{self.tenant}-{next(_numbers)}@example.com")
        invited = self.owner.post("/v1/members", json={"email": person.email, "role": role})
        assert person.accept(invited.json()["token"]).status_code == 204
        assert person.log_in().status_code == 200
        return person

    def member(self, email: str) -> str:
        """Return the member's path."""
        listed = self.owner.get("/v1/members").json()["items"]
        return "/v1/members/" + str(next(m["id"] for m in listed if m["email"] == email))

    @property
    def tenant_id(self) -> str:
        """The tenant's id."""
        found = self.deployment.sql("SELECT tenant_id FROM tenants WHERE name = %s", self.tenant)
        return str(found[0]["tenant_id"])


def nothing(_: Case, __: Person | None) -> None:
    """End nothing: the control."""


def revoke(case: Case, _: Person | None) -> None:
    assert case.owner.delete(f"/v1/keys/{case.made['key']['id']}").status_code == 204


def revoke_maker(case: Case, _: Person | None) -> None:
    assert case.owner.delete(f"/v1/keys/{case.maker_id}").status_code == 204


def rotate(case: Case, _: Person | None) -> None:
    path = f"/v1/keys/{case.made['key']['id']}/rotate"
    assert case.owner.post(path, json={"overlap_s": 0}).status_code == 201


def remove(case: Case, member: Person) -> None:
    assert case.owner.delete(case.member(member.email)).status_code == 204


def demote(case: Case, member: Person) -> None:
    changed = case.owner.patch(case.member(member.email), json={"role": "viewer"})
    assert changed.status_code == 200


def change_password(_: Case, member: Person) -> None:
    body = {"current": PASSWORD, "new": NEW_PASSWORD}
    assert member.http.put("/v1/me/password", json=body).status_code == 204


def log_out(_: Case, member: Person) -> None:
    assert member.http.post("/v1/logout").status_code == 204


def expire_session(case: Case, member: Person) -> None:
    id_ = case.member(member.email).rpartition("/")[2]
    case.deployment.sql("UPDATE sessions SET expires_at = now() WHERE user_id = %s", id_)


def suspend(case: Case, _: Person | None) -> None:
    path = f"/operator/v1/tenants/{case.tenant_id}/suspend"
    assert case.deployment.operator().post(path, json={"why": "test"}).is_success


def delete_tenant(case: Case, _: Person | None) -> None:
    suspend(case, None)
    path, operator = f"/operator/v1/tenants/{case.tenant_id}", case.deployment.operator()
    # Not before its sandboxes have ended.
    eventually(lambda: operator.delete(path).is_success)


@pytest.fixture(scope="module")
def lasting(image: None) -> Iterator[Deployment]:
    """Return a deployment with sessions over plain HTTP, in which executions stay queued."""
    with deployments.deployment(insecure_cookies=True, **NO_POOL) as made:
        made.portal.call(made.worker.stop, signal.SIGTERM)
        yield made


@pytest.fixture(scope="module")
def living(image: None) -> Iterator[Deployment]:
    """Return a deployment with sessions over plain HTTP, in which sandboxes live."""
    with deployments.deployment(insecure_cookies=True, **NO_POOL) as made:
        yield made


@pytest.fixture
def case(lasting: Deployment) -> Case:
    """Return a tenant where executions stay queued."""
    return new_case(lasting)


def new_case(lasting: Deployment) -> Case:
    """Return a tenant with an owner, and a key that a key of the owner made."""
    tenant = f"rev-{next(_numbers)}"
    owner = lasting.http(tenant)
    first = owner.post("/v1/keys", json={"name": "maker", "role": "admin"}).json()
    maker = lasting.clients.enter_context(bearing(lasting.url, first["token"]))
    made = maker.post("/v1/keys", json={"name": "holder", "role": "admin"}).json()
    return Case(lasting, tenant, owner, first["key"]["id"], maker, made)


@pytest.fixture
def member(case: Case) -> Person:
    """Return an admin of that tenant who has logged in."""
    return case.joined(Role.ADMIN)


@pytest.fixture
def present(case: Case) -> Present:
    """Give the tenant an execution that does not end, and a large file."""
    assert case.owner.put("/v1/files/large", content=b"x" * LARGE, timeout=120).is_success
    submitted = case.owner.post("/v1/executions", json={"command": ["true"]})
    return Present(execution=submitted.json()["id"])


@pytest.fixture
def with_sandbox(living: Deployment) -> Iterator[tuple[Case, Present]]:
    """Return a tenant that has a sandbox."""
    case = new_case(living)
    made = case.owner.post("/v1/sandboxes", json={"size": "nano"})
    assert made.status_code == 201, made.text
    sandbox = f"/v1/sandboxes/{made.json()['id']}"
    served = {"command": ["python3", "-c", ECHO]}
    assert case.owner.post(f"{sandbox}/processes", json=served).is_success
    yield case, Present(sandbox=made.json()["id"])
    living.end_sandboxes()


def ended(holder: Holder, end: Callable[[], None], opened: Sequence[Opening] = OPENED) -> set[str]:
    """Open everything, end the right, and return what is over a second later."""
    with holder.stack:
        living = {each.__name__: each(holder) for each in opened}
        end()
        time.sleep(WITHIN_S)
        return {name for name, lives in living.items() if not lives()}


BY_KEY: list[tuple[Callable[[Case, None], None], set[str]]] = [
    (nothing, set()),
    (revoke, EVERYTHING),
    (revoke_maker, EVERYTHING),
    # After a rotation, the new key takes over what the old one made; to end that, revoke the key.
    (rotate, EVERYTHING - names(*MADE)),
    (suspend, names(*WRITES)),
    (delete_tenant, EVERYTHING),
]
BY_LOGIN: list[tuple[Callable[[Case, Person], None], set[str]]] = [
    (nothing, set()),
    (remove, EVERYTHING),
    # A viewer may go on reading, and could have made none of the other things.
    (demote, names(*WRITES, *MADE)),
    # The person has not changed, so what they made stays.
    (change_password, names(session_or_key, *READS, *WRITES)),
    (log_out, names(session_or_key, *READS, *WRITES)),
    (expire_session, names(session_or_key, *READS, *WRITES)),
    (suspend, names(*WRITES)),
]


@pytest.mark.parametrize(("end", "over"), BY_KEY)
def test_what_a_key_made_and_opened_ends_with_it(
    case: Case, present: Present, end: Callable[[Case, None], None], over: set[str]
) -> None:
    with bearing(case.deployment.url, case.made["token"]) as http:
        holder = Holder(http, case.deployment, present)
        assert ended(holder, lambda: end(case, None)) == over - names(*LIVING)


@pytest.mark.parametrize(("end", "over"), BY_KEY)
def test_what_a_key_opened_in_a_sandbox_ends_with_it(
    with_sandbox: tuple[Case, Present], end: Callable[[Case, None], None], over: set[str]
) -> None:
    case, present = with_sandbox
    with bearing(case.deployment.url, case.made["token"]) as http:
        holder = Holder(http, case.deployment, present)
        assert ended(holder, lambda: end(case, None), LIVING) == over & names(*LIVING)


def test_what_a_key_made_and_opened_ends_when_it_expires(case: Case, present: Present) -> None:
    """Only keys without an end can make invitations."""
    until = datetime.now(UTC) + timedelta(seconds=5)
    body = {"name": "holder", "role": "admin", "expires_at": until.isoformat()}
    made = case.maker.post("/v1/keys", json=body).json()
    opened = [each for each in OPENED if each not in (invitation, invitation_by_a_child)]

    def wait() -> None:
        time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()))

    with bearing(case.deployment.url, made["token"]) as http:
        refused = http.post("/v1/members", json={"email": "x@example.com", "role": "viewer"})
        assert refused.status_code == 403
        assert ended(Holder(http, case.deployment, present), wait, opened) == names(*opened)


@pytest.mark.parametrize(("end", "over"), BY_LOGIN)
def test_what_a_member_made_and_opened_ends_with_their_right(
    case: Case,
    present: Present,
    member: Person,
    end: Callable[[Case, Person], None],
    over: set[str],
) -> None:
    holder = Holder(member.http, case.deployment, present)
    assert ended(holder, lambda: end(case, member)) == over - names(*LIVING)


@pytest.mark.parametrize(("end", "over"), BY_LOGIN)
def test_what_a_member_opened_in_a_sandbox_ends_with_their_right(
    with_sandbox: tuple[Case, Present], end: Callable[[Case, Person], None], over: set[str]
) -> None:
    case, present = with_sandbox
    member = case.joined(Role.ADMIN)
    holder = Holder(member.http, case.deployment, present)
    assert ended(holder, lambda: end(case, member), LIVING) == over & names(*LIVING)


def test_an_owner_who_was_removed_does_not_come_back(case: Case) -> None:
    """Another owner demoted and removed them: their earlier invitation of an owner is void."""
    second = case.joined(Role.OWNER)
    case.joined(Role.OWNER)
    email = f"{case.tenant}-back@example.com"
    made = second.http.post("/v1/members", json={"email": email, "role": "owner"}).json()
    path = case.member(second.email)
    assert case.owner.patch(path, json={"role": "admin"}).status_code == 200
    listed = case.owner.get("/v1/members").json()["items"]
    assert email not in {each["email"] for each in listed}
    assert case.owner.delete(path).status_code == 204
    assert Person(case.deployment, email).accept(made["token"]).status_code == 401


def test_a_demotion_leaves_what_the_lower_role_could_have_made(case: Case) -> None:
    """An owner who becomes an admin keeps keys up to admin, and lower invitations."""
    second = case.joined(Role.OWNER)
    case.joined(Role.OWNER)
    tokens = {}
    for role in Role:
        made = second.http.post("/v1/keys", json={"name": role, "role": role})
        tokens[role] = made.json()["token"]
        body = {"email": f"{case.tenant}-new-{role}@example.com", "role": role}
        assert second.http.post("/v1/members", json=body).status_code == 201
    assert case.owner.patch(case.member(second.email), json={"role": "admin"}).status_code == 200
    works = {}
    for role, token in tokens.items():
        with bearing(case.deployment.url, token) as client:
            works[role] = client.get("/v1/executions").status_code == 200
    assert works == {Role.OWNER: False, Role.ADMIN: True, Role.DEVELOPER: True, Role.VIEWER: True}
    listed = case.owner.get("/v1/members").json()["items"]
    invited = {each["role"] for each in listed if each["status"] == "invited"}
    assert invited == {"developer", "viewer"}


def test_a_key_that_took_the_place_of_another_may_revoke_it(case: Case) -> None:
    """The key that asks stays; if another one asks, everything that the old key made ends."""
    for asks_itself in (True, False):
        old = case.maker.post("/v1/keys", json={"name": "rotated", "role": "admin"}).json()
        with bearing(case.deployment.url, old["token"]) as client:
            new = client.post(f"/v1/keys/{old['key']['id']}/rotate", json={}).json()
        with bearing(case.deployment.url, new["token"]) as client:
            asker = client if asks_itself else case.owner
            assert asker.delete(f"/v1/keys/{old['key']['id']}").status_code == 204
            assert (client.get("/v1/executions").status_code == 200) is asks_itself


def test_what_a_rotated_key_made_ends_with_its_successor(case: Case) -> None:
    """The log records it, with the number of keys."""
    path = f"/v1/keys/{case.maker_id}/rotate"
    successor = case.owner.post(path, json={"overlap_s": 0}).json()["key"]["id"]
    with bearing(case.deployment.url, case.made["token"]) as client:
        assert client.get("/v1/executions").status_code == 200
        assert case.owner.delete(f"/v1/keys/{successor}").status_code == 204
        assert client.get("/v1/executions").status_code == 401
    page = case.owner.get("/v1/audit", params={"action": "api_key:revoke"}).json()
    # First the key itself, then what ended with it.
    assert [each["record"]["metadata"]["keys"] for each in page["items"]] == [1, 2]
