"""Refusals of a sandbox's kernel, as Python's own functions on files would raise them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from agent_runner.errors import ApiError, Gone, NotFound


@contextmanager
def kernel_errors(path: str) -> Iterator[None]:
    """Raise OSError about a path, such as FileNotFoundError, if a sandbox's kernel refuses it.

    Every other ApiError stays what it is.
    """
    try:
        yield
    except ApiError as error:
        number = getattr(errno, error.reason or "", None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), path) from error


def is_gone(error: ApiError) -> bool:
    """Return whether the sandbox itself has ended, or is unknown to this key."""
    return isinstance(error, Gone) or (isinstance(error, NotFound) and error.reason is None)
