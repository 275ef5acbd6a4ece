"""The contents of a sandbox image, as its recipe says."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from runner.words.errors import SetupError
from runner.words.sandbox import OTHERS, USER, USER_NAME, WORKSPACE, UnixAccount

Module = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
]
HomeFolder = Annotated[
    str, StringConstraints(pattern=rf"^({WORKSPACE}|/mnt/data|/home/[a-z][a-z0-9-]{{0,30}})$")
]
UserName = Annotated[str, StringConstraints(pattern=rf"^{USER_NAME}$")]


class Recipe(BaseModel):
    """The contents of an image: `sandbox_images/<name>/recipe.toml`.

    A recipe that is `like` another adds to it. `preload`, `home` and `user` are never inherited:
    each image chooses for itself what its idle sandboxes cost, and who its programs are. Two
    images with the same packages share them on disk.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    like: str | None = None
    javascript: bool = False
    """Whether the packages include Node; Python and a shell are in every image."""
    typescript: bool = False
    """Whether they include Node and esbuild, with which `typescript` makes JavaScript of it."""
    packages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    """Patterns of paths that are not unpacked (dpkg(1), path-exclude)."""
    include: tuple[str, ...] = ()
    """Patterns of paths that are unpacked even though a pattern excludes them."""
    commands: tuple[str, ...] = ()
    """Shell commands that run in the image as root after its packages are installed."""
    bytecode: tuple[str, ...] = ()
    preload: tuple[Module, ...] = ()
    """Python modules that a sandbox has already imported when an execution claims it."""
    home: HomeFolder = WORKSPACE
    """The workspace: the folder in which programs start and which they may write to. Where it is
    not `/workspace`, that name is a link to it."""
    user: UserName = USER
    """The name of the sandbox's user; its number is the sandbox's own."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.like is None and not self.packages:
            raise ValueError("a recipe has packages, or another that it is like")
        if self.user in OTHERS:
            raise ValueError(f"{self.user} is somebody else in every sandbox")
        return self

    @property
    def languages(self) -> frozenset[str]:
        """The languages that the image can run."""
        more = {"javascript": self.javascript, "typescript": self.typescript}
        return frozenset({"python", "bash", *(name for name, has in more.items() if has)})

    @property
    def account(self) -> UnixAccount:
        """Whom its programs run as."""
        return UnixAccount(self.user, self.home)

    def upon(self, other: "Recipe") -> "Recipe":
        """Return this recipe with everything that the recipe says which it is like."""
        return Recipe(
            javascript=self.javascript or other.javascript,
            typescript=self.typescript or other.typescript,
            packages=(*other.packages, *self.packages),
            exclude=(*other.exclude, *self.exclude),
            include=(*other.include, *self.include),
            commands=(*other.commands, *self.commands),
            bytecode=(*other.bytecode, *self.bytecode),
            preload=self.preload,
            home=self.home,
            user=self.user,
        )


def read_recipe(recipes: Path, name: str) -> Recipe:
    """Return an image's complete recipe. Raises SetupError if there is none or it is not valid."""
    return _complete(recipes, name, ())


def _complete(recipes: Path, name: str, above: tuple[str, ...]) -> Recipe:
    recipe = _read(recipes, name)
    if recipe.like is None:
        return recipe
    above = (*above, name)
    if recipe.like in above:
        raise SetupError(f"images are like each other in a circle: {', '.join(above)}")
    return recipe.upon(_complete(recipes, recipe.like, above))


def _read(recipes: Path, name: str) -> Recipe:
    path = recipes / name / "recipe.toml"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name) or not path.is_file():
        raise SetupError(f"there is no recipe for an image named {name!r} ({path})")
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise SetupError(f"{path} is not a recipe: {error}") from error
