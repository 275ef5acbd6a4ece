"""Verifies a backup: nothing was changed, nothing is missing, and nothing was added."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from runner.backup import files
from runner.backup.manifest import (
    CHAINS,
    DUMP,
    MANIFEST,
    OBJECTS,
    OBJECTS_INDEX,
    STATE,
    BackedFile,
    BackedObject,
    ChainEnd,
    Manifest,
    opened,
)
from runner.backup.state import PRIVATE, PUBLIC, belongs
from runner.base.signing import BadSignature, PublicKey, TrustedKeys
from runner.words.errors import SetupError
from runner.words.text import counted

_SHOWN = 5
"""How many faults an error names."""


def read(source: Path, keys: tuple[PublicKey, ...]) -> Manifest:
    """Return the manifest of a backup, signed by one of these keys.

    Without keys, take those in the backup itself: that finds damage, but not a forger. Raises
    SetupError.
    """
    path = source / MANIFEST
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        unfinished = " (it was not finished)" if source.name.endswith(files.PARTIAL) else ""
        raise SetupError(f"{source} is no whole backup{unfinished}: it has no {MANIFEST}") from None
    except UnicodeDecodeError:
        raise SetupError(f"{path} does not hold: it is not text") from None
    try:
        return opened(text, keys or TrustedKeys(source / STATE).read())
    except BadSignature as error:
        raise SetupError(f"{path} does not hold: {error}") from None


def require_whole(source: Path, keys: Path | None, manifest: Manifest) -> None:
    """Raise SetupError with the first faults if a file differs from what the manifest says.

    `keys` is the folder of private keys; None leaves them out.
    """
    # The names first: a forger's would otherwise write where they like in the state folder.
    found = list(islice(_strange(manifest) or _faults(source, keys, manifest), _SHOWN))
    if found:
        raise SetupError(f"the backup {source} does not hold: {'; '.join(found)}")


def listed_objects(source: Path) -> Iterator[BackedObject]:
    """Yield the lines of the index of objects. Raises ValidationError for any other line."""
    with (source / OBJECTS_INDEX).open() as lines:
        for line in lines:
            yield BackedObject.model_validate_json(line)


def chain_ends(source: Path) -> Iterator[ChainEnd]:
    """Yield where the chains ended. Raises ValidationError for any other line."""
    with (source / CHAINS).open() as lines:
        for line in lines:
            yield ChainEnd.model_validate_json(line)


def _strange(manifest: Manifest) -> list[str]:
    """Return what is wrong with the names that a manifest gives to files."""
    names = [each.path for each in manifest.files if not _is_public(each.path)]
    names += [each.path for each in manifest.keys or () if not belongs(each.path, PRIVATE)]
    return [f"{name} is no file of a backup" for name in names]


def _faults(source: Path, keys: Path | None, manifest: Manifest) -> Iterator[str]:
    changed = False
    for folder, stored in [(source, manifest.files), (keys, manifest.keys)]:
        for each in stored or () if folder is not None else ():
            if (fault := _fault(folder or source, each)) is not None:
                changed = True
                yield fault
    if changed:
        # The index may be what was changed.
        return
    count = 0
    try:
        for listed in listed_objects(source):
            count += 1
            path = f"{OBJECTS}/{listed.key}"
            each = BackedFile(path=path, bytes=listed.bytes, sha256=listed.sha256)
            if (fault := _fault(source, each)) is not None:
                yield fault
    except ValidationError:
        yield f"line {count + 1} of {OBJECTS_INDEX} is not one of an index"
        return
    if count != manifest.contents.objects:
        yield (
            f"{OBJECTS_INDEX} lists {counted(count, 'object')}, not {manifest.contents.objects:,}"
        )
    if (there := sum(1 for _ in files.present(source))) != (
        expected := count + len(manifest.files) + 1
    ):
        yield f"it has {counted(there, 'file')}, not {expected:,}: some were added"


def _is_public(path: str) -> bool:
    name = path.removeprefix(f"{STATE}/")
    return belongs(name, PUBLIC) if name != path else path in {DUMP, OBJECTS_INDEX, CHAINS}


def _fault(folder: Path, stored: BackedFile) -> str | None:
    path = folder / stored.path
    try:
        size, sha256 = files.hashed(path)
    except FileNotFoundError:
        return f"{stored.path} is missing"
    except OSError as error:
        return f"{stored.path} cannot be read: {error.strerror}"
    if size != stored.bytes:
        return f"{stored.path} has {counted(size, 'byte')}, not {stored.bytes:,}"
    return None if sha256 == stored.sha256 else f"{stored.path} was changed"
