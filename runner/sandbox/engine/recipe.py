"""What a sandbox image is made of, as its recipe says."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

Module = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
]


class Recipe(BaseModel):
    """What goes into an image: `sandbox_images/<name>/recipe.toml`.

    One that is `like` another has that one's packages, and only a list of its own to load.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    like: str | None = None
    packages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bytecode: tuple[str, ...] = ()
    preload: tuple[Module, ...] = ()
    """Python modules that a sandbox which is started ahead has imported when it is claimed."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.like is None) == (not self.packages):
            raise ValueError("a recipe has either packages, or another that it is like")
        return self
