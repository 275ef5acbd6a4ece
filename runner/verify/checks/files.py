"""Files, devices, and what /proc and /sys reveal or accept."""

from runner.verify.check import Check, Group, Probe, Severity

_WRITE = "attempt(lambda: os.close(os.open({path!r}, os.O_WRONLY | os.O_CREAT, 0o600)))"

_ROOT: tuple[Check, ...] = tuple(
    Probe(
        id=f"files.write.{path.strip('/').replace('/', '-')}",
        group=Group.FILES,
        title=f"{path} cannot be written",
        meaning="a program could change what later programs of this sandbox run",
        source="CIS Docker Benchmark 5.13",
        control="read-only root",
        code=_WRITE.format(path=f"{path}/probe"),
    )
    for path in ("/etc", "/usr/bin", "/usr/lib", "/opt/supervisor", "/var/tmp", "/root", "/run")  # noqa: S108 - the sandbox's
)

_PLACES = {"workspace": "/workspace", "tmp": "/tmp", "shm": "/dev/shm"}  # noqa: S108 - the sandbox's

_MOUNTED: tuple[Check, ...] = tuple(
    Probe(
        id=f"files.{flag}.{id_}",
        group=Group.FILES,
        title=f"{place} is mounted {flag}",
        meaning=meaning,
        source="CIS Docker Benchmark 1.2, mount(8)",
        control=flag,
        code=f"flags = os.statvfs({place!r}).f_flag\n"
        f"held({flag!r}) if flags & {bit} else breached('not {flag}')",
        expect=flag,
    )
    for flag, bit, meaning in (
        ("nosuid", 2, "a setuid file made there would give another user's rights"),
        ("nodev", 4, "a device made there could be opened"),
    )
    for id_, place in _PLACES.items()
)

_SIZED: tuple[Check, ...] = tuple(
    Probe(
        id=f"resources.{what}.{id_}",
        group=Group.RESOURCES,
        title=f"{place} is limited in {words}",
        meaning="one tenant could take the host's memory",
        source="CIS Docker Benchmark 5.11; tmpfs(5)",
        control="sized places",
        code=f"found = os.statvfs({place!r})\n"
        f"most = {expression}\n"
        f"held(most) if most <= {bound} else breached(most)",
    )
    for id_, place in _PLACES.items()
    for what, words, expression, bound in (
        ("bytes", "bytes", "found.f_blocks * found.f_frsize", "64 * 2**20"),
        ("inodes", "files", "found.f_files", "8192"),
    )
)

