"""Functions of the C library that Python lacks.

They are called by `_ctypes` alone: the package `ctypes` around it would take 200 KiB of every idle
sandbox.
"""

from __future__ import annotations

from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, dlopen, dlsym, get_errno
from functools import cache


class Function(CFuncPtr):
    """A C function that returns an int, as all do that are called here."""

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO


@cache
def _function(name: str) -> Function:
    return Function(dlsym(dlopen(None, 0), name))


def call(name: str, *given: int | bytes) -> int:
    """Return what a function of the C library returns. Raises OSError if that is -1."""
    returned: int = _function(name)(*given)
    if returned == -1:
        raise OSError(get_errno(), name)
    return returned
