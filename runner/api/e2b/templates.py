"""Origins of sandboxes: our images, tenants' templates and snapshots, by one name."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from runner.auth.caller import Caller
from runner.sandboxes.catalogue import Catalogue, image_called, listed, names_of
from runner.sandboxes.snapshots import Snapshots
from runner.store.sandboxes import ImageFilter
from runner.templates.builds import Templates
from runner.words.errors import Invalid, NotFound
from runner.words.templates import DEFAULT_TAG, template_in

THEIRS = frozenset({"base", "code-interpreter-v1"})
"""E2B's own template ids, for each of which there is a recipe of that name."""


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of a sandbox: an image or a template, or a snapshot with its image."""

    image: str | None = None
    template: UUID | None = None
    """Its id, if the image is a template's."""
    public: bool = True
    """Whether it is the operator's, and so everybody's."""
    snapshot: UUID | None = None


async def find(name: str, catalogue: Catalogue, own: Templates, caller: Caller) -> Source:
    """Return what a template id or name stands for. Raises NotFound, and names what there is."""
    if name not in catalogue.images:
        template = await own.find(caller, name)
        if template is not None:
            return Source(template.image, template.id, template.public)
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


async def images_of(name: str, catalogue: Catalogue, own: Templates, caller: Caller) -> ImageFilter:
    """Return which images of sandboxes a template's id or name stands for.

    A name stands for all of its builds, those that were deleted included; with a tag, for the one
    that has it now.
    """
    images, (bare, _, tag) = catalogue.images, name.partition(":")
    if name in images or template_in(name) is not None:
        return ImageFilter(name)
    if (id_ := snapshot_in(name)) is not None:
        return ImageFilter(ends=f"@{id_}")
    if (built := await own.find(caller, name)) is not None:
        return ImageFilter(built.image) if tag else ImageFilter(begins=f"{bare}@")
    if (image := image_called(name, images, catalogue.image_names)) is not None:
        return ImageFilter(image)
    return ImageFilter(name) if tag else ImageFilter(begins=f"{bare}@")


async def require_no_snapshot(name: str, snapshots: Snapshots, caller: Caller) -> None:
    """Raise Invalid if a snapshot has this id: sandboxes do not record from which they are."""
    if (id_ := snapshot_in(name)) is None:
        return
    with suppress(NotFound):
        await snapshots.read(caller, id_)
        raise Invalid(
            f"{name} is a snapshot, and sandboxes are not listed by the snapshot that they were"
            " made from: give them metadata, and filter by that",
            "template",
        )


def snapshot_in(text: str) -> UUID | None:
    """Return the id of a snapshot in E2B's form, or None."""
    try:
        return UUID(text.removesuffix(f":{DEFAULT_TAG}"))
    except ValueError:
        return None