_DEVICES: tuple[Check, ...] = (
    *(
        Probe(
            id=f"files.device.{name}",
            group=Group.FILES,
            severity=Severity.CRITICAL,
            title=f"There is no /dev/{name}",
            meaning=meaning,
            source="CIS Docker Benchmark 5.18",
            control="device list",
            code=f"breached() if os.path.exists('/dev/{name}') else held('ENOENT')",
            expect="ENOENT",
        )
        for name, meaning in (
            ("kmsg", "the kernel's messages could be read and written"),
            ("fuse", "file systems could be mounted"),
        )
    ),
    Probe(
        id="files.devices",
        group=Group.FILES,
        severity=Severity.CRITICAL,
        title="/dev holds only harmless devices",
        meaning="a device of the host could be used",
        source="CIS Docker Benchmark 5.18",
        control="device list",
        code="import stat\n"
        "known = {'null', 'zero', 'full', 'random', 'urandom', 'tty', 'ptmx', 'console'}\n"
        "extra = [n for n in os.listdir('/dev') if n not in known and "
        "stat.S_IFMT(os.lstat('/dev/' + n).st_mode) in (stat.S_IFCHR, stat.S_IFBLK)]\n"
        "held('none') if not extra else breached(extra)",
        expect="none",
    ),
    Probe(
        id="files.null",
        group=Group.FILES,
        severity=Severity.CRITICAL,
        title="/dev/null is the null device",
        meaning="a link in its place would have masked the wrong file",
        source="CVE-2025-31133",
        control="runc",
        undemonstrable="it could fail only with a faulty runc",
        code="import stat\n"
        "found = os.stat('/dev/null')\n"
        "right = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)\n"
        "held('1:3') if right else breached(found.st_rdev)",
        expect="1:3",
    ),
    Probe(
        id="files.mknod",
        group=Group.FILES,
        severity=Severity.CRITICAL,
        title="No device file can be made",
        meaning="the host's disks could be opened",
        source="CIS Docker Benchmark 5.3; capabilities(7)",
        control="capabilities",
        code="import stat\n"
        "attempt(lambda: os.mknod('device', stat.S_IFCHR | 0o600, os.makedev(1, 3)))",
    ),
    Probe(
        id="files.noexec.shm",
        group=Group.FILES,
        severity=Severity.LOW,
        title="Nothing in /dev/shm can be executed",
        meaning="programs could be hidden where nobody looks for artifacts",
        source="CIS Docker Benchmark 1.1.17",
        control="noexec",
        code="import shutil, subprocess\n"
        "shutil.copy('/bin/true', '/dev/shm/true')\n"
        "attempt(lambda: subprocess.run(['/dev/shm/true']))",
        expect="EACCES",
    ),
    Probe(
        id="files.mqueue",
        group=Group.RESOURCES,
        title="The message queue file system cannot be filled",
        meaning="kernel memory outside every limit could be taken",
        source="mq_overview(7)",
        control="message queues",
        code=_WRITE.format(path="/dev/mqueue/probe"),
        expect="EROFS",
    ),
    Probe(
        id="files.daemon-sockets",
        group=Group.FILES,
        severity=Severity.CRITICAL,
        title="No socket of a container daemon is within reach",
        meaning="whoever can reach the daemon is root on the host",
        source="CIS Docker Benchmark 5.32",
        control="mounts",
        undemonstrable="no sandbox gets the daemon's socket just to show this; a test does it",
        code="import stat\n"
        "found = [os.path.join(folder, each) for folder, _, files in os.walk('/')\n"
        "    if not folder.startswith(('/proc', '/sys')) for each in files\n"
        "    if stat.S_ISSOCK(os.lstat(os.path.join(folder, each)).st_mode)]\n"
        "held('none') if not found else breached(found)",
        expect="none",
    ),
    Probe(
        id="files.socket-directory",
        group=Group.FILES,
        severity=Severity.CRITICAL,
        title="The sandbox's socket directory cannot be written",
        meaning="a program could take the supervisor's or the proxy's place",
        source="docs/security/sandbox.md",
        control="read-only mount",
        undemonstrable="it belongs to root and is mounted read-only; either is enough",
        code=_WRITE.format(path="/run/sandbox/probe"),
        expect="EROFS",
    ),
    Probe(
        id="files.supervisor-socket",
        group=Group.FILES,
        severity=Severity.CRITICAL,
        title="The supervisor's socket is gone before a program starts",
        meaning="a program could speak to the worker in the supervisor's name",
        source="docs/security/sandbox.md",
        control="unlinked socket",
        undemonstrable="a worker that leaves it there still accepts no second connection",
        code="link = socket.socket(socket.AF_UNIX)\n"
        "attempt(lambda: link.connect('/run/sandbox/supervisor.sock'))",
        expect="ENOENT",
    ),
)

_MOBY = "moby default masked paths; CVE-2025-31133"
_PROC = "proc(5)"
_MASKED_FOR = {"/proc/kcore": "masked paths, for root"}
"""Without the mask, the kernel still refuses it to root without capabilities."""

