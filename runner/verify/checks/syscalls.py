"""System calls: each dangerous one, tried with arguments that do nothing if the kernel accepts it.

A probe counts as breached as soon as the kernel itself answers, whatever it says, because the
filter should have answered first.
"""

import pyseccomp

from runner.verify.check import Check, Group, Probe, Severity

_UNKNOWN = -1

# id, call, arguments, what its success would mean, where the rule comes from. The kernel itself
# answers these calls with another error than the filter's, whoever makes them.
_OPEN = (
    ("add_key", "0, 0, 0, 0, 0", "keys of other containers' keyrings could be reached", "CVE-2014-9922"),
    ("keyctl", "-1", "keys of other containers' keyrings could be reached", "CVE-2016-0728"),
    ("request_key", "0, 0, 0, 0", "the host's key helper could be started", "moby default profile"),
    ("bpf", "-1, 0, 0", "programs could be loaded into the kernel", "CVE-2021-3490"),
    ("userfaultfd", "-1", "kernel faults could be stretched until a race is won", "CVE-2016-6516"),
    ("perf_event_open", "0, 0, -1, -1, 0", "the kernel and neighbours could be watched", "CVE-2013-2094"),
    ("kcmp", "os.getpid(), os.getpid(), 99, 0, 0", "kernel addresses could be compared", "moby default profile"),
    ("process_vm_readv", "1, 0, 0, 0, 0, 99", "other processes' memory could be read", "ptrace(2)"),
    ("process_vm_writev", "1, 0, 0, 0, 0, 99", "other processes' memory could be written", "ptrace(2)"),
    ("ptrace", "99, 0, 0, 0", "other processes could be controlled", "CVE-2019-13272"),
    ("pidfd_getfd", "-1, 0, 0", "other processes' descriptors could be taken", "pidfd_getfd(2)"),
    ("name_to_handle_at", "-1, 0, 0, 0, 0", "files could be named past the mounts", "CVE-2014-5206"),
    ("modify_ldt", "99, 0, 0", "the processor's tables could be changed", "CVE-2015-5157"),
    ("vmsplice", "-1, 0, 0, 0", "pages could be shared with the kernel", "CVE-2022-0847"),
    ("memfd_secret", "-1", "memory could be hidden from the host", "memfd_secret(2)"),
    ("mq_open", "0, -1, 0, 0", "queues outside the limits could be filled", "moby default profile"),
    ("shmget", "0, 0, 0", "memory outside the limits could be kept", "CIS Docker Benchmark 5.17"),
    ("semget", "0, 0, 0", "semaphores outside the limits could be kept", "CIS Docker Benchmark 5.17"),
    ("msgget", "0, 0", "queues outside the limits could be filled", "CIS Docker Benchmark 5.17"),
    ("open_tree", "-1, 0, 0", "mounts could be taken apart", "CVE-2022-0185"),
    ("mount_setattr", "-1, 0, 0, 0, 0", "read-only mounts could be made writable", "CVE-2022-0185"),
    ("migrate_pages", "0, -1, 0, 0", "memory of others could be moved", "moby default profile"),
    ("move_pages", "0, 1, 0, 0, 0, 99", "the layout of memory could be learned", "CVE-2017-14140"),
    ("process_madvise", "-1, 0, 0, 0, 99", "others' memory could be given up", "moby default profile"),
    ("quotactl", "-1, 0, 0, 0", "quotas of the host could be changed", "moby default profile"),
    ("sysfs", "99, 0, 0", "an obsolete door into the kernel", "moby default profile"),
    ("uselib", "0", "an obsolete door into the kernel", "moby default profile"),
    ("ustat", "0, 0", "an obsolete door into the kernel", "moby default profile"),
)  # fmt: skip

