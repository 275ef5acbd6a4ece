"""Egress rules as clients and operators write them."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints

from runner.api.fields import SecretName, Strict, Text
from runner.tenants.policies import Entry


class Injection(Strict):
    """A header that the egress proxy sets; the sandbox never holds its value."""

    header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")] = Field(
        examples=["Authorization"]
    )
    secret: SecretName = Field(description="The secret's name.", examples=["example-token"])
    prefix: Annotated[Text, StringConstraints(max_length=64)] = Field(
        default="", description="Text to put before the secret's value.", examples=["Bearer "]
    )


class EgressRule(Strict):
    """One thing a program may reach."""

    host: Annotated[Text, StringConstraints(min_length=1, max_length=255)] = Field(
        description="A host name, or `*.` and a suffix, which matches every name below the suffix "
        "but not the suffix itself.",
        examples=["api.example.com"],
    )
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="By default 443 for `https` and 80 for `http`; `tcp` has no default.",
    )
    scheme: Literal["https", "http", "tcp"] = Field(
        default="https",
        description="`https`: TLS to exactly that name. `http`: plain HTTP. `tcp`: anything.",
    )
    methods: list[Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,16}$")]] = Field(
        default_factory=list, max_length=16, description="Permitted HTTP methods; if empty, all."
    )
    path_prefix: Annotated[Text, StringConstraints(max_length=512)] = Field(
        default="", description="What the path must begin with."
    )
    inject: Injection | None = None


EgressEntry: TypeAlias = (
    Annotated[Text, StringConstraints(min_length=1, max_length=300)] | EgressRule
)


def entries(given: Sequence[str | EgressRule]) -> tuple[Entry, ...]:
    """Return rules as they were written, without the fields that were left out."""
    return tuple(
        each if isinstance(each, str) else each.model_dump(exclude_none=True) for each in given
    )
