"""Privileges and namespaces: what a program is, and what it could become."""

from runner.verify.check import Check, Group, Probe, Severity

_STATUS = """
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)
value = status['{field}'].strip()
{test}
"""
_CIS = "CIS Docker Benchmark 5.4, 5.26; capabilities(7)"


def _status(field: str, test: str) -> str:
    return _STATUS.format(field=field, test=test)


_EMPTY = "held('none') if int(value, 16) == 0 else breached(value)"

_SETS: tuple[Check, ...] = tuple(
    Probe(
        id=f"privileges.capabilities.{word}",
        group=Group.PRIVILEGES,
        severity=Severity.CRITICAL,
        title=f"No capability is {word}",
        meaning="a program could use or regain a part of root's power",
        source=_CIS,
        control="capabilities",
        code=_status(field, _EMPTY),
        expect="none",
        undemonstrable=why,
    )
    for word, field, why in (
        ("effective", "CapEff", ""),
        ("permitted", "CapPrm", ""),
        ("bounding", "CapBnd", ""),
        ("inheritable", "CapInh", "this Docker gives no inheritable capability in any case"),
        ("ambient", "CapAmb", "this Docker gives no ambient capability in any case"),
    )
)

_POWERS: tuple[Check, ...] = tuple(
    Probe(
        id=f"privileges.{id_}",
        group=Group.PRIVILEGES,
        title=title,
        meaning=meaning,
        source="capabilities(7)",
        control="seccomp, for root" if id_.startswith("set") else "capabilities",
        code=code,
        needs={"oom-score": "SYS_RESOURCE", "raise-limit": "SYS_RESOURCE"}.get(id_, ""),
    )
    for id_, title, meaning, code in (
        (
            "chown",
            "A file cannot be given to another user",
            "files of other users could be taken over",
            "open('f', 'w').close(); attempt(lambda: os.chown('f', 4321, 4321))",
        ),
        (
            "setuid",
            "A program cannot become another user",
            "processes of other users could be reached",
            "attempt(lambda: os.setuid(4321))",
        ),
        (
            "setgid",
            "A program cannot join another group",
            "files of other groups could be reached",
            "attempt(lambda: os.setgid(4321))",
        ),
        (
            "setgroups",
            "A program cannot add groups",
            "files of other groups could be reached",
            "attempt(lambda: os.setgroups([4321]))",
        ),
        (
            "nice",
            "A program cannot raise its own priority",
            "a tenant could take the processor from its neighbours",
            "attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, -10))",
        ),
        (
            "oom-score",
            "A program cannot protect itself from the out-of-memory killer",
            "the supervisor, not the program, would be killed when memory runs out",
            "fd = os.open('/proc/self/oom_score_adj', os.O_WRONLY)\n"
            "attempt(lambda: os.write(fd, b'-900'))",
        ),
        (
            "raise-limit",
            "A hard limit cannot be raised",
            "every resource limit would be advice only",
            "import resource\n"
            "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
            "try: resource.setrlimit(resource.RLIMIT_NOFILE, (most + 1, most + 1))\n"
            "except ValueError: held('EPERM')\n"
            "breached()",
        ),
        (
            "foreign-files",
            "File permissions apply to the program",
            "every file of the image and every mount could be read",
            "os.mkdir('d'); open('d/f', 'w').close(); os.chmod('d/f', 0)\n"
            "attempt(lambda: open('d/f').close())",
        ),
    )
)

