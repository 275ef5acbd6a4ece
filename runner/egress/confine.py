"""The rights that the proxy's process gives up before it reads a sandbox's first byte."""

import ctypes
import os
import resource
from pathlib import Path

from runner.base.seccomp import process_filter
from runner.words.errors import SetupError

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_LAST_CAPABILITY = 63
_FILE_BYTES = 64 * 1024
"""Enough for one certificate, which OpenSSL reads from memory that counts as a file."""
_DESCRIPTORS = 4096


def confine(uid: int, profiles_dir: Path) -> int:
    """Give up root, capabilities, core dumps, files and most system calls, for good.

    Only root switches to `uid`; any other user keeps their own. Returns how many descriptors the
    process may still open. Raises SetupError.
    """
    # Read this while still root: perhaps only the operator may read the profiles.
    calls = process_filter(profiles_dir, "egress")
    libc = ctypes.CDLL(None, use_errno=True)

    def prctl(option: int, value: int, *, optional: bool = False) -> bool:
        if libc.prctl(option, value, 0, 0, 0) == 0:
            return True
        if optional:
            return False
        number = ctypes.get_errno()
        raise SetupError(f"the egress proxy cannot be confined: {os.strerror(number)}")

    if os.geteuid() == 0:
        # Stop at the first capability number that this kernel does not know.
        for capability in range(_LAST_CAPABILITY):
            if not prctl(_PR_CAPBSET_DROP, capability, optional=True):
                break
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        # Leaving user 0 clears every capability set (capabilities(7)).
        os.setresuid(uid, uid, uid)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = min(_DESCRIPTORS, hard) if hard != resource.RLIM_INFINITY else _DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    calls.load()
    return most
