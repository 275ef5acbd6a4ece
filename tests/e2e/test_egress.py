"""The way out of a sandbox, with real clients through the whole stack."""

import json
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import urlopen

import psutil
import pytest

from agent_runner import Client, Execution
from tests.support import deployment as deployments
from tests.support.deployment import Deployment, eventually
from tests.support.upstreams import Answer, Authority, Request, Upstream, serving

TOKEN = "canary-5f1e7c0d9a"  # noqa: S105 - made up, and searched for
OPEN_HOST, BOUND_HOST, PLAIN_HOST = "files.example.test", "api.example.test", "plain.example.test"
OTHER_HOST = "other.example.test"
PROFILES = Path(__file__).resolve().parents[2] / "profiles"


@dataclass(frozen=True)
class World:
    """A deployment, and servers that its sandboxes may reach."""

    deployment: Deployment
    client: Client
    tls: Upstream
    plain: Upstream
    authority: str

    def run(self, command: list[str], egress: list[Any], **options: Any) -> Execution:
        """Run a command to its end."""
        return self.client.run(
            command=command, egress=egress, wait_s=60, limits={"timeout_s": 60}, **options
        )

    def decisions(self, execution: Execution) -> list[dict[str, Any]]:
        """Return the proxy's decisions, from the execution's events."""
        events = self.client.events(execution.id)
        return [event.data["egress"] for event in events if event.kind == "egress"]