# The kernel refuses these to unprivileged processes with the filter's own error. So the probes get
# every capability, and only the filter is left.
_PRIVILEGED = (
    ("fanotify_init", "-1, 0", "file use of the host could be watched", "moby default profile"),
    ("move_mount", "-1, 0, -1, 0, 99", "mounts could be moved over files", "CVE-2022-0185"),
    ("mount", "0, b'/none', 0, 0, 0", "the container's files could be replaced", "CVE-2022-0492"),
    ("umount2", "b'/none', 0", "the masks over the host's files could be removed", "CVE-2022-0492"),
    ("pivot_root", "b'/none', b'/none'", "the root could be left", "pivot_root(2)"),
    ("chroot", "b'/none'", "the root could be left", "chroot(2)"),
    ("setns", "-1, 0", "another container's namespaces could be entered", "setns(2)"),
    ("open_by_handle_at", "-1, 0, 0", "files of the host could be opened by number", "shocker, 2014"),
    ("fsopen", "0, 99", "file systems could be mounted", "CVE-2022-0185"),
    ("fsmount", "-1, 0, 0", "file systems could be mounted", "CVE-2022-0185"),
    ("fsconfig", "-1, 0, 0, 0, 0", "file systems could be mounted", "CVE-2022-0185"),
    ("fspick", "-1, 0, 99", "mounted file systems could be changed", "CVE-2022-0185"),
    ("init_module", "0, 0, 0", "code could be loaded into the kernel", "init_module(2)"),
    ("finit_module", "-1, 0, 0", "code could be loaded into the kernel", "init_module(2)"),
    ("delete_module", "b'no_such_module', 0", "parts of the kernel could be unloaded", "delete_module(2)"),
    ("kexec_load", "0, 0, 0, -1", "another kernel could be started", "kexec_load(2)"),
    ("kexec_file_load", "-1, -1, 0, 0, -1", "another kernel could be started", "kexec_load(2)"),
    ("reboot", "0, 0, 0, 0", "the host could be stopped", "reboot(2)"),
    ("swapon", "b'/none', 0", "the host's memory could be written to a file", "swapon(2)"),
    ("swapoff", "b'/none'", "the host's swap could be ended", "swapon(2)"),
    ("acct", "b'/none/none'", "processes of the host could be recorded", "acct(2)"),
    ("clock_settime", "99, 0", "the host's clock could be changed", "clock_settime(2)"),
    ("settimeofday", "1, 0", "the host's clock could be changed", "settimeofday(2)"),
    ("adjtimex", "0", "the host's clock could be changed", "adjtimex(2)"),
    ("clock_adjtime", "99, 0", "the host's clock could be changed", "adjtimex(2)"),
    ("syslog", "99, 0, 0", "the kernel's messages could be read", "syslog(2)"),
    ("iopl", "99", "devices could be driven past the kernel", "iopl(2)"),
    ("ioperm", "0, -1, 0", "devices could be driven past the kernel", "ioperm(2)"),
    ("sethostname", "0, -1", "others could be deceived about the host", "sethostname(2)"),
    ("setdomainname", "0, -1", "others could be deceived about the host", "sethostname(2)"),
    ("lookup_dcookie", "0, 0, 0", "paths of the host could be learned", "moby default profile"),
    ("vhangup", "", "the host's terminals could be hung up", "vhangup(2)"),
)  # fmt: skip

_LATER = (
    ("clone3", "0, 0", "namespace flags behind a pointer no filter can follow", "clone3(2)"),
    ("io_uring_setup", "0, 0", "system calls past the filter", "moby #46762"),
    ("io_uring_enter", "-1, 0, 0, 0, 0, 0", "system calls past the filter", "moby #46762"),
    ("io_uring_register", "-1, 0, 0, 0", "system calls past the filter", "moby #46762"),
)


def _numbered(name: str, arguments: str, by: str) -> str:
    """Return the probe's code with the number on this machine, whose kernel the sandbox shares."""
    number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
    if number < 0:
        return "held('not on this architecture')"
    return f"refused({number}{', ' if arguments else ''}{arguments}, by='{by}')"


def _probe(name: str, arguments: str, meaning: str, source: str, control: str, by: str) -> Probe:
    exists = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) >= 0
    return Probe(
        id=f"syscalls.{name}",
        group=Group.SYSCALLS,
        severity=Severity.CRITICAL,
        title=f"{name} never reaches the kernel",
        meaning=meaning,
        source=source,
        control=control,
        code=_numbered(name, arguments, by),
        expect=by if exists else "",
        undemonstrable="" if exists else "not a system call of this architecture",
    )


