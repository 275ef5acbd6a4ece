"""A sandbox without egress has no network."""

from runner.verify.check import Check, Group, Probe, Severity

_ROUTE = """
family = socket.AF_INET6 if ':' in {address!r} else socket.AF_INET
link = socket.socket(family, socket.SOCK_DGRAM)
# Of a datagram socket: looks up a route, and sends nothing.
attempt(lambda: link.connect(({address!r}, 9)))
"""

_ROUTES: tuple[Check, ...] = tuple(
    Probe(
        id=f"network.route.{id_}",
        group=Group.NETWORK,
        severity=Severity.CRITICAL,
        title=f"There is no route to {what}",
        meaning=meaning,
        source=source,
        control="no interface",
        code=_ROUTE.format(address=address),
    )
    for id_, what, address, meaning, source in (
        ("metadata", "the cloud's metadata service", "169.254.169.254",
         "the host's credentials could be fetched", "CVE-2019-5736 write-ups; OWASP SSRF"),
        ("private", "private networks", "10.1.2.3",
         "services of the operator could be reached", "OWASP SSRF"),
        ("gateway", "Docker's usual gateway", "172.17.0.1",
         "services of the host could be reached", "CIS Docker Benchmark 5.10"),
        ("public", "the internet", "192.0.2.1",
         "data could be carried off", "microsandbox #675"),
        ("multicast", "multicast groups", "224.0.0.251",
         "neighbours could be found and deceived", "CVE-2024-32473"),
    )
)  # fmt: skip

_OTHERS: tuple[Check, ...] = (
    Probe(
        id="network.interfaces",
        group=Group.NETWORK,
        severity=Severity.CRITICAL,
        title="There is no interface but loopback",
        meaning="whatever is behind another one could be reached",
        source="CIS Docker Benchmark 5.10",
        control="no interface",
        code="names = {row.split(':')[0].strip() for row in open('/proc/net/dev').readlines()[2:]}\n"
        "held('lo') if names == {'lo'} else breached(names)",
        expect="lo",
    ),
    Probe(
        id="network.routes",
        group=Group.NETWORK,
        severity=Severity.CRITICAL,
        title="The routing table is empty",
        meaning="whatever is behind a route could be reached",
        source="CIS Docker Benchmark 5.10",
        control="no interface",
        code="rows = open('/proc/net/route').read().splitlines()[1:]\n"
        "held('none') if not rows else breached(rows)",
        expect="none",
    ),
    Probe(
        id="network.name-lookup",
        group=Group.NETWORK,
        title="No name lookup leaves the sandbox",
        meaning="data could be carried off in the names that are looked up",
        source="microsandbox #675, CubeSandbox #408",
        control="host network",
        code="link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "link.connect(('127.0.0.1', FACTS['udp_port']))\n"
        "link.settimeout(0.2)\n"
        "try:\n"
        "    link.send(b'a question')\n"
        "    link.send(b'another')\n"
        "    link.recv(1)\n"
        "except TimeoutError: breached('a resolver of the host was asked')\n"
        "except OSError as error: held(name(error.errno))\n"
        "breached()",
        expect="ECONNREFUSED",
    ),
    Probe(
        id="network.host-loopback",
        group=Group.NETWORK,
        severity=Severity.CRITICAL,
        title="Services on the host's loopback cannot be reached",
        meaning="Redis, PostgreSQL, the API or Docker could be reached",
        source="CIS Docker Benchmark 5.10",
        control="host network",
        code="attempt(lambda: socket.create_connection(('127.0.0.1', FACTS['tcp_port']), 1))",
        expect="ECONNREFUSED",
    ),
    Probe(
        id="network.host-loopback-6",
        group=Group.NETWORK,
        severity=Severity.CRITICAL,
        title="Services on the host's IPv6 loopback cannot be reached",
        meaning="Redis, PostgreSQL, the API or Docker could be reached",
        source="CIS Docker Benchmark 5.10",
        control="host network",
        code="if FACTS['tcp6_port'] is None: absent('no IPv6 here')\n"
        "attempt(lambda: socket.create_connection(('::1', FACTS['tcp6_port']), 1))",
    ),
    Probe(
        id="network.abstract-sockets",
        group=Group.NETWORK,
        severity=Severity.CRITICAL,
        title="The host's abstract unix sockets cannot be reached",
        meaning="daemons of the host that listen there could be reached",
        source="CVE-2020-15257, GO-2022-0784",
        control="host network",
        code="link = socket.socket(socket.AF_UNIX)\n"
        "attempt(lambda: link.connect('\\0' + FACTS['abstract']))",
        expect="ECONNREFUSED",
    ),
    Probe(
        id="network.unix-table",
        group=Group.NETWORK,
        severity=Severity.LOW,
        title="The host's unix sockets are not listed",
        meaning="the daemons of the host could be learned",
        source="CVE-2020-15257",
        control="host network",
        code="text = open('/proc/net/unix').read()\n"
        "breached('listed') if FACTS['abstract'] in text else held('not listed')",
        expect="not listed",
    ),
    Probe(
        id="network.tcp-table",
        group=Group.NETWORK,
        severity=Severity.LOW,
        title="The host's TCP connections are not listed",
        meaning="the host's peers could be learned",
        source="CIS Docker Benchmark 5.10",
        control="host network",
        code="port = '%04X' % FACTS['tcp_port']\n"
        "rows = open('/proc/net/tcp').read()\n"
        "breached('listed') if ':' + port in rows else held('not listed')",
        expect="not listed",
    ),
    Probe(
        id="network.no-proxy",
        group=Group.NETWORK,
        severity=Severity.CRITICAL,
        title="Without egress rules nothing listens at the proxy's port",
        meaning="an execution that asked for no network would have one",
        source="CVE-2025-66479",
        control="default deny",
        undemonstrable="with rules the port is there by design; shown by the tests of egress",
        code="attempt(lambda: socket.create_connection(('127.0.0.1', 3128), 1))",
        expect="ECONNREFUSED",
    ),
)

CHECKS: tuple[Check, ...] = (*_ROUTES, *_OTHERS)