_SUPERVISOR: tuple[Check, ...] = tuple(
    Probe(
        id=f"privileges.supervisor.{name}",
        group=Group.PRIVILEGES,
        severity=Severity.CRITICAL,
        title=f"The supervisor's {what} cannot be read",
        meaning="a program could read or forge what the supervisor reports about it",
        source="ptrace(2), PR_SET_DUMPABLE",
        control="non-dumpable supervisor",
        code=code,
        expect="EACCES" if name == "environ" else "",
    )
    for name, what, code in (
        ("environ", "environment", "attempt(lambda: open('/proc/1/environ', 'rb').read(1))"),
        ("maps", "memory map", "attempt(lambda: open('/proc/1/maps', 'rb').read(1))"),
        ("mem", "memory", "attempt(lambda: open('/proc/1/mem', 'rb').close())"),
        ("fd", "descriptors", "attempt(lambda: os.listdir('/proc/1/fd'))"),
        ("cwd", "working directory", "attempt(lambda: os.readlink('/proc/1/cwd'))"),
        ("exe", "executable", "attempt(lambda: os.readlink('/proc/1/exe'))"),
        ("root", "root directory", "attempt(lambda: os.readlink('/proc/1/root'))"),
        ("io", "input and output counts", "attempt(lambda: open('/proc/1/io').read())"),
        ("auxv", "auxiliary vector", "attempt(lambda: open('/proc/1/auxv', 'rb').read(1))"),
    )
)

_IDENTITY: tuple[Check, ...] = (
    Probe(
        id="privileges.no-new-privileges",
        group=Group.PRIVILEGES,
        severity=Severity.CRITICAL,
        title="no_new_privs is set",
        meaning="a setuid file would give root's power",
        source="CIS Docker Benchmark 5.26; prctl(2)",
        control="no-new-privileges",
        code=_status("NoNewPrivs", "held(value) if value == '1' else breached(value)"),
        expect="1",
    ),
    Probe(
        id="privileges.filtered",
        group=Group.PRIVILEGES,
        severity=Severity.CRITICAL,
        title="A system call filter is in force",
        meaning="the whole kernel would be within reach",
        source="CIS Docker Benchmark 5.22; seccomp(2)",
        control="seccomp",
        code=_status("Seccomp", "held(value) if value == '2' else breached(value)"),
        expect="2",
    ),
    Probe(
        id="privileges.user",
        group=Group.PRIVILEGES,
        severity=Severity.CRITICAL,
        title="Programs run as an unprivileged user",
        meaning="root of the container is root of the host where the two share a user namespace",
        source="OWASP Docker Security 2",
        control="user",
        code="held('a user') if os.getuid() and os.getgid() else breached('root')",
        expect="a user",
    ),
    Probe(
        id="privileges.groups",
        group=Group.PRIVILEGES,
        title="There are no supplementary groups",
        meaning="files of a host's group could be reached through a mount",
        source="OWASP Docker Security 2",
        control="groups",
        code="extra = set(os.getgroups()) - {os.getgid()}\n"
        "held('none') if not extra else breached(extra)",
        expect="none",
    ),
    Probe(
        id="privileges.setuid-files",
        group=Group.PRIVILEGES,
        title="The image holds no setuid or setgid file",
        meaning="one fault in such a program would give root's power",
        source="CIS Docker Benchmark 4.8",
        control="clean image",
        undemonstrable="the image is made without them; the probe is shown to see one by a test",
        code="import stat\n"
        "found = [os.path.join(folder, each) for folder, names, files in os.walk('/')\n"
        "    if not folder.startswith(('/proc', '/sys')) for each in files\n"
        "    if os.lstat(os.path.join(folder, each)).st_mode & 0o6000]\n"
        "held('none') if not found else breached(found[:3])",
        expect="none",
    ),
    Probe(
        id="privileges.descriptors",
        group=Group.PRIVILEGES,
        severity=Severity.CRITICAL,
        title="A program inherits only its three standard descriptors",
        meaning="a descriptor of the host would lead out of the container",
        source="CVE-2024-21626",
        control="closed descriptors",
        apart=True,
        undemonstrable="the interpreter that starts programs opens every descriptor close-on-exec",
        code="extra = [fd for fd in os.listdir('/proc/self/fd') if int(fd) > 3]\n"
        "held('none') if not extra else breached(extra)",
        expect="none",
    ),
    Probe(
        id="privileges.kill-supervisor",
        group=Group.PRIVILEGES,
        title="No signal ends the supervisor",
        meaning="a program's end could go unreported",
        source="pid_namespaces(7)",
        control="init of a PID namespace",
        undemonstrable="the kernel discards what the first process has no handler for",
        code="import signal\n"
        "for number in signal.valid_signals():\n"
        "    os.kill(1, number)\n"
        "import time; time.sleep(0.05)\n"
        "held('discarded')",
        expect="discarded",
    ),
)

