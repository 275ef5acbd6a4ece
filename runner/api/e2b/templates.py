"""Origins of sandboxes: our images, tenants' templates and snapshots, by one name."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from runner.auth.caller import Caller
from runner.templates.builds import Templates
from runner.words.errors import NotFound

DEFAULT_TAG = "default"
THEIRS = frozenset({"base", "code-interpreter-v1"})
"""E2B's own template ids, for each of which there is a recipe of that name."""


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of a sandbox: an image or a template, or a snapshot with its image."""

    image: str | None = None
    public: bool = True
    """Whether it is the operator's, and so everybody's."""
    snapshot: UUID | None = None


async def find(name: str, images: Collection[str], own: Templates, caller: Caller) -> Source:
    """Return what a template id or name stands for. Raises NotFound, and names what there is."""
    if name.partition(":")[0] not in images:
        template = await own.find(caller, name)
        if template is not None:
            return Source(image=template.image, public=template.public)
    return resolve(name, images)


def resolve(name: str, images: Collection[str]) -> Source:
    """Return the image or snapshot that a template id stands for. Raises NotFound."""
    bare, _, tag = name.partition(":")
    if tag in {"", DEFAULT_TAG}:
        if bare in images:
            return Source(image=bare)
        if (snapshot := snapshot_in(bare)) is not None:
            return Source(snapshot=snapshot, public=False)
    known = ", ".join(sorted(images))
    hint = f"; the operator may add {bare} to RUNNER_IMAGES" if bare in THEIRS else ""
    raise NotFound(
        f"there is no template {name!r}; there are {known}, snapshots by their ids, and templates"
        f" that you have built{hint}"
    )


def snapshot_in(text: str) -> UUID | None:
    """Return the id of a snapshot in E2B's form, or None."""
    try:
        return UUID(text.removesuffix(f":{DEFAULT_TAG}"))
    except ValueError:
        return None
