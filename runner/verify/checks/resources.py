"""Amounts and time: how much a program can take, and how long it can stay."""

from runner.verify.bench import Bench, observation
from runner.verify.check import Check, Group, Observation, Probe, Severity
from runner.verify.controls import Change, supervisor
from runner.verify.trial import Attempt, Trial

_PROBES: tuple[Check, ...] = (
    Probe(
        id="resources.processes",
        group=Group.RESOURCES,
        severity=Severity.CRITICAL,
        title="A fork bomb ends at the pids limit",
        meaning="the host would run out of processes",
        source="CIS Docker Benchmark 5.29",
        control="pids limit",
        alone=True,
        code="made = 0\n"
        "try:\n"
        "    while made < 100:\n"
        "        if os.fork() == 0:\n"
        "            import time; time.sleep(20); os._exit(0)\n"
        "        made += 1\n"
        "except BlockingIOError: held('EAGAIN')\n"
        "breached(made)",
        expect="EAGAIN",
    ),
    Probe(
        id="resources.threads",
        group=Group.RESOURCES,
        severity=Severity.CRITICAL,
        title="Threads count against the pids limit",
        meaning="the host would run out of threads",
        source="CIS Docker Benchmark 5.29; cgroups(7)",
        control="pids limit",
        alone=True,
        code="import threading, time\n"
        "try:\n"
        "    for _ in range(100): threading.Thread(target=time.sleep, args=(20,), daemon=True).start()\n"
        "except RuntimeError: held('no new thread')\n"
        "breached()",
        expect="no new thread",
    ),
    *(
        Probe(
            id=f"resources.memory.{id_}",
            group=Group.RESOURCES,
            severity=Severity.CRITICAL,
            title=title,
            meaning="neighbours would be killed for their memory",
            source="CIS Docker Benchmark 5.11",
            control="memory limit",
            alone=True,
            code=code,
        )
        for id_, title, code in (
            (
                "heap",
                "A program cannot get memory beyond the limit",
                "block = bytearray(400 * 2**20)\n"
                "for at in range(0, len(block), 4096): block[at] = 1\n"
                "breached()",
            ),
            (
                "shared",
                "Shared memory counts against the limit",
                "import mmap\n"
                "block = mmap.mmap(-1, 400 * 2**20)\n"
                "for at in range(0, len(block), 4096): block[at] = 1\n"
                "breached()",
            ),
            (
                "memfd",
                "Files in memory count against the limit",
                "for _ in range(40):\n"
                "    memory = os.memfd_create('m')\n"
                "    os.write(memory, bytes(10 * 2**20))\n"
                "breached()",
            ),
        )
    ),
    *(
        Probe(
            id=f"resources.memory.{kind}-sockets",
            group=Group.RESOURCES,
            severity=Severity.CRITICAL,
            title=f"The memory of {kind.upper()} sockets on loopback is limited",
            meaning="the host's memory could be taken beyond every limit, and its network stopped",
            source="cgroup-v1/memory.rst, kmem.tcp; tcp(7), udp(7): tcp_mem, udp_mem",
            control="socket memory",
            alone=True,
            limits={"memory_mb": 128},
            code=f"import resource\n{fill}"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
            "def pages():\n"
            "    lines = (line.split() for line in open('/proc/net/sockstat'))\n"
            f"    return next(int(l[l.index('mem') + 1]) for l in lines if l[0] == '{kind.upper()}:')\n"
            "if not os.path.exists('/proc/net/sockstat'): absent()\n"
            "before, kept, block = pages(), [], bytes(60000)\n"
            "try:\n"
            "    while len(kept) < 1500 and (pages() - before) * 4096 < 400 * 2**20: fill()\n"
            "except OSError: pass\n"
            "held = (pages() - before) * 4096 // 2**20\n"
            "breached(f'{held} MiB') if held > 200 else end(False, 'bounded')",
            expect="bounded",
        )
        for kind, fill in (
            (
                "udp",
                "def fill():\n"
                "    kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))\n"
                "    kept[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**26)\n"
                "    kept[-1].bind(('127.0.0.1', 0))\n"
                "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:\n"
                "        for _ in range(100): sender.sendto(block, kept[-1].getsockname())\n",
            ),
            (
                "tcp",
                "listener = socket.create_server(('127.0.0.1', 0))\n"
                "def fill():\n"
                "    sender = socket.create_connection(listener.getsockname())\n"
                "    kept.extend([sender, listener.accept()[0]])\n"
                "    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**26)\n"
                "    sender.setblocking(False)\n"
                "    try:\n"
                "        while True: sender.send(block)\n"
                "    except BlockingIOError: pass\n",
            ),
        )
    ),
    Probe(
        id="resources.cpu",
        group=Group.RESOURCES,
        title="Busy processes together get only the requested CPU share",
        meaning="one tenant could take the processors from the others",
        source="CIS Docker Benchmark 5.12",
        control="cpu limit",
        alone=True,
        limits={"cpu": 0.2},
        code="import time, resource\n"
        "children = []\n"
        "for _ in range(3):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        until = time.monotonic() + 1.0\n"
        "        while time.monotonic() < until: pass\n"
        "        os._exit(0)\n"
        "    children.append(child)\n"
        "for child in children: os.waitpid(child, 0)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "share = used.ru_utime + used.ru_stime\n"
        "held('bounded') if share < 0.5 else breached(round(share, 2))",
        expect="bounded",
    ),
    *(
        Probe(
            id=f"resources.limit.{id_}",
            group=Group.RESOURCES,
            severity=Severity.MEDIUM,
            title=title,
            meaning=meaning,
            source="getrlimit(2); CIS Docker Benchmark 5.19",
            control=f"ulimit {id_}",
            alone=True,
            code=f"import resource\nmost = resource.getrlimit(resource.{limit})[1]\n"
            f"held(most) if 0 <= most <= {bound} else breached(most)",
        )
        for id_, title, limit, bound, meaning in (
            ("nofile", "Descriptors are limited", "RLIMIT_NOFILE", "4096", "kernel memory could be taken"),
            ("core", "A crash leaves no core", "RLIMIT_CORE", "0", "memory would be written to the host's disk"),
            ("fsize", "A file's size is limited", "RLIMIT_FSIZE", "2**40", "sparse files of any size could be made"),
            ("memlock", "Locked memory is limited", "RLIMIT_MEMLOCK", "2**20", "memory could be kept from the host"),
        )
    ),
    Probe(
        id="resources.sparse",
        group=Group.RESOURCES,
        severity=Severity.MEDIUM,
        title="A sparse file of a terabyte cannot be made",
        meaning="the collection of files would read a terabyte",
        source="proftpd and tar sparse file bombs",
        control="ulimit fsize",
        alone=True,
        code="import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "fd = os.open('sparse', os.O_RDWR | os.O_CREAT)\n"
        "attempt(lambda: os.ftruncate(fd, 2**40))",
        expect="EFBIG",
    ),
)  # fmt: skip