_NAMESPACES: tuple[Check, ...] = tuple(
    Probe(
        id=f"namespaces.{name}",
        group=Group.NAMESPACES,
        severity=Severity.CRITICAL,
        title=f"The {what} namespace is not the host's",
        meaning=meaning,
        source=source,
        control=control,
        undemonstrable=why,
        code=f"own = os.readlink('/proc/self/ns/{name}')\n"
        f"breached(own) if own == FACTS['namespaces']['{name}'] else held('its own')",
        expect="its own",
    )
    for name, what, meaning, source, control, why in (
        (
            "pid", "PID", "the host's processes could be seen and signalled",
            "CIS Docker Benchmark 5.16", "pid namespace",
            "a sandbox among the host's processes could end other tenants': not tried",
        ),
        (
            "mnt", "mount", "the host's files could be reached",
            "namespaces(7)", "mount namespace", "Docker starts no container without one",
        ),
        (
            "net", "network", "the host's network could be reached",
            "CIS Docker Benchmark 5.10", "host network", "",
        ),
        (
            "ipc", "IPC", "shared memory and semaphores of the host could be reached",
            "CIS Docker Benchmark 5.17", "ipc namespace", "",
        ),
        (
            "uts", "UTS", "the host's name could be changed",
            "CIS Docker Benchmark 5.21", "uts namespace", "",
        ),
        (
            "cgroup", "cgroup", "the host's control groups could be seen",
            "cgroup_namespaces(7)", "cgroup namespace", "",
        ),
    )
)  # fmt: skip

_VISIBLE: tuple[Check, ...] = (
    Probe(
        id="namespaces.host-name",
        group=Group.NAMESPACES,
        severity=Severity.LOW,
        title="The host's name is not shown",
        meaning="a tenant would learn which host it is on",
        source="CIS Docker Benchmark 5.21",
        control="uts namespace",
        code="breached(os.uname().nodename) if os.uname().nodename == FACTS['host_name'] "
        "else held(os.uname().nodename)",
        expect="sandbox",
    ),
    Probe(
        id="namespaces.processes",
        group=Group.NAMESPACES,
        severity=Severity.CRITICAL,
        title="Only the sandbox's own processes can be seen",
        meaning="other tenants' programs and their arguments could be read",
        source="CIS Docker Benchmark 5.16",
        control="pid namespace",
        apart=True,
        undemonstrable="a sandbox among the host's processes could end other tenants': not tried",
        code="others = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "held(len(others)) if len(others) == 2 else breached(others)",
        expect="2",
    ),
    Probe(
        id="namespaces.cgroup-path",
        group=Group.NAMESPACES,
        severity=Severity.LOW,
        title="The control group's path reveals nothing about the host",
        meaning="a tenant would learn its container's id and how the host is organised",
        source="cgroup_namespaces(7)",
        control="cgroup namespace",
        code="text = open('/proc/self/cgroup').read()\n"
        "breached('a container id') if 'agentrunner' in text else held('/')",
        expect="/",
    ),
    Probe(
        id="namespaces.ipc-objects",
        group=Group.NAMESPACES,
        title="Shared memory of the host is not seen",
        meaning="a tenant could read what processes of the host share",
        source="CIS Docker Benchmark 5.17",
        control="ipc namespace",
        code="rows = open('/proc/sysvipc/shm').read().splitlines()[1:]\n"
        "keys = {int(row.split()[0]) for row in rows}\n"
        "breached('a segment of the host') if FACTS['shared_memory_key'] in keys else held('none')",
        expect="none",
    ),
)

CHECKS: tuple[Check, ...] = (*_SETS, *_POWERS, *_SUPERVISOR, *_IDENTITY, *_NAMESPACES, *_VISIBLE)
