"""Answers of the daemon: events of processes and of folders, and descriptions of files."""

import base64
import posixpath
import stat
from collections.abc import Mapping
from datetime import UTC
from signal import Signals
from typing import Any, TypeAlias

from runner.words.execution import Stream
from runner.words.living import (
    ChangeKind,
    FileEntry,
    FileKind,
    OutputPiece,
    ProcessEnd,
    ProcessInfo,
)
from runner.words.sandbox import HOMES

Answer: TypeAlias = Mapping[str, Any]

_TYPES: Mapping[FileKind, str] = {
    "file": "FILE_TYPE_FILE",
    "folder": "FILE_TYPE_DIRECTORY",
    "link": "FILE_TYPE_SYMLINK",
    "other": "FILE_TYPE_UNSPECIFIED",
}
_BITS: Mapping[FileKind, int] = {
    "file": stat.S_IFREG,
    "folder": stat.S_IFDIR,
    "link": stat.S_IFLNK,
    "other": stat.S_IFIFO,
}
_CHANGES: Mapping[ChangeKind, str] = {
    "made": "EVENT_TYPE_CREATE",
    "written": "EVENT_TYPE_WRITE",
    "removed": "EVENT_TYPE_REMOVE",
    "moved_from": "EVENT_TYPE_RENAME",
    "moved_to": "EVENT_TYPE_CREATE",
    "attributes": "EVENT_TYPE_CHMOD",
}
"""As fsnotify names them: a name that something was moved to is a new one."""
GONE: frozenset[ChangeKind] = frozenset({"removed", "moved_from"})
"""After these, nothing has that name."""

KEEPALIVE: Answer = {"keepalive": {}}


def event(said: Answer) -> Answer:
    """Return an event of a process as one message of its stream."""
    return {"event": said}


def started(process: ProcessInfo) -> Answer:
    """Return a process stream's first event."""
    return {"start": {"pid": process.number}}


def output(piece: OutputPiece, *, terminal: bool) -> Answer:
    """Return what a process wrote."""
    name = "pty" if terminal else "stdout" if piece.stream is Stream.STDOUT else "stderr"
    return {"data": {name: base64.b64encode(piece.data).decode()}}


def ended(end: ProcessEnd) -> Answer:
    """Return a process stream's last event, in the words of Go's `os.ProcessState`."""
    if end.exit_code is not None:
        status = f"exit status {end.exit_code}"
        failed = {"error": status} if end.exit_code else {}
        return {"end": {"exitCode": end.exit_code, "exited": True, "status": status, **failed}}
    status = f"signal: {_signal(end.signal)}"
    return {"end": {"exitCode": -1, "exited": False, "status": status, "error": status}}


def _signal(number: int | None) -> str:
    try:
        return Signals(number or 0).name
    except ValueError:
        return str(number)


def process(found: ProcessInfo) -> Answer:
    """Describe a process. What it was given beside its arguments is not kept, and not told."""
    command, *arguments = found.argv or ("",)
    tag = {} if found.tag is None else {"tag": found.tag}
    return {"config": {"cmd": command, "args": arguments}, "pid": found.number, **tag}


def entry(found: FileEntry, target: FileEntry | None, user: str) -> Answer:
    """Describe a file, folder or link in a sandbox of this user.

    `target` is what a link leads to, if anything.

    A link has its target's type, as the newest daemon has it: old SDKs know no type of links.
    """
    link = found.kind == "link"
    kind = target.kind if target is not None else found.kind
    owner = _owner(found.path, user)
    pointing = {} if found.target is None else {"symlinkTarget": _led_to(found, target)}
    when = found.modified_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return {
        "name": found.path.rpartition("/")[2] or "/",
        "type": _TYPES[kind],
        "path": found.path,
        # In the JSON mapping, a number of 64 bits is a string.
        "size": str(found.size),
        "mode": found.mode & 0o7777,
        "permissions": stat.filemode(_BITS[found.kind] | found.mode),
        "owner": owner,
        "group": owner,
        "modifiedTime": when,
        "isSymlink": link,
        **pointing,
    }


def _led_to(link: FileEntry, target: FileEntry | None) -> str:
    """Return the whole path that a link leads to, whether anything is there or not."""
    if target is not None:
        return target.path
    return posixpath.join(posixpath.dirname(link.path), link.target or "")


_WRITABLE = ("/workspace", "/mnt/data", "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - no file here


def _owner(path: str, user: str) -> str:
    """Return the owner of a file: a sandbox's image is root's, and what it may write its user's."""
    home = f"{HOMES}/{user}"
    return user if path.startswith((*_WRITABLE, f"{home}/")) or path == home else "root"


def written(found: FileEntry) -> Answer:
    """Describe a file that was uploaded."""
    return {"name": found.path.rpartition("/")[2], "type": "file", "path": found.path}


def change(kind: ChangeKind, name: str, found: Answer | None) -> Answer:
    """Return what has changed below a watched folder; `found` describes what is there now."""
    told = {} if found is None else {"entry": found}
    return {"name": name, "type": _CHANGES[kind], **told}
