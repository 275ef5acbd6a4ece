"""Origins of sandboxes: our images, tenants' templates and snapshots, by one name."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from runner.auth.caller import Caller
from runner.sandboxes.catalogue import Catalogue, image_called, listed, names_of
from runner.templates.builds import Templates
from runner.words.errors import NotFound
from runner.words.templates import DEFAULT_TAG

THEIRS = frozenset({"base", "code-interpreter-v1"})
"""E2B's own template ids, for each of which there is a recipe of that name."""


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of a sandbox: an image or a template, or a snapshot with its image."""

    image: str | None = None
    public: bool = True
    """Whether it is the operator's, and so everybody's."""
    snapshot: UUID | None = None


async def find(name: str, catalogue: Catalogue, own: Templates, caller: Caller) -> Source:
    """Return what a template id or name stands for. Raises NotFound, and names what there is."""
    if name not in catalogue.images:
        template = await own.find(caller, name)
        if template is not None:
            return Source(image=template.image, public=template.public)
    return resolve(name, catalogue.images, catalogue.image_names)


def resolve(name: str, images: Collection[str], names: Mapping[str, str]) -> Source:
    """Return the image or snapshot that a template id stands for. Raises NotFound."""
    if (image := image_called(name, images, names)) is not None:
        return Source(image=image)
    if (snapshot := snapshot_in(name)) is not None:
        return Source(snapshot=snapshot, public=False)
    known, bare = listed(names_of(images, names)), name.partition(":")[0]
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
