"""What a file or standard input holds: text, bytes as base64, or a stored file of the tenant."""

import base64
import binascii
from typing import Annotated, Self

from pydantic import Discriminator, Field, Tag, model_validator

from runner.api.fields import FilePath, LongText, Strict


class Content(Strict):
    """A content: exactly one of `text` and `base64`."""

    text: LongText | None = Field(default=None, description="UTF-8 text.")
    base64: LongText | None = Field(
        default=None, description="Any bytes, as standard base64 with padding."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError(f"give exactly one of {' and '.join(type(self).model_fields)}")
        self.decoded()
        return self

    def decoded(self) -> bytes:
        """Return the bytes that the request itself holds."""
        if self.text is not None:
            return self.text.encode()
        try:
            return base64.b64decode(self.base64 or "", validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("base64 is malformed") from None


class FileContent(Content):
    """A file's content: exactly one of `text`, `base64` and `key`."""

    key: FilePath | None = Field(
        default=None,
        description="A stored file of the tenant (`/v1/files`), as it is at submission.",
        examples=["data/in.csv"],
    )


TextOrContent = Annotated[
    Annotated[LongText, Tag("text")] | Annotated[Content, Tag("object")],
    Discriminator(lambda given: "text" if isinstance(given, str) else "object"),
]
