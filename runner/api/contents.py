"""The content of a file or of standard input: text, base64, or a stored file of the tenant."""

import base64
import binascii
from typing import Annotated, Self, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from runner.api.fields import FilePath, LongText, Strict

_NO_LINE_BREAKS = str.maketrans("", "", "\r\n")


class Content(Strict):
    """A content: exactly one of `text` and `base64`."""

    text: LongText | None = Field(default=None, description="UTF-8 text.")
    base64: LongText | None = Field(
        default=None,
        description="Any bytes, as standard base64 with padding. Line breaks are ignored.",
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
            # `base64` and MIME break lines at 76 characters (RFC 2045, 6.8).
            return base64.b64decode((self.base64 or "").translate(_NO_LINE_BREAKS), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(
                "base64 must be standard base64: A-Z, a-z, 0-9, + and /, padded with = to a "
                "multiple of four characters, with nothing else but line breaks"
            ) from None


class FileContent(Content):
    """A file's content: exactly one of `text`, `base64` and `key`."""

    key: FilePath | None = Field(
        default=None,
        description="The name of a stored file (`/v1/files`), as it is at submission.",
        examples=["data/in.csv"],
    )


def _text_alone(given: object) -> object:
    match given:
        case str():
            return {"text": given}
        case dict() if given.keys() <= FileContent.model_fields.keys():
            return given
    raise ValueError("must be text, or an object with one of text, base64 and key")


# Not by the validator below: what the first version stored for idempotency keys distinguishes text
# from an object that holds it.
TextOrContent = Annotated[
    Annotated[LongText, Tag("text")] | Annotated[Content, Tag("object")],
    Discriminator(lambda given: "text" if isinstance(given, str) else "object"),
]
TextOrFileContent: TypeAlias = Annotated[
    FileContent, BeforeValidator(_text_alone, json_schema_input_type=LongText | FileContent)
]
