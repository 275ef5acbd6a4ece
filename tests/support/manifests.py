"""Files that never change after their release, protected by a list of their digests beside them."""

import hashlib
from pathlib import Path

MANIFEST = "SHA256SUMS"


def faults(folder: Path, *, suffixes: set[str], instead: str) -> list[str]:
    """Return how a folder's files differ from its manifest.

    `instead` says what to make instead of editing a file.
    """
    listed = {
        name: digest
        for digest, name in (line.split() for line in (folder / MANIFEST).read_text().splitlines())
    }
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix in suffixes
    }
    both = listed.keys() & there.keys()
    return [
        *(f"{name} is gone" for name in sorted(listed.keys() - both)),
        *(
            f"{name} was edited: write a new {instead}"
            for name in sorted(both)
            if listed[name] != there[name]
        ),
        *(
            f"{name} is new: append its `sha256sum` to {MANIFEST}"
            for name in sorted(there.keys() - both)
        ),
    ]