def _outlives(start: str) -> Attempt:
    """Return an attempt to survive until the next program of the same sandbox runs."""

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        ending = "import processes; processes.kill_all = lambda: None"
        changes: tuple[Change, ...] = () if guarded else (supervisor(ending),)
        async with bench.sandbox(*changes) as sandbox:
            await bench.run(sandbox, start)
            looking = (
                "import json, os, time; time.sleep(0.1)\n"
                "others = [p for p in os.listdir('/proc') if p.isdigit()]\n"
                "print('\\n' + json.dumps({'breached': len(others) > 2, "
                "'saw': f'{len(others)} processes', 'absent': False}), end='')"
            )
            return observation(await bench.run(sandbox, looking))

    return attempt


_FORKED = (
    "import os, signal, time\nif os.fork() == 0:\n    {do}\n    time.sleep(30)\n    os._exit(0)\n"
)

_LEFTOVERS: tuple[Check, ...] = tuple(
    Trial(
        id=f"time.left.{id_}",
        group=Group.TIME,
        severity=Severity.CRITICAL,
        title=f"{title} does not outlive the program",
        meaning="a program could go on after its result, and watch the next one",
        source=source,
        control="whole clean-up",
        attempt=_outlives(_FORKED.format(do=do)),
    )
    for id_, title, do, source in (
        ("child", "A child", "pass", "inspect_ai #2779"),
        ("session", "A daemon in a session of its own", "os.setsid()", "OpenSandbox #217"),
        ("double-fork", "A daemon forked twice", "if os.fork(): os._exit(0)", "llm-sandbox #43"),
        ("sigterm", "A process that ignores SIGTERM", "signal.signal(15, signal.SIG_IGN)", "llm-sandbox #43"),
        ("stopped", "A process that has stopped itself", "os.kill(os.getpid(), signal.SIGSTOP)", "piston #196"),
        ("closed", "A process without open files", "os.closerange(0, 3)", "OpenSandbox #217"),
        ("group", "A process of another group", "os.setpgid(0, 0)", "inspect_ai #2779"),
    )
)  # fmt: skip


def _deadline(code: str) -> Attempt:
    """Return an attempt to run longer than allowed; unguarded, more time is allowed."""

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        within = bench.within({"timeout_s": 0.4 if guarded else bench.settings.patient(8.0)})
        done = (
            "\nimport json, sys\nsys.stdout.write(json.dumps("
            "{'breached': True, 'saw': 'ran past its time', 'absent': False}))"
        )
        async with bench.sandbox() as sandbox:
            return observation(await bench.run(sandbox, code + done, bounds=within.bounds))

    return attempt


_DEADLINES: tuple[Check, ...] = tuple(
    Trial(
        id=f"time.deadline.{id_}",
        group=Group.TIME,
        severity=Severity.CRITICAL,
        title=f"{title} ends at its deadline",
        meaning="a program could hold its sandbox for ever",
        source=source,
        control="the worker's clock",
        attempt=_deadline(code),
        lives=True,
    )
    for id_, title, code, source in (
        ("sleep", "A program that sleeps", "import time; time.sleep(1.5)", "inspect_ai #2779"),
        ("spin", "A program that is busy",
         "import time\nuntil = time.monotonic() + 1.5\nwhile time.monotonic() < until: pass",
         "inspect_ai #2779"),
        ("sigterm", "A program that ignores SIGTERM",
         "import signal, time\nsignal.signal(15, signal.SIG_IGN)\n"
         "until = time.monotonic() + 1.5\nwhile time.monotonic() < until: time.sleep(0.1)",
         "llm-sandbox #43"),
        ("fork", "A program whose child does the work",
         "import os, time\nif os.fork(): os.wait()\nelse:\n    time.sleep(1.5); os._exit(0)",
         "OpenSandbox #217"),
    )
)  # fmt: skip

CHECKS: tuple[Check, ...] = (*_PROBES, *_LEFTOVERS, *_DEADLINES)
