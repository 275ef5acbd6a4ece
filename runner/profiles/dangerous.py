"""System calls that have been ways out of a sandbox or into other processes, and why.

The operator may still choose a profile that allows one; `runner profile` warns each time.
"""

from collections.abc import Mapping

_REASONS = {
    "makes namespaces, in which a program is root (CVE-2022-0185, CVE-2022-0492)": (
        "clone3 setns unshare"
    ),
    "changes what is mounted where (CVE-2022-0185, CVE-2024-21626)": (
        "chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree "
        "pivot_root umount umount2"
    ),
    "reads, changes or steals from other processes": (
        "kcmp pidfd_getfd process_madvise process_mrelease process_vm_readv process_vm_writev "
        "ptrace move_pages migrate_pages"
    ),
    "runs programs in the kernel or watches it": "bpf lookup_dcookie perf_event_open syslog",
    "does input and output past every filter (moby #46762)": (
        "io_uring_enter io_uring_register io_uring_setup"
    ),
    "reaches keys that are not separated by namespaces": "add_key keyctl request_key",
    "opens files by handle, past every path (the shocker escape)": (
        "name_to_handle_at open_by_handle_at"
    ),
    "holds the kernel still in the middle of a copy: the tool of many exploits": "userfaultfd",
    "loads code into the kernel": (
        "create_module delete_module finit_module init_module kexec_file_load kexec_load"
    ),
    "administers the machine": (
        "acct adjtimex clock_adjtime clock_settime ioperm iopl quotactl quotactl_fd reboot "
        "setdomainname sethostname settimeofday stime swapoff swapon vhangup nfsservctl"
    ),
    "watches or vetoes others' file access": "fanotify_init fanotify_mark",
    "changes how the processor reads memory": "modify_ldt vm86 vm86old uselib",
    "puts a file's own pages into a pipe (CVE-2022-0847)": "splice tee vmsplice",
    "hides memory from the kernel's own view": "memfd_secret",
    "shares memory and queues outside the file system's limits": (
        "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget "
        "msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget"
    ),
    "is a second door to other calls": "socketcall seccomp sysfs ustat query_module",
}

DANGEROUS: Mapping[str, str] = {
    name: reason for reason, names in _REASONS.items() for name in names.split()
}
"""Names of system calls, and what each does, to complete a sentence that begins with "it"."""
