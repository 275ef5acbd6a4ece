"""Whether two submissions under one idempotency key are the same: by what the client sent."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from json.encoder import encode_basestring_ascii
from typing import Annotated

from fastapi import Header, Request
from pydantic import StringConstraints

from runner.api.edge.json import aside
from runner.api.requests import Submission
from runner.executions.submit import Once
from runner.words.execution import JSON

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes a submission safe to repeat: the same key and body return the same "
        "execution; another body is answered 409.",
    ),
    StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$"),
]

VERSION = b"\x02"
PIECE = 64 * 1024
"""Characters that are written in one call: a thread keeps the event loop waiting for one call."""
WAITING = "wait_s"
"""How long the client waits is no part of what it asks for."""
_FIELDS_OF_1 = frozenset({
    "artifacts_to", "code", "command", "egress", "egress_policy", "env", "files", "image",
    "interpreter", "isolation", "language", "limits", "metadata", "on_worker_loss", "project",
    "reuse", "secret_env", "size", "stdin",
})  # fmt: skip
"""What a submission had when the whole model was hashed, defaults included."""


def fingerprint(sent: Mapping[str, JSON]) -> bytes:
    """Return what identifies a request's body: its version, and a hash of the JSON that was sent.

    Fields that the client left out are no part of it: what they default to, and which there are,
    changes from one version of this program to the next. Order and whitespace do not count. Not
    RFC 8785, whose serializer in Python takes seconds for megabytes of line feeds: two spellings of
    one number, 5 and 5.0, are two requests.
    """
    asked = {name: value for name, value in sent.items() if name != WAITING}
    return VERSION + _digest(asked, ",", ":")


async def under(key: str, request: Request, body: Submission) -> Once:
    """Return the key with what tells whether its first use was for this body, too."""
    sent = await request.json()
    own = await aside(request.scope, partial(fingerprint, sent))

    async def same(stored: bytes) -> bool:
        return await aside(request.scope, partial(matches, stored, own, sent, body))

    return Once(key, own, same)


def matches(stored: bytes, own: bytes, sent: Mapping[str, JSON], body: Submission) -> bool:
    """Return whether what is stored of a key's first use is of this body, too.

    `own` is this body's fingerprint. What the versions before stored is compared by their rule, for
    the fields that there were. Records go with their executions, so this is over when those are
    past their retention.
    """
    if stored.startswith(VERSION) and len(stored) > hashlib.sha256().digest_size:
        return stored == own
    return sent.keys() - {WAITING} <= _FIELDS_OF_1 and stored == _of_1(body)


def _of_1(body: Submission) -> bytes:
    asked = body.model_dump(mode="json", include=set(_FIELDS_OF_1))
    return _digest(asked, ", ", ": ")


def _digest(value: JSON, comma: str, colon: str) -> bytes:
    """Return the hash of what `json.dumps` writes with sorted keys and these separators."""
    made = hashlib.sha256()
    for text in _written(value, comma, colon):
        made.update(text.encode())
    return made.digest()


def _written(value: JSON, comma: str, colon: str) -> Iterator[str]:
    """Write JSON as `json.dumps` does, but in pieces.

    `json.dumps` writes megabytes in one call, which holds the loop even from another thread.
    """
    match value:
        case str():
            yield '"'
            for at in range(0, len(value), PIECE):
                yield encode_basestring_ascii(value[at : at + PIECE])[1:-1]
            yield '"'
        case dict():
            yield "{"
            for n, (name, each) in enumerate(sorted(value.items())):
                yield comma if n else ""
                yield from _written(name, comma, colon)
                yield colon
                yield from _written(each, comma, colon)
            yield "}"
        case list():
            yield "["
            for n, each in enumerate(value):
                yield comma if n else ""
                yield from _written(each, comma, colon)
            yield "]"
        case _:
            yield json.dumps(value)
