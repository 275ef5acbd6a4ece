"""The values that fields of requests may have, and the base of every request body."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from runner.base.forms import ImageReference
from runner.words import paths

MAX_CONTENT = 256 * 2**20
"""More than fits into the largest body that a deployment may permit."""


def storable(text: str) -> str:
    """Refuse text that neither PostgreSQL nor a file system can store: NUL and lone surrogates."""
    if "\0" in text:
        raise ValueError("must not contain NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    return text


Text = Annotated[str, AfterValidator(storable)]
LongText = Annotated[Text, StringConstraints(max_length=MAX_CONTENT)]
FilePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=paths.MAX_BYTES),
    AfterValidator(paths.file_path),
]
FilePrefix = Annotated[
    str, StringConstraints(max_length=paths.MAX_BYTES), AfterValidator(paths.file_prefix)
]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=64)]
# As browsers check an e-mail field (HTML 4.10.5.1.5), but in lower case. Letters beyond ASCII are
# refused: some look like others, and some change their length with their case.
Email = Annotated[
    str,
    StringConstraints(
        to_lower=True,
        max_length=254,
        pattern=(
            r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
            r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
            r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$"
        ),
    ),
]
ImageName: TypeAlias = ImageReference
"""An image of the deployment by any of its names, or a template: `name`, `name:tag`, `name@id`."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Strict(BaseModel):
    """Base of every request body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
