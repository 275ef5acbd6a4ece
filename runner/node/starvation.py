"""Tells a host that is short of something for now from a defect of ours."""

import errno

from runner.words.errors import NodeStarved

_SHORT = frozenset(
    {
        errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOSPC,
        errno.EDQUOT,
    }
)  # fmt: skip
"""Errors of the kernel that pass once another process frees memory, threads, files or space."""
_NO_THREAD = "can't start new thread"
"""Python's message for EAGAIN from pthread_create(3), which it hides in a RuntimeError."""


def starved(error: BaseException) -> NodeStarved | None:
    """Return what a caller is told of a failure for lack of something; None for any other."""
    lacking = None
    match error:
        case MemoryError():
            lacking = "memory"
        case RuntimeError(args=(str(said), *_)) if _NO_THREAD in said:
            lacking = "threads"
        case OSError(errno=number, strerror=said) if number in _SHORT:
            lacking = str(said)
    if lacking is None:
        return None
    return NodeStarved(f"the host of this node is short of resources ({lacking}): try again later")
