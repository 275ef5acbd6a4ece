"""What sandboxes are made from: E2B's template ids, our images and snapshots, by one name."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from runner.words.errors import NotFound

DEFAULT_TAG = "default"
THEIRS = frozenset({"base", "code-interpreter-v1"})
"""E2B's own template ids, for each of which there is a recipe of that name."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a sandbox is made from: an image, or a snapshot with its image."""

    image: str | None = None
    snapshot: UUID | None = None


def resolve(name: str, images: Collection[str]) -> Source:
    """Return what a template id or name stands for. Raises NotFound, and names what there is."""
    bare, _, tag = name.partition(":")
    if tag in {"", DEFAULT_TAG}:
        if bare in images:
            return Source(image=bare)
        if (snapshot := snapshot_in(bare)) is not None:
            return Source(snapshot=snapshot)
    known = ", ".join(sorted(images))
    hint = f"; the operator may add {bare} to RUNNER_IMAGES" if bare in THEIRS else ""
    raise NotFound(
        f"there is no template {name!r}; there are {known}, and snapshots by their ids{hint}"
    )


def snapshot_in(text: str) -> UUID | None:
    """Return the id of a snapshot in E2B's form, or None."""
    try:
        return UUID(text.removesuffix(f":{DEFAULT_TAG}"))
    except ValueError:
        return None