@pytest.fixture(scope="module")
def world(image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return the servers, and a deployment that trusts loopback and knows their names."""
    folder = tmp_path_factory.mktemp("upstreams")
    served = repository(folder)

    def answer(request: Request) -> Answer:
        if request.path.startswith("/redirect"):
            return Answer(b"", 302, {"Location": f"https://{OTHER_HOST}:{ports[0]}/stolen"})
        if request.path.startswith("/echo"):
            text = json.dumps(request.headers).encode()
            return Answer(text, headers={"Content-Type": "application/json"})
        file = served / request.path.partition("?")[0].lstrip("/")
        return Answer(file.read_bytes()) if file.is_file() else Answer(b"no", 404)

    ports: list[int] = []
    authority = Authority(folder)
    tls = authority.context(OPEN_HOST, BOUND_HOST, OTHER_HOST)
    secrets = folder / "secrets.toml"
    secrets.touch(0o600)
    profiles = folder / "profiles"
    shutil.copytree(PROFILES, profiles)
    with ExitStack() as stack:
        secure = stack.enter_context(serving(answer, tls))
        plain = stack.enter_context(serving(answer))
        ports.append(secure.port)
        (profiles / "egress" / "ceiling.toml").write_text(
            "".join(
                f'[[allow]]\nhost = "*.example.test"\nscheme = "{scheme}"\nport = {port}\n'
                for scheme, port in (
                    ("https", secure.port),
                    ("http", plain.port),
                    ("tcp", plain.port),
                )
            )
        )
        made = stack.enter_context(
            deployments.deployment(
                profiles_dir=profiles,
                egress_trusted_networks=("127.0.0.0/8",),
                egress_hosts=dict.fromkeys(
                    (OPEN_HOST, BOUND_HOST, OTHER_HOST, PLAIN_HOST), "127.0.0.1"
                ),
                egress_roots=authority.path,
                egress_secrets=secrets,
            )
        )
        client = made.client("reaching")
        tenant = made.sql("SELECT tenant_id FROM tenants WHERE name = %s", "reaching")
        secrets.write_text(f'["{tenant[0]["tenant_id"]}"]\ntoken = "{TOKEN}"\n')
        yield World(made, client, secure, plain, authority.path.read_text())


def repository(folder: Path) -> Path:
    """Return a folder with a git repository that can be cloned as plain files."""
    work = folder / "work"
    served = folder / "served"
    for command in (
        ["git", "init", "-q", str(work)],
        ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.test",
         "commit", "-q", "--allow-empty", "-m", "the first"],
        ["git", "clone", "-q", "--bare", str(work), str(served / "repository.git")],
        ["git", "-C", str(served / "repository.git"), "update-server-info"],
    ):  # fmt: skip
        subprocess.run(command, check=True, timeout=30)
    (served / "hello.txt").write_text("hello from outside\n")
    return served


def out(execution: Execution) -> str:
    """Return what a program wrote to stdout."""
    assert execution.stdout is not None, execution
    return execution.stdout.text


def proxies(made: Deployment) -> list[psutil.Process]:
    """Return the processes of a deployment's egress proxy."""
    worker = psutil.Process(made.worker.pid)
    return [each for each in worker.children() if "runner.egress" in each.cmdline()]


def bound(world: World, **fields: Any) -> dict[str, Any]:
    """Return a rule with a secret, for which the proxy ends TLS."""
    inject = {"header": "Authorization", "secret": "token", "prefix": "Bearer "}
    return {"host": BOUND_HOST, "port": world.tls.port, "inject": inject, **fields}


NODE_GET = "require('{url}'.split(':')[0]).get('{url}', r => r.pipe(process.stdout))"
NODE_AGENT = (
    "const https = require('https'); const agent = new https.Agent({keepAlive: true}); "
    "https.get('{url}', {agent}, "
    "r => { r.pipe(process.stdout); r.on('end', () => process.exit()) })"
)
CLIENTS = {
    "curl": ["curl", "-sS", "{url}"],
    "requests": ["python3", "-c", "import requests; print(requests.get('{url}').text, end='')"],
    "httpx": ["python3", "-c", "import httpx; print(httpx.get('{url}').text, end='')"],
    "urllib": ["python3", "-c", "from urllib.request import urlopen; "
               "print(urlopen('{url}').read().decode(), end='')"],
    "node": ["node", "-e", "fetch('{url}').then(r => r.text()).then(t => process.stdout.write(t))"],
    "Node's https": ["node", "-e", NODE_GET],
    "Node's https with an agent": ["node", "-e", NODE_AGENT],
}  # fmt: skip


@pytest.mark.parametrize("name", CLIENTS)
def test_clients_reach_an_intercepted_host(world: World, name: str) -> None:
    """Only their environment makes them trust the proxy; the server gets the secret."""
    url = f"https://{BOUND_HOST}:{world.tls.port}/hello.txt"
    before = len(world.tls.requests)
    command = [part.replace("{url}", url) for part in CLIENTS[name]]
    ran = world.run(command, [bound(world)], env={"TOKEN": "placeholder"})
    assert out(ran) == "hello from outside\n", ran.stderr
    asked = world.tls.requests[before]
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_tunnel_is_carried_as_it_is(world: World) -> None:
    """If no rule looks inside TLS, the client speaks with the server itself."""
    url = f"https://{OPEN_HOST}:{world.tls.port}/hello.txt"
    ran = world.run(
        ["curl", "-sS", "--cacert", "ca.pem", url],
        [f"{OPEN_HOST}:{world.tls.port}"],
        files={"ca.pem": world.authority},
    )
    assert out(ran) == "hello from outside\n"
    (decision,) = world.decisions(ran)
    assert decision["outcome"] == "allowed"
    assert (decision["method"], decision["host"], decision["address"]) == (
        "connect", OPEN_HOST, "127.0.0.1",
    )  # fmt: skip
    assert decision["bytes_down"] > 1000
    assert ran.egress is not None
    assert ran.egress["allowed"] == 1
    assert ran.egress["bytes_down"] == decision["bytes_down"]


@pytest.mark.parametrize("proxy", ["", "socks5h://127.0.0.1:3128", "socks5://127.0.0.1:3128"])
def test_plain_http_goes_by_http_and_socks(world: World, proxy: str) -> None:
    """The name is looked up outside; a client that looks it up by itself finds nothing."""
    url = f"http://{PLAIN_HOST}:{world.plain.port}/hello.txt"
    options = ["--proxy", proxy] if proxy else []
    ran = world.run(["curl", "-sS", *options, url], [f"http://{PLAIN_HOST}:{world.plain.port}"])
    if proxy.startswith("socks5:"):
        assert out(ran) == ""
    else:
        assert out(ran) == "hello from outside\n", ran


TCP_CLIENT = """
import socket
with socket.create_connection(("localhost", 15432), 10) as server:
    server.sendall(b"GET /hello.txt HTTP/1.0\\r\\nHost: whatever\\r\\n\\r\\n")
    while data := server.recv(4096):
        print(data.decode(), end="")
"""


@pytest.mark.parametrize("isolation", ["container", "gvisor"])
@pytest.mark.parametrize("permitted", [True, False])
def test_a_client_that_knows_no_proxy_is_given_a_local_port(
    world: World, permitted: bool, isolation: str
) -> None:
    """The same decision applies to it, and if it is refused, it is told why."""
    host = PLAIN_HOST if permitted else "nowhere.example.test"
    ran = world.run(
        ["python3", "/opt/supervisor/forward.py", f"15432:{host}:{world.plain.port}", "--",
         "python3", "-c", TCP_CLIENT],
        [f"tcp://{PLAIN_HOST}:{world.plain.port}"], isolation=isolation,
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    assert ("hello from outside" in out(ran)) is permitted
    (decision,) = world.decisions(ran)
    assert decision["outcome"] == ("allowed" if permitted else "denied")
    assert ran.stderr is not None
    assert (f"forward.py: {host}:{world.plain.port}: 403 " in ran.stderr.text) is not permitted


def test_a_refusal_can_be_read_and_is_on_record(world: World) -> None:
    """It is in the agent's output, in the event stream, in the audit log, and in the result."""
    ran = world.run(
        ["curl", "-sS", "http://nowhere.example.test/x"], [f"{OPEN_HOST}:{world.tls.port}"]
    )
    assert 'egress: ["http://nowhere.example.test"]' in out(ran)
    (decision,) = world.decisions(ran)
    assert (decision["outcome"], decision["reason"]) == ("denied", "no_rule")
    audited = [
        each["record"]
        for each in world.client.audit(resource_id=ran.id)["items"]
        if each["record"]["action"] == "egress:connect"
    ]
    assert [each["outcome"] for each in audited] == ["denied"]
    assert audited[0]["metadata"]["host"] == "nowhere.example.test"
    assert ran.egress is not None
    assert ran.egress["denied"] == 1


REFUSED = {
    "curl": ["curl", "-sS", "{url}"],
    "curl --retry": ["curl", "-sS", "--retry", "5", "{url}"],
    "requests": CLIENTS["requests"],
    "httpx": CLIENTS["httpx"],
    "urllib": CLIENTS["urllib"],
    "pip": ["pip", "download", "--disable-pip-version-check", "--index-url", "{url}", "x"],
    "Node's fetch": CLIENTS["node"],
    "Node's https": ["node", "-e", "require('https').get('{url}')"],
}  # fmt: skip
SHOW_NO_REASON = {"curl", "curl --retry"}
"""These clients show only the status, so the line on stderr is all that can be read."""


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_tunnel_is_told_of_and_not_repeated_for_long(world: World, name: str) -> None:
    """The client shows it, and one line on stderr names the rule that would permit it."""
    command = [part.replace("{url}", "https://nowhere.example.test/") for part in REFUSED[name]]
    ran = world.run(command, [f"{OPEN_HOST}:{world.tls.port}"])
    assert ran.stderr is not None
    lines = ran.stderr.text.splitlines()
    (note,) = [line for line in lines if line.startswith("[egress]")]
    assert note.startswith("[egress] refused: nowhere.example.test:443: no rule permits")
    assert 'egress: ["nowhere.example.test"]' in note
    said = "\n".join(line for line in lines if line != note)
    assert "403" in said, said
    assert ("no rule permits nowhere.example.test" in said) is (name not in SHOW_NO_REASON), said
    assert len(world.decisions(ran)) == (3 if name == "pip" else 1)


def test_ten_thousand_refusals_are_one_line(world: World) -> None:
    """One line appears on stderr, however often the program tries; its own lines stay whole."""
    code = (
        "import socket, sys\n"
        "for number in range(300):\n"
        "    with socket.create_connection(('127.0.0.1', 3128)) as way:\n"
        "        way.sendall(b'CONNECT nowhere.example.test:443 HTTP/1.1\\r\\n'\n"
        "                    b'Host: x\\r\\n\\r\\n')\n"
        "        while way.recv(4096): pass\n"
        "    print('line', number, file=sys.stderr)\n"
    )
    ran = world.run(["python3", "-c", code], [f"{OPEN_HOST}:{world.tls.port}"])
    assert ran.stderr is not None
    lines = ran.stderr.text.splitlines()
    assert [line for line in lines if not line.startswith("[egress]")] == [
        f"line {number}" for number in range(300)
    ]
    assert len(lines) == 301


def test_a_burst_of_connections_waits_for_its_turn(world: World) -> None:
    """It opens more at once than an execution may have; in the end, all are served."""
    url = f"http://{PLAIN_HOST}:{world.plain.port}/hello.txt?[1-100]"
    ran = world.run(
        ["curl", "-sS", "--parallel", "--parallel-immediate", "--parallel-max", "100",
         "-o", "/dev/null", "-w", "%{http_code}\\n", url],
        [f"http://{PLAIN_HOST}:{world.plain.port}"],
    )  # fmt: skip
    assert out(ran).split() == ["200"] * 100, ran.stderr


OWN = ["localhost", "127.0.0.1", "127.0.0.2", "0.0.0.0", "sandbox", "[::1]"]  # noqa: S104 - asked for


@pytest.mark.parametrize("name", ["curl", "requests", "httpx", "urllib", "node", "Node's http"])
def test_the_programs_own_server_is_reached_directly(world: World, name: str) -> None:
    """This holds for every name and address that is the sandbox's own."""
    clients = CLIENTS | {"Node's http": ["node", "-e", NODE_GET]}
    script = (
        "echo -n ok > own.txt; python3 -m http.server 9000 --bind :: 2>/dev/null &\n"
        "until curl -s --noproxy '*' -o /dev/null http://127.0.0.1:9000/; do sleep 0.1; done\n"
    )
    # This version of httpx supports no IPv6 addresses, neither in NO_PROXY nor for a proxy.
    own = OWN[:-1] if name == "httpx" else OWN
    for host in own:
        command = [part.replace("{url}", f"http://{host}:9000/own.txt") for part in clients[name]]
        script += shlex.join(command) + "; echo\n"
    ran = world.run(["bash", "-c", script], [f"{OPEN_HOST}:{world.tls.port}"])
    assert out(ran) == "ok\n" * len(own), ran.stderr
    assert world.decisions(ran) == []


def test_without_rules_there_is_no_way_out(world: World) -> None:
    """There is no variable, no port, and no socket."""
    ran = world.run(["bash", "-c", "env | grep -i proxy; ls /run/sandbox; "
                     "curl -sS -x http://127.0.0.1:3128 http://a.test 2>&1"], [])  # fmt: skip
    assert "Failed to connect" in out(ran) or "refused" in out(ran)
    assert out(ran).count("\n") == 1
    assert ran.egress is None


def test_the_secret_is_seen_by_its_host_alone(world: World) -> None:
    """It is not visible inside, not echoed, not sent after a redirect, and stored nowhere."""
    base = f"https://{BOUND_HOST}:{world.tls.port}"
    before = len(world.tls.requests)
    ran = world.run(
        ["bash", "-c", f"env; curl -sS {base}/echo; curl -sSkL {base}/redirect; "
                       f"curl -sS -H 'Authorization: mine' {base}/hello.txt"],
        [bound(world), f"{OTHER_HOST}:{world.tls.port}"],
    )  # fmt: skip
    asked = world.tls.requests[before:]
    assert [(each.path, TOKEN in str(each.headers)) for each in asked] == [
        ("/echo", True), ("/redirect", True), ("/stolen", False), ("/hello.txt", True),
    ]  # fmt: skip
    assert TOKEN not in out(ran)
    assert '"Bearer ' + "*" * len(TOKEN) in out(ran)
    stored = subprocess.run(
        ["grep", "-rlF", TOKEN, str(world.deployment.stack.settings.state_dir)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert stored.stdout == ""


def test_a_stored_secret_goes_before_the_operators_file(world: World) -> None:
    """The tenant's own value is used while there is one, then the file's; each use is recorded."""
    stored = "canary-stored-93bd"
    base = f"https://{BOUND_HOST}:{world.tls.port}"
    for expected, source in ((stored, "store"), (TOKEN, "file")):
        if source == "store":
            world.client.put_secret("token", stored)
        else:
            world.client.delete_secret("token")
        before = len(world.tls.requests)
        ran = world.run(["curl", "-sS", f"{base}/echo"], [bound(world)])
        (asked,) = world.tls.requests[before:]
        assert asked.headers["Authorization"] == f"Bearer {expected}"
        assert expected not in out(ran)
        last = world.client.audit(action="secret:use", limit=500)["items"][-1]["record"]
        assert (last["actor"], last["metadata"]["source"]) == (f"execution:{ran.id}", source)
        assert last["metadata"]["purpose"] == "egress"


def test_methods_and_paths_are_kept(world: World) -> None:
    """Whatever the rule does not name is refused, in any spelling."""
    base = f"https://{BOUND_HOST}:{world.tls.port}"
    rule = {"host": BOUND_HOST, "port": world.tls.port, "methods": ["GET"], "path_prefix": "/hello"}
    tries = {
        f"{base}/hello.txt": "hello from outside",
        f"-X DELETE {base}/hello.txt": "no_rule",
        f"{base}/echo": "no_rule",
        f"--path-as-is {base}/hello/../echo": "ambiguous_path",
        f"--path-as-is {base}/hello/%2e%2e/echo": "ambiguous_path",
    }
    script = "\n".join(f"curl -sS {options} | tr '\\n' ' '; echo" for options in tries)
    lines = out(world.run(["bash", "-c", script], [rule])).splitlines()
    assert [wanted in line for wanted, line in zip(tries.values(), lines, strict=True)] == (
        [True] * len(tries)
    ), lines


def test_git_clones_over_https(world: World) -> None:
    """Git trusts the certificate that its environment names."""
    url = f"https://{BOUND_HOST}:{world.tls.port}/repository.git"
    ran = world.run(
        ["bash", "-c", f"git clone -q {url} r && git -C r log --format=%s"], [bound(world)]
    )
    assert out(ran) == "the first\n", ran.stderr


def test_pip_installs_a_package(image: None, tmp_path: Path) -> None:
    """It is a real package, from the index that pip is configured with, and from nowhere else."""
    index = configured_index()
    profiles = tmp_path / "profiles"
    shutil.copytree(PROFILES, profiles)
    (profiles / "egress" / "ceiling.toml").write_text(
        "".join(
            f'[[allow]]\nhost = "{each.hostname}"\nscheme = "{each.scheme}"\nport = {port(each)}\n'
            for each in index.hosts
        )
    )
    with deployments.deployment(
        profiles_dir=profiles,
        egress_trusted_networks=[socket.gethostbyname(each.hostname or "") for each in index.hosts],
    ) as made:
        ran = made.client("installing").run(
            command=["bash", "-c", "pip install --no-input --disable-pip-version-check --no-deps "
                     f"--cert roots.pem --index-url {index.url} --target w idna >&2 && "
                     "PYTHONPATH=w python3 -c 'import idna; print(idna.__file__)'"],
            egress=[
                {"host": each.hostname, "scheme": each.scheme, "port": port(each)}
                for each in index.hosts
            ],
            files={"roots.pem": host_authorities()},
            limits={"timeout_s": 60},
        )  # fmt: skip
    assert out(ran) == "/workspace/w/idna/__init__.py\n", ran.stderr


@dataclass(frozen=True)
class Index:
    """The package index that pip is configured with, and every host that serves its files."""

    url: str
    hosts: list[SplitResult]


def configured_index() -> Index:
    """Return the index from pip's own settings."""
    code = (
        "from pip._internal.commands.download import DownloadCommand as C; "
        "print(C('download', '').parse_args([])[0].index_url)"
    )
    url = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()
    page = f"{url.rstrip('/')}/idna/"
    with urlopen(page, timeout=30) as answer:  # noqa: S310 - pip's own setting
        links = re.findall(r'href="([^"#]+)', answer.read().decode())
    found = {urlsplit(urljoin(page, link))._replace(path="", query="") for link in [page, *links]}
    return Index(url, sorted(found))


def host_authorities() -> bytes:
    """Return the certificates that this host trusts: perhaps only these vouch for the index."""
    found = ssl.get_default_verify_paths().cafile
    return Path(found or "/etc/ssl/certs/ca-certificates.crt").read_bytes()


def port(parts: SplitResult) -> int:
    """Return the port of an address, or its scheme's if the address has none."""
    return parts.port or {"https": 443, "http": 80}[parts.scheme]


def test_a_named_policy_is_resolved_when_it_is_used(world: World) -> None:
    """Changing a policy changes what later executions may reach."""
    rule = f"http://{PLAIN_HOST}:{world.plain.port}"
    api = world.client
    stored = api.put_egress_policy("plain", [rule])
    assert stored["rules"][0]["host"] == PLAIN_HOST
    command = ["curl", "-sS", f"{rule}/hello.txt"]
    ran = world.run(command, [], egress_policy="plain")
    assert out(ran) == "hello from outside\n"
    api.put_egress_policy("plain", [])
    assert out(world.run(command, [], egress_policy="plain")) == ""


def test_the_command_line_names_hosts(world: World, tmp_path: Path) -> None:
    """`runner run --egress` permits them, and without it nothing can be reached."""
    file = tmp_path / "fetch.sh"
    file.write_text(f"curl -sS http://{PLAIN_HOST}:{world.plain.port}/hello.txt")

    def ran(*options: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "runner", "run", str(file), *options],
            env={
                "PATH": "/usr/bin:/bin",
                "RUNNER_URL": world.deployment.url,
                "RUNNER_API_KEY": world.deployment.key("reaching"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout

    assert ran("--egress", f"http://{PLAIN_HOST}:{world.plain.port}") == "hello from outside\n"
    assert ran() == ""


def test_a_proxy_that_is_killed_comes_back(world: World) -> None:
    """Requests meanwhile wait or fail; the run continues, and asks again."""
    url = f"http://{PLAIN_HOST}:{world.plain.port}/hello.txt"
    before = len(world.plain.requests)
    execution = world.client.submit(
        command=[
            "bash",
            "-c",
            f"curl -sS {url}; sleep 1; curl -sS --retry 9 --retry-all-errors {url}",
        ],
        egress=[f"http://{PLAIN_HOST}:{world.plain.port}"],
    )
    eventually(lambda: len(world.plain.requests) > before)
    (proxy,) = proxies(world.deployment)
    proxy.kill()
    ended = world.client.wait(execution)
    assert out(ended) == "hello from outside\n" * 2


def stored_together(world: World, egress: list[Any]) -> bool:
    """Return whether the start and the end of a short run were stored together."""
    execution = world.run(["true"], egress)
    assert execution.state == "succeeded"
    rows = world.deployment.sql(
        "SELECT data ->> 'state' AS state, xmin::text AS written FROM events "
        "WHERE execution_id = %s AND kind = 'state'",
        execution.id,
    )
    written = {row["state"]: row["written"] for row in rows}
    return bool(written["running"] == written["succeeded"])


def test_what_may_reach_something_begins_on_record(world: World) -> None:
    """However short it is, nobody may think that it did not begin if its worker dies.

    The control: the start of a program that can reach nothing is stored with its end.
    """
    rule = [{"host": OPEN_HOST, "port": world.tls.port}]
    assert not any(stored_together(world, rule) for _ in range(3))
    assert any(stored_together(world, []) for _ in range(20))
