"""The image or template that a template is built on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runner.sandboxes.catalogue import (
    Catalogue,
    SandboxOffer,
    image_called,
    listed,
    named_template,
    names_of,
    why_unbuilt,
)
from runner.sandboxes.order import LivingOrder, resolve_sandbox
from runner.store import templates
from runner.store.templates import StoredTemplate
from runner.store.transaction import Transaction
from runner.words.errors import Invalid
from runner.words.sandbox import USER
from runner.words.templates import Startup


@dataclass(frozen=True, slots=True)
class Below:
    """The image or template that a template is built on, and what holds for its steps."""

    image: str
    """The operator's image below all."""
    template: StoredTemplate | None = None
    steps: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    startup: Startup | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    workdir: str | None = None
    user: str | None = None
    image_user: str = USER

    @property
    def hash(self) -> str:
        """The name by which hashes of further steps begin."""
        if not self.steps:
            return self.image
        return f"{self.steps[-1]} {self.workdir}" if self.workdir else self.steps[-1]

    async def with_first_of(self, tx: Transaction, steps: Sequence[str]) -> StoredTemplate | None:
        """Return the template to build on that has most of these steps, if one has any.

        A build on it runs in a sandbox of its user. If that is not the user of this base, further
        steps would find other homes and other owners of files than after the same steps in one
        build, so such a template is passed over.
        """
        alike = await templates.begun_alike(
            tx,
            self.image,
            (*self.steps, *steps),
            image_user=self.image_user,
            sandbox_user=self.user or self.image_user,
        )
        return alike if alike is not None and len(alike.steps) > len(self.steps) else None


async def below_by(tx: Transaction, catalogue: Catalogue, name: str | None) -> Below:
    """Return what a name stands for, or the default image. Raises Invalid if it stands for none."""
    images, names = catalogue.images, catalogue.image_names
    name = name or next(iter(images))
    found = None if name in images else await named_template(tx, name)
    if found is not None:
        return Below(
            found.base_image,
            found,
            found.steps,
            found.env,
            found.startup,
            found.limits,
            found.workdir,
            found.user,
            catalogue.user(found.base_image),
        )
    image = image_called(name, images, names)
    if image is None:
        known = listed(names_of(images, names))
        raise Invalid(
            await why_unbuilt(tx, name)
            or f"there is no image {name!r}; choose one of {known}, or a template",
            "base",
        )
    return Below(image, image_user=catalogue.user(image))


def require_limits(limits: Mapping[str, float], offer: SandboxOffer) -> None:
    """Raise Invalid if the tenant may have no sandbox with these resources."""
    try:
        resolve_sandbox(LivingOrder(limits=limits), offer)
    except Invalid as error:
        why = f"the template's sandboxes could not be made: {error.detail}"
        raise Invalid(why, f"sandbox_{error.field}") from None
