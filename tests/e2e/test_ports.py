"""Ports of sandboxes: servers inside, reached through the real API, node and supervisor."""

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from agent_runner import Client, NotFound, Process, Sandbox, Unavailable
from runner.words.principal import Role
from tests.support.deployment import PORTS_DOMAIN, Deployment, eventually

SERVER = """
import base64, hashlib, http.server, json, socket, struct, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for number in range(3):
                self.wfile.write(f"data: {number}\\n\\n".encode())
                self.wfile.flush()
                sys.stdin.readline()
            self.close_connection = True
            return
        if self.path == "/socket":
            return self.echo()
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/there")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/leave":
            self.close_connection = True
            return
        if self.path == "/large":
            body = b"x" * (20 << 20)
        else:
            body = json.dumps({"path": self.path, "headers": self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "inside=1; Domain=example.net; Path=/")
        self.send_header("Set-Cookie", "__Host-runner_session=forged; Path=/")
        self.send_header("Clear-Site-Data", "*")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_DELETE = do_GET

    def echo(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.send_header("Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"])
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        while (head := self.rfile.read(2)) and head[0] & 15 != 8:
            length = head[1] & 127
            if length == 126:
                (length,) = struct.unpack("!H", self.rfile.read(2))
            mask = self.rfile.read(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(length)))
            size = bytes([length]) if length < 126 else b"~" + struct.pack("!H", length)
            self.wfile.write(head[:1] + size + data)
        self.close_connection = True

    def pieces(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            left = int(self.headers["Content-Length"])
            while left:
                data = self.rfile.read(min(left, 1 << 20))
                left -= len(data)
                yield data
            return
        while length := int(self.rfile.readline(), 16):
            yield self.rfile.read(length)
            self.rfile.readline()

    def do_POST(self):
        digest, size = hashlib.sha256(), 0
        for data in self.pieces():
            digest.update(data)
            size += len(data)
        body = f"{size} {digest.hexdigest()}".encode()
        self.send_response(201)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\\r\\n%s\\r\\n0\\r\\n\\r\\n" % (len(body), body))

    def log_message(self, *_):
        pass

def count():
    with socket.create_server(("127.0.0.1", 9000)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                size = 0
                while data := connection.recv(1 << 16):
                    size += len(data)
                connection.sendall(str(size).encode())

threading.Thread(target=count, daemon=True).start()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler)
print("ready", flush=True)
server.serve_forever()
"""


MANY = 20 * 2**20
HMR = [Subprotocol("vite-hmr")]


@dataclass(frozen=True)
class Served:
    """A sandbox with the server, and the server's process."""

    sandbox: Sandbox
    process: Process

    def at(self, path: str = "/", port: int = 8000) -> str:
        """Return where a server inside is reached by path."""
        return f"/v1/sandboxes/{self.sandbox.id}/ports/{port}{path}"

    def name(self, port: int = 8000) -> str:
        """Return the name of a port."""
        return f"{port}-{self.sandbox.id}.{PORTS_DOMAIN}"


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("ports")


@pytest.fixture(scope="module")
def served(api: Client) -> Iterator[Served]:
    """Return a sandbox in which a server runs on port 8000, and a counter of bytes on 9000."""
    with api.sandboxes.create(size="small", timeout_s=None) as made:
        process = made.start(["python3", "-c", SERVER], keep_stdin_open=True)
        assert next(iter(process.output())).raw == b"ready\n"
        yield Served(made, process)


@pytest.fixture
def http(shared: Deployment) -> httpx.Client:
    """Return a plain connection with the tenant's key."""
    return shared.http("ports")


@pytest.fixture
def stranger(shared: Deployment) -> Iterator[httpx.Client]:
    """Return a connection without a key."""
    with httpx.Client(base_url=shared.url, timeout=30) as client:
        yield client


def dialled(port: int) -> socket.socket:
    """Connect to a port of this host."""
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def seen(answer: httpx.Response) -> dict[str, str]:
    """Return the headers that the server inside got."""
    assert answer.status_code == 200, answer.text
    return {name.lower(): value for name, value in answer.json()["headers"]}