_MASKED: tuple[Check, ...] = tuple(
    Probe(
        id=f"proc.masked.{path.strip('/').replace('/', '-')}",
        group=Group.PROC,
        severity=severity,
        title=f"{path} reveals nothing",
        meaning=meaning,
        source=source,
        control=_MASKED_FOR.get(path, "masked paths"),
        code=f"path = {path!r}\n"
        "def look(path):\n"
        "    if os.path.isdir(path): return os.listdir(path)\n"
        "    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)\n"
        "    return os.read(fd, 16)\n"
        "try: seen = look(path)\n"
        "except FileNotFoundError: absent('this kernel has none')\n"
        "except OSError as error: held(name(error.errno))\n"
        "breached('something') if seen else absent('empty')",
    )
    for source, path, severity, meaning in (
        *((_MOBY, *each) for each in (
        ("/proc/kcore", Severity.CRITICAL, "the host's memory could be read"),
        ("/proc/keys", Severity.HIGH, "keys of the host could be seen"),
        ("/proc/timer_list", Severity.LOW, "processes of the host could be seen"),
        ("/proc/sched_debug", Severity.LOW, "processes of the host could be seen"),
        ("/proc/interrupts", Severity.LOW, "keystrokes of the host could be timed"),
        ("/proc/kallsyms", Severity.MEDIUM, "kernel addresses could be learned"),
        ("/proc/modules", Severity.LOW, "the kernel's parts could be learned"),
        ("/proc/latency_stats", Severity.LOW, "work of the host could be watched"),
        ("/proc/scsi", Severity.MEDIUM, "disks of the host could be removed"),
        ("/proc/acpi", Severity.MEDIUM, "the host's power could be switched"),
        ("/proc/bus", Severity.MEDIUM, "devices of the host could be listed"),
        ("/proc/fs", Severity.MEDIUM, "file systems of the host could be listed"),
        ("/proc/irq", Severity.MEDIUM, "interrupts of the host could be moved"),
        ("/sys/firmware", Severity.MEDIUM, "the host's firmware tables could be read"),
        ("/sys/kernel", Severity.MEDIUM, "the kernel's settings could be read"),
        ("/sys/fs/cgroup", Severity.MEDIUM, "control groups of the host could be seen"),
        ("/sys/class/dmi", Severity.LOW, "the host's serial numbers could be read"),
        ("/sys/devices/virtual/powercap", Severity.MEDIUM, "neighbours' keys could be derived from the power that they use"),
        )),
        *((_PROC, *each) for each in (
        ("/proc/cmdline", Severity.LOW, "how the host was started could be learned"),
        ("/proc/config.gz", Severity.LOW, "how the host's kernel was built could be learned"),
        ("/proc/pressure", Severity.MEDIUM, "other tenants' load could be watched, and used to send signals"),
        ("/proc/sys/kernel/random/boot_id", Severity.LOW, "sandboxes could tell that they share a host"),
        )),
    )
)  # fmt: skip

_SETTINGS: tuple[Check, ...] = tuple(
    Probe(
        id=f"proc.read-only.{path.removeprefix('/proc/').replace('/', '-')}",
        group=Group.PROC,
        severity=Severity.CRITICAL,
        title=f"{path} cannot be opened for writing",
        meaning=meaning,
        source=source,
        control="read-only paths",
        # Open and close it: nothing is written, whatever the outcome.
        code=f"attempt(lambda: os.close(os.open({path!r}, os.O_WRONLY)))",
    )
    for path, meaning, source in (
        ("/proc/sys/kernel/core_pattern", "a program of the host could be started as root", "CVE-2025-52881"),
        ("/proc/sys/kernel/modprobe", "a program of the host could be started as root", "moby default profile"),
        ("/proc/sys/vm/overcommit_memory", "the host's memory could be overcommitted", "CIS Docker Benchmark 5.25"),
        ("/proc/sys/kernel/randomize_va_space", "a defence of the host could be switched off", "proc(5)"),
        ("/proc/sys/fs/binfmt_misc/register", "a program of the host could be started as root", "proc(5)"),
        ("/proc/sysrq-trigger", "the host could be restarted", "proc(5)"),
    )
)  # fmt: skip

_CGROUPS: tuple[Check, ...] = tuple(
    Probe(
        id=f"proc.cgroup.{name}",
        group=Group.PROC,
        severity=Severity.CRITICAL,
        title=f"The control group's {name} cannot be written",
        meaning="a program of the host could be started as root, or a limit lifted",
        source="CVE-2022-0492",
        control="masked paths",
        undemonstrable="behind the mask, Docker also mounts control groups read-only",
        code="found = [os.path.join(folder, each) for folder, _, files in os.walk('/sys/fs/cgroup')\n"
        f"    for each in files if each == {name!r}]\n"
        "def writable(path):\n"
        "    try: os.close(os.open(path, os.O_WRONLY))\n"
        "    except OSError: return False\n"
        "    return True\n"
        "held('none') if not any(map(writable, found)) else breached(found)",
        expect="none",
    )
    for name in (
        "release_agent",
        "notify_on_release",
        "devices.allow",
        "cgroup.procs",
        "memory.max",
    )
)

CHECKS: tuple[Check, ...] = (
    *_ROOT, *_MOUNTED, *_DEVICES, *_MASKED, *_SETTINGS, *_CGROUPS, *_SIZED,
)  # fmt: skip