_NAMES: tuple[Check, ...] = (
    *(_probe(*each, "seccomp", "EPERM") for each in _OPEN),
    *(_probe(*each, "seccomp, for root", "EPERM") for each in _PRIVILEGED),
    *(_probe(*each, "seccomp", "ENOSYS") for each in _LATER),
)

_FLAGS = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "network": 0x40000000,
    "pid": 0x20000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}

_NAMESPACES: tuple[Check, ...] = tuple(
    Probe(
        id=f"syscalls.{call}.{name}",
        group=Group.SYSCALLS,
        severity=Severity.CRITICAL,
        title=f"{call} makes no {name} namespace",
        meaning="root of a namespace of its own reaches kernel code meant for administrators",
        source="CVE-2022-0185, CVE-2022-0492",
        control="seccomp, for root",
        code=code,
        expect="EPERM",
    )
    for name, flag in _FLAGS.items()
    for call, code in (
        (
            "unshare",
            f"ctypes.set_errno(0)\n"
            f"held(name(ctypes.get_errno())) if libc.unshare({flag}) else breached()",
        ),
        (
            "clone",
            f"number = {pyseccomp.resolve_syscall(pyseccomp.system_arch(), 'clone')}\n"
            "ctypes.set_errno(0)\n"
            f"child = libc.syscall(ctypes.c_long(number), ctypes.c_long({flag} | 17), "
            "*[ctypes.c_long(0)] * 4)\n"
            "if child == 0: os._exit(0)\n"
            "held(name(ctypes.get_errno())) if child < 0 else breached()",
        ),
    )
    # Only unshare makes a time namespace (time_namespaces(7)).
    if (call, name) != ("clone", "time")
)

_FAMILIES: tuple[Check, ...] = tuple(
    Probe(
        id=f"syscalls.socket.{name}",
        group=Group.SYSCALLS,
        title=f"No socket of family {name}",
        meaning=meaning,
        source=source,
        control=control,
        code=f"try: socket.socket({family}, {kind}, {protocol}).close()\n"
        "except OSError as error:\n"
        "    held('EPERM') if error.errno == errno.EPERM else breached(name(error.errno))\n"
        "breached()",
        expect="EPERM",
    )
    for name, family, kind, protocol, meaning, source, control in (
        ("netlink", 16, 3, 0, "the kernel's network tables could be read", "CVE-2021-22555", "seccomp"),
        ("packet", 17, 3, 0, "frames could be forged", "CVE-2020-14386", "seccomp, for root"),
        ("vsock", 40, 1, 0, "the hypervisor's services could be reached", "moby #44562", "seccomp"),
        ("alg", 38, 5, 0, "the kernel's cryptography could be attacked", "CVE-2026-31431", "seccomp"),
        ("xdp", 44, 3, 0, "frames could be taken past the stack", "CVE-2022-3545", "seccomp, for root"),
        ("key", 15, 3, 2, "the kernel's IPsec keys could be reached", "CVE-2022-27666", "seccomp, for root"),
        ("bluetooth", 31, 3, 1, "a large, old part of the kernel could be attacked", "CVE-2020-12351", "seccomp"),
        ("tipc", 30, 5, 0, "a large, old part of the kernel could be attacked", "CVE-2022-0435", "seccomp"),
        ("can", 29, 3, 1, "a large, old part of the kernel could be attacked", "CVE-2021-32606", "seccomp"),
        ("rds", 21, 5, 0, "a large, old part of the kernel could be attacked", "CVE-2010-3904", "seccomp"),
        ("nfc", 39, 3, 0, "a large, old part of the kernel could be attacked", "CVE-2021-23134", "seccomp"),
        ("smc", 43, 1, 0, "a large, old part of the kernel could be attacked", "CVE-2024-26726", "seccomp"),
        ("raw IPv4", 2, 3, 1, "packets could be forged", "CIS Docker Benchmark 5.4", "seccomp, for root"),
        ("raw IPv6", 10, 3, 58, "packets could be forged", "CIS Docker Benchmark 5.4", "seccomp, for root"),
    )
)  # fmt: skip