def test_a_request_and_its_answer_pass(http: httpx.Client, served: Served) -> None:
    """Without our key, cookies and the marks by which an answer acts on more than itself."""
    given = {"X-Mine": "yes", "Cookie": "a=b", "Connection": "x-hop", "X-Hop": "1"}
    answer = http.get(served.at("/a%2Fb?q=1&q=2"), headers=given)
    headers = seen(answer)
    assert answer.json()["path"] == "/a%2Fb?q=1&q=2"
    assert (headers["x-mine"], headers["host"]) == ("yes", "localhost:8000")
    assert headers["x-forwarded-prefix"] == served.at("")
    assert not {"authorization", "cookie", "x-hop"} & headers.keys()
    assert not {"set-cookie", "clear-site-data"} & answer.headers.keys()
    policy = answer.headers["content-security-policy"]
    assert "sandbox " in policy and "allow-same-origin" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert http.head(served.at()).headers["content-length"].isdecimal()
    assert http.request("DELETE", served.at("/x")).json()["path"] == "/x"
    assert http.get(served.at("/elsewhere")).headers["location"] == served.at("/there")


def test_many_bytes_go_both_ways(http: httpx.Client, served: Served) -> None:
    body = os.urandom(MANY)
    told = f"{MANY} {hashlib.sha256(body).hexdigest()}"
    assert http.post(served.at(), content=body).text == told
    pieces = (body[start : start + 65536] for start in range(0, MANY, 65536))
    answer = http.post(served.at(), content=pieces)
    assert (answer.status_code, answer.text) == (201, told)
    assert http.get(served.at("/large")).content == b"x" * MANY


def test_events_come_as_they_are_sent(http: httpx.Client, served: Served) -> None:
    """The server sends each one only after the one before has arrived."""
    with http.stream("GET", served.at("/events")) as answer:
        lines = (line for line in answer.iter_lines() if line)
        for number in range(3):
            assert next(lines) == f"data: {number}"
            served.process.write(b"\n")
        assert list(lines) == []


def test_what_does_not_answer_is_told(http: httpx.Client, served: Served) -> None:
    answer = http.get(served.at(port=8001))
    assert answer.status_code == 502
    assert "nothing listens on port 8001" in answer.json()["detail"]
    answer = http.get(served.at("/leave"))
    assert answer.status_code == 502
    assert answer.headers["content-type"] == "application/problem+json"
    for path in (served.at(port=0), served.at(port=65536), "/v1/sandboxes/x/ports/1/"):
        assert http.get(path).status_code == 404


def test_nobody_else_gets_in(shared: Deployment, stranger: httpx.Client, served: Served) -> None:
    """To another tenant a sandbox is unknown, open or not, and to strangers what is not open."""
    other, viewer = shared.http("ports-other"), shared.http("ports", Role.VIEWER)
    nobodys = served.at().replace(served.sandbox.id, "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2")
    for method in ("GET", "POST", "PROPFIND"):
        theirs = other.request(method, served.at())
        assert theirs.status_code == 404
        assert theirs.json()["detail"] == other.request(method, nobodys).json()["detail"]
        assert viewer.request(method, served.at()).status_code == 403
        assert stranger.request(method, served.at()).status_code == 401
    assert stranger.get(nobodys).status_code == 401
    bad = {"Authorization": f"Bearer rk_{'a' * 12}_{'b' * 43}"}
    assert stranger.get(served.at(), headers=bad).status_code == 401


