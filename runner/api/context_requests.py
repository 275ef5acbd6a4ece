"""Requests of clients to code contexts."""

import json
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from runner.api.fields import EnvName, Strict, Text
from runner.api.requests import MAX_ENV
from runner.api.sandbox_requests import MAX_TIMEOUT_S, SandboxPath
from runner.words.living import Language

MAX_CODE = 512 * 1024
MAX_RUN_BYTES = 768 * 1024
"""Below what one message at the node's door may hold."""

Env = Annotated[
    dict[EnvName, Annotated[Text, StringConstraints(max_length=8192)]],
    Field(max_length=MAX_ENV),
]


class NewContext(Strict):
    """A code context to begin."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"language": "python"}, {"language": "bash", "cwd": "src"}]}
    )

    language: Language = Field(description="What its code is written in; the image must have it.")
    cwd: SandboxPath | None = Field(
        default=None,
        description="The folder it starts in; by default its template's working directory, or "
        "`/workspace`.",
    )
    env: Env = Field(
        default_factory=dict, description="Environment variables, beside those of the sandbox."
    )


class CodeToRun(Strict):
    """Code to run in a context."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"code": "x = 6\nx * 7", "timeout_s": 30}]}
    )

    code: Annotated[Text, StringConstraints(max_length=MAX_CODE)] = Field(
        description="Source text, at most 512 KiB."
    )
    timeout_s: Annotated[float, Field(ge=0.1, le=MAX_TIMEOUT_S)] | None = Field(
        default=None,
        description="Seconds after which it is interrupted, from its beginning on. Code that goes "
        "on for 5 seconds more loses its interpreter. By default it may run for as long as the "
        "sandbox lives.",
    )
    env: Env = Field(
        default_factory=dict, description="Environment variables while this code runs."
    )

    @model_validator(mode="after")
    def _short(self) -> Self:
        if len(json.dumps([self.code, self.env])) > MAX_RUN_BYTES:
            raise ValueError(f"code and env together exceed {MAX_RUN_BYTES} bytes as JSON")
        return self
