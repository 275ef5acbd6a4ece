"""What a sandbox image is made of, as its recipe says."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from runner.words.errors import SetupError

Module = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
]


class Recipe(BaseModel):
    """What goes into an image: `sandbox_images/<name>/recipe.toml`.

    A recipe that is `like` another adds to it. Only `preload` is never inherited: what an idle
    sandbox costs is each image's own choice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    like: str | None = None
    javascript: bool = False
    """Whether the packages include Node; Python and a shell are in every image."""
    packages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    """Patterns of paths that are not unpacked (dpkg(1), path-exclude)."""
    include: tuple[str, ...] = ()
    """Patterns of excluded paths that are unpacked all the same."""
    commands: tuple[str, ...] = ()
    """Shell commands that are run in the image as root when its packages are installed."""
    bytecode: tuple[str, ...] = ()
    preload: tuple[Module, ...] = ()
    """Python modules that a sandbox which is started ahead has imported when it is claimed."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.like is None and not self.packages:
            raise ValueError("a recipe has packages, or another that it is like")
        return self

    @property
    def languages(self) -> frozenset[str]:
        """The languages that the image can run."""
        return frozenset({"python", "bash"} | ({"javascript"} if self.javascript else set()))

    def upon(self, other: "Recipe") -> "Recipe":
        """Return this recipe with everything that the one it is like says, too."""
        return Recipe(
            javascript=self.javascript or other.javascript,
            packages=(*other.packages, *self.packages),
            exclude=(*other.exclude, *self.exclude),
            include=(*other.include, *self.include),
            commands=(*other.commands, *self.commands),
            bytecode=(*other.bytecode, *self.bytecode),
            preload=self.preload,
        )


def read_recipe(recipes: Path, name: str) -> Recipe:
    """Return an image's recipe, whole. Raises SetupError if there is none, or it is not valid."""
    recipe = _read(recipes, name)
    if recipe.like is None:
        return recipe
    other = _read(recipes, recipe.like)
    if other.like is not None:
        raise SetupError(f"image {name} is like {recipe.like}, which is like {other.like}")
    return recipe.upon(other)


def _read(recipes: Path, name: str) -> Recipe:
    path = recipes / name / "recipe.toml"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name) or not path.is_file():
        raise SetupError(f"there is no recipe for an image named {name!r} ({path})")
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise SetupError(f"{path} is not a recipe: {error}") from error
