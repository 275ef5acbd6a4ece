"""Which files of a state folder belong to a backup, and which of them are private.

A backup leaves out what a start makes anew: sockets, logs and images that are being built. It also
leaves out what is copied in another way: the files of the embedded services, which are dumped, and
objects, which are copied by their keys.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from runner.backup import files
from runner.backup.manifest import BackedFile

PUBLIC = ("trusted-keys/*.pub", "sealed/*.json", "door/authority.pem", "door/revoked.pem")
"""Public keys, certificates, the list of revoked ones, and the worker's record of its seals."""
SECRETS_RING = "keys/secrets.kek"
"""The keys of tenants' secrets, wherever the deployment keeps them."""
PRIVATE = (
    "keys/signing-*.pem", SECRETS_RING, "egress/authority.pem", "door/authority.key",
    "door/node.pem", "door/api.pem",
)  # fmt: skip
"""Keys that sign or decrypt, and certificates that are in one file with their keys."""
_READABLE = 0o644
_CLOSED = 0o600


def belongs(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a file of this name, relative to the folder, matches one of the patterns."""
    parts = name.split("/")
    return any(
        len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
        for wanted in (pattern.split("/") for pattern in patterns)
    )


def found(folder: Path, patterns: Sequence[str]) -> Iterator[str]:
    """Yield the files that match, relative to the folder."""
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                yield str(path.relative_to(folder))


def copied(folder: Path, target: Path, patterns: Sequence[str]) -> tuple[BackedFile, ...]:
    """Copy the files that match, and return them by their paths in the target.

    What an earlier attempt copied, and the folder no longer holds, is removed. Raises OSError.
    """
    names = list(found(folder, patterns))
    if target.exists():
        files.remove_others(target, set(names).__contains__)
    for name in names:
        files.copied(folder / name, target / name, _CLOSED)
    return tuple(files.described(target, name) for name in names)


def restored(source: Path, folder: Path, names: Sequence[str]) -> None:
    """Copy files into a state folder, with the permissions that its processes expect."""
    for name in names:
        place = folder / name
        files.copied(source / name, place, _READABLE if name.endswith(".pub") else _CLOSED)
        if name.endswith(".pub"):
            # The API may run as another user, and reads public keys.
            place.parent.chmod(0o755)