_TERMINAL = """
_, terminal = os.openpty()
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p]
os.setsid() if os.getsid(0) != os.getpid() else None
libc.ioctl(terminal, 0x540E, None)
ctypes.set_errno(0)
result = libc.ioctl(terminal, {request}, b'x')
number = ctypes.get_errno()
held('EPERM') if result and number == errno.EPERM else breached(name(number) if result else 'typed')
"""

_ARGUMENTS: tuple[Check, ...] = (
    *(
        Probe(
            id=f"syscalls.ioctl.{id_}",
            group=Group.SYSCALLS,
            title=f"ioctl {title} is refused",
            meaning="text could be typed into the terminal of whoever started the program",
            source=source,
            control="seccomp",
            code=_TERMINAL.format(request=request),
            expect="EPERM",
        )
        for id_, title, request, source in (
            ("tiocsti", "TIOCSTI", "0x5412", "CVE-2016-2568"),
            ("tiocsti-high", "TIOCSTI with bits above 32", "0x100005412", "CVE-2019-10063"),
            ("tioclinux", "TIOCLINUX", "0x541C", "CVE-2023-28100"),
        )
    ),
    *(
        Probe(
            id=f"syscalls.personality.{id_}",
            group=Group.SYSCALLS,
            severity=Severity.MEDIUM,
            title=f"personality {title} is refused",
            meaning="defences of the kernel against memory errors could be switched off",
            source="personality(2)",
            control="seccomp",
            code="ctypes.set_errno(0)\n"
            f"held(name(ctypes.get_errno())) if libc.personality({value}) == -1 else breached()",
            expect="EPERM",
        )
        for id_, title, value in (
            ("no-randomize", "ADDR_NO_RANDOMIZE", "0x0040000"),
            ("read-implies-exec", "READ_IMPLIES_EXEC", "0x0400000"),
            ("mmap-page-zero", "MMAP_PAGE_ZERO", "0x0100000"),
            ("compat-layout", "ADDR_COMPAT_LAYOUT", "0x0200000"),
        )
    ),
    Probe(
        id="syscalls.prlimit.supervisor",
        group=Group.SYSCALLS,
        title="The supervisor's limits cannot be set",
        meaning="a program could starve its supervisor",
        source="prlimit(2)",
        control="seccomp",
        code="import resource\nattempt(lambda: resource.prlimit(1, resource.RLIMIT_CORE, (0, 0)))",
        expect="EPERM",
    ),
    Probe(
        id="syscalls.prctl.mm",
        group=Group.SYSCALLS,
        severity=Severity.MEDIUM,
        title="prctl PR_SET_MM is refused",
        meaning="a program could disguise its memory map",
        source="prctl(2)",
        control="seccomp, for root",
        needs="SYS_RESOURCE",
        code=f"refused({pyseccomp.resolve_syscall(pyseccomp.system_arch(), 'prctl')}, 35, 99, 0, 0, 0)",
        expect="EPERM",
    ),
    Probe(
        id="syscalls.ia32",
        group=Group.SYSCALLS,
        severity=Severity.CRITICAL,
        title="The 32-bit entry is closed",
        meaning="a second table of system calls, which the filter does not see, would be open",
        source="moby #44562; seccomp(2)",
        control="seccomp",
        code="import mmap, platform\n"
        "if platform.machine() != 'x86_64': absent('an entry that only x86-64 has')\n"
        "code = mmap.mmap(-1, 4096, prot=7)\n"
        "code.write(bytes.fromhex('b814000000cd80c3'))\n"
        "entry = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
        "breached(ctypes.CFUNCTYPE(ctypes.c_int)(entry)())",
        expect="signal 31",
    ),
    Probe(
        id="syscalls.x32",
        group=Group.SYSCALLS,
        severity=Severity.CRITICAL,
        title="The x32 numbers are closed",
        meaning="a second table of system calls, which the filter does not see, would be open",
        source="seccomp(2)",
        control="seccomp",
        undemonstrable="today's kernels are built without CONFIG_X86_X32, so the answer is always ENOSYS",
        code="saw = call(0x40000000 | 39)\nheld(saw) if saw else breached()",
    ),
)

CHECKS: tuple[Check, ...] = (*_NAMES, *_NAMESPACES, *_FAMILIES, *_ARGUMENTS)