def test_a_token_opens_its_own_port_alone(stranger: httpx.Client, served: Served) -> None:
    """Until the port is closed or opened anew; the control is the same request a moment before."""
    ports = served.sandbox.ports
    opened, elsewhere = ports.open(8000), ports.open(9000)
    assert opened.token and elsewhere.token and opened.token != elsewhere.token
    assert opened.token not in repr(opened)
    ours = {"X-Access-Token": opened.token}
    assert "x-access-token" not in seen(stranger.get(served.at(), headers=ours))
    for token in (elsewhere.token, opened.token[:-1], ""):
        assert stranger.get(served.at(), headers={"X-Access-Token": token}).status_code == 401
    # A key for the server inside is none of our business; ours are.
    basic = {**ours, "Authorization": "Basic dTpw"}
    assert seen(stranger.get(served.at(), headers=basic))["authorization"] == "Basic dTpw"
    assert [each.port for each in ports.list()] == [8000, 9000]
    assert ports.open(8000).token
    assert stranger.get(served.at(), headers=ours).status_code == 401
    ports.close(8000)
    ports.close(9000)
    with pytest.raises(NotFound):
        ports.close(8000)
    assert ports.list() == []


def test_a_public_port_needs_no_token_until_it_is_closed(
    api: Client, http: httpx.Client, stranger: httpx.Client, served: Served
) -> None:
    """A stream that is under way then ends; the log says who opened and closed it."""
    assert served.sandbox.ports.open(8000, public=True).token is None
    assert stranger.get(served.at()).status_code == 200
    # A key that somebody sends all the same does not go inside.
    assert "authorization" not in seen(http.get(served.at()))
    with stranger.stream("GET", served.at("/events")) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "data: 0"
        served.sandbox.ports.close(8000)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    served.process.write(b"\n\n\n")
    assert stranger.get(served.at()).status_code == 401
    records = http.get("/v1/audit", params={"action": "sandbox:ports"}).json()["items"]
    opened, closed = (each["record"]["metadata"] for each in records[-2:])
    assert opened == {"port": 8000, "open": True, "public": True}
    assert closed == {"port": 8000, "open": False}
    used = eventually(lambda: connections(http, served.sandbox.id, actor="key:"))
    assert used["connections"] >= 1
    assert used["bytes_in"] > 0 and used["bytes_out"] > 0
    # Whoever comes without a key is the port's.
    assert eventually(lambda: connections(http, served.sandbox.id, actor="port:"))


def connections(http: httpx.Client, sandbox: str, *, actor: str) -> dict[str, int] | None:
    """Return what is on record of a kind of callers at port 8000, once bytes are."""
    asked = {"action": "sandbox:connections", "resource_id": sandbox, "limit": "200"}
    items = http.get("/v1/audit", params=asked).json()["items"]
    found = [
        each
        for item in items
        if item["record"]["actor"].startswith(actor)
        for each in item["record"]["metadata"]["ports"]
        if each["port"] == 8000
    ]
    total = {name: sum(each[name] for each in found) for name in found[0]} if found else {}
    return total if total.get("bytes_out") else None


def test_a_port_closes_with_the_key_that_opened_it(
    shared: Deployment, stranger: httpx.Client, served: Served
) -> None:
    owner = shared.http("ports")
    made = owner.post("/v1/keys", json={"name": "opener", "role": "developer"}).json()
    with Client(shared.url, made["token"]) as opener:
        opener.sandboxes.get(served.sandbox.id).ports.open(8000, public=True)
    assert stranger.get(served.at()).status_code == 200
    assert owner.delete(f"/v1/keys/{made['key']['id']}").is_success
    eventually(lambda: stranger.get(served.at()).status_code == 401)


def test_by_name_a_page_has_an_origin_and_cookies_of_its_own(
    stranger: httpx.Client, served: Served
) -> None:
    opened = served.sandbox.ports.open(8000)
    assert opened.url == f"https://{served.name()}/"
    here = {"Host": served.name()}
    assert stranger.get("/", headers=here).status_code == 401
    first = stranger.get(f"/a?x=1&runner_token={opened.token}&y=2", headers=here)
    assert (first.status_code, first.headers["location"]) == (303, "/a?x=1&y=2")
    ours, *attributes = first.headers["set-cookie"].split("; ")
    assert ours == f"__Host-runner_port={opened.token}"
    assert {"HttpOnly", "Secure", "Path=/"} <= set(attributes)
    with_cookie = {**here, "Cookie": f"a=b; {ours}; __Host-runner_session=x; c=d"}
    answer = stranger.get("/a?x=1&y=2", headers=with_cookie)
    headers = seen(answer)
    assert (headers["host"], headers["cookie"]) == (served.name(), "a=b; c=d")
    assert answer.headers.get_list("set-cookie") == ["inside=1; Path=/"]
    assert "content-security-policy" not in answer.headers
    # A page of a neighbour, which the browser takes for the same site, gets nowhere by it.
    for elsewhere in (
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Origin": f"https://8000-x.{PORTS_DOMAIN}"},
    ):
        assert stranger.post("/", headers={**with_cookie, **elsewhere}).status_code == 403
    served.sandbox.ports.close(8000)


