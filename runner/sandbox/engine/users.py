"""The user of each sandbox: one of its own, from the operator's range.

The kernel counts a good deal by user and not by container: inotify instances, pipe pages, pending
signals, POSIX timers, descriptors in flight (user_namespaces(7), pipe(7), getrlimit(2)). Two
sandboxes of one user would share those limits, and could signal to each other through them.

A sandbox holds its user id by its container's name. Docker gives a name to one container at a time,
whichever worker asks, and keeps it until the container's last process is gone: a lease that
outlives the worker, and that takes no request of its own.
"""

import secrets
from collections.abc import Container
from pathlib import Path

from runner.words.sandbox import UnixAccount

NOBODY = 65534
_PREFIX = "runner-"

ACCOUNTS = ("passwd", "group")
"""Files in the sandbox's own folder, to which those of the image's `/etc` are links."""


class Users:
    """Deals out user ids in turn, so that one rests as long as possible before it comes again."""

    def __init__(self, ids: range) -> None:
        self._ids = ids
        # Not at the first one, where every other worker of this host would begin, too.
        self._next = secrets.randbelow(len(ids))

    def next(self, taken: Container[int] = ()) -> int | None:
        """Return the next id that is not taken; None when all are."""
        for _ in self._ids:
            uid = self._ids[self._next]
            self._next = (self._next + 1) % len(self._ids)
            if uid not in taken:
                return uid
        return None


def container_name(uid: int) -> str:
    """Return the name whose container is this user."""
    return f"{_PREFIX}{uid}"


def taken_ids(names: list[str]) -> set[int]:
    """Return the user ids that containers of these names hold."""
    numbers = (name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX))
    return {int(number) for number in numbers if number.isdecimal()}


def write_accounts(folder: Path, uid: int, account: UnixAccount) -> None:
    """Write the files in which programs look up what their user is called (passwd(5))."""
    users = (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"{account.user}:x:{uid}:{uid}::{account.home}:/bin/bash\n"
        f"nobody:x:{NOBODY}:{NOBODY}:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    # tty: the group of every terminal in /dev/pts.
    groups = f"root:x:0:\ntty:x:5:\n{account.user}:x:{uid}:\nnogroup:x:{NOBODY}:\n"
    for name, text in zip(ACCOUNTS, (users, groups), strict=True):
        path = folder / name
        path.write_text(text)
        path.chmod(0o644)