def test_below_the_domain_there_is_nothing_but_ports(http: httpx.Client, served: Served) -> None:
    for name in (PORTS_DOMAIN, f"x.{PORTS_DOMAIN}", f"0-{served.sandbox.id}.{PORTS_DOMAIN}"):
        assert http.get("/v1/sandboxes", headers={"Host": name}).status_code == 404
    at_port = http.get("/v1/sandboxes", headers={"Host": f"{served.name().upper()}:443"})
    assert at_port.json()["path"] == "/v1/sandboxes"
    terminal = f"/v1/sandboxes/{served.sandbox.id}/processes/1/terminal"
    assert http.get(terminal, headers={"Host": served.name()}).json()["path"] == terminal


def test_a_websocket_passes_with_its_subprotocol(
    shared: Deployment, http: httpx.Client, served: Served
) -> None:
    """Both ends are as they are anywhere else; and whoever may not is refused by a status."""
    url = f"{shared.url.replace('http', 'ws', 1)}{served.at('/socket')}"
    key = {"Authorization": http.headers["Authorization"]}
    with connect(url, additional_headers=key, subprotocols=HMR, proxy=None) as opened:
        assert opened.subprotocol == "vite-hmr"
        for message in ("hello", b"x" * 60000, "again"):
            opened.send(message)
            assert opened.recv(30) == message
    with pytest.raises(InvalidStatus, match="401"), connect(url, proxy=None):
        pass
    assert served.sandbox.ports.open(8000, public=True).public
    with connect(url, subprotocols=HMR, proxy=None) as opened:
        opened.send("open")
        assert opened.recv(30) == "open"
        served.sandbox.ports.close(8000)
        with pytest.raises(ConnectionClosed):
            opened.recv(30)


def test_a_forwarded_port_carries_any_tcp(shared: Deployment, served: Served) -> None:
    """With each direction's end, and many bytes; a port where nothing listens hangs up."""
    ports = served.sandbox.ports
    with ports.forward(9000) as local, dialled(local.port) as connection:
        connection.sendall(b"x" * MANY)
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").read() == str(MANY).encode()
    with ports.forward(8000) as local:
        assert httpx.get(f"http://127.0.0.1:{local.port}/large", timeout=60).content == b"x" * MANY
    with ports.forward(8001) as local:
        with dialled(local.port) as connection:
            assert connection.recv(1) == b""
        eventually(lambda: local.failure)
        assert isinstance(local.failure, Unavailable)
        assert "nothing listens on port 8001" in str(local.failure)


def test_curl_and_node_are_served(shared: Deployment, http: httpx.Client, served: Served) -> None:
    url, key = f"{shared.url}{served.at('/socket-less')}", http.headers["Authorization"]
    curl = subprocess.run(
        ["curl", "-sS", "-H", f"Authorization: {key}", "-d", "abc", url],
        capture_output=True, check=True,
    )  # fmt: skip
    assert curl.stdout == f"3 {hashlib.sha256(b'abc').hexdigest()}".encode()
    script = (
        "const [url, key] = process.argv.slice(1);"
        "fetch(url, {headers: {Authorization: key}}).then(r => r.json())"
        ".then(r => console.log(r.path))"
    )
    node = subprocess.run(["node", "-e", script, url, key], capture_output=True, check=True)
    assert node.stdout == b"/socket-less\n"
