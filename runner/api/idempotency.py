"""Comparison of two submissions with one idempotency key, by what the client sent."""

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
from runner.store.idempotency import Once
from runner.words.execution import JSON

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes a request safe to repeat: the same key and body return what the first "
        "made; another body is answered 409.",
    ),
    StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$"),
]

VERSION = b"\x02"
PIECE = 64 * 1024
"""Characters that are written in one call: the event loop may have to wait for one call."""
WAITING = "wait_s"
"""Fields that do not count: how long the client waits does not change what it asks for."""
_FIELDS_OF_1 = frozenset({
    "artifacts_to", "code", "command", "egress", "egress_policy", "env", "files", "image",
    "interpreter", "isolation", "language", "limits", "metadata", "on_worker_loss", "project",
    "reuse", "secret_env", "size", "stdin",
})  # fmt: skip
"""The fields of a submission when the whole model was hashed, with defaults."""


def fingerprint(sent: Mapping[str, JSON]) -> bytes:
    """Return what identifies a request's body: its version, and a hash of the JSON that was sent.

    Fields that the client left out do not count, because the fields and their defaults change from
    one version of this program to the next. Order and whitespace do not count either. This is not
    RFC 8785, whose Python serializer takes seconds for megabytes of line feeds. So two spellings of
    one number, 5 and 5.0, make two requests.
    """
    asked = {name: value for name, value in sent.items() if name != WAITING}
    return VERSION + _digest(asked, ",", ":")


async def under(
    key: str,
    request: Request,
    body: Submission | None = None,
    *,
    beside: Mapping[str, JSON] | None = None,
) -> Once:
    """Return the key with a test whether its first use had the same body.

    Pass a submission, too, because early versions stored fingerprints of the whole model. `beside`
    is what the request says elsewhere than in its body.
    """
    sent = {**await request.json(), **(beside or {})}
    own = await aside(request.scope, partial(fingerprint, sent))

    async def same(stored: bytes) -> bool:
        return await aside(request.scope, partial(matches, stored, own, sent, body))

    return Once(key, own, same)


def matches(stored: bytes, own: bytes, sent: Mapping[str, JSON], body: Submission | None) -> bool:
    """Return whether the stored fingerprint of a key's first use is of this body, too.

    `own` is this body's fingerprint. A fingerprint of an earlier version is compared by that
    version's rule, for the fields that it had. Records are removed with their executions, so this
    code can go once those are past their retention.
    """
    if body is None or (stored.startswith(VERSION) and len(stored) > hashlib.sha256().digest_size):
        return stored == own
    return sent.keys() - {WAITING} <= _FIELDS_OF_1 and stored == _of_1(body)


def _of_1(body: Submission) -> bytes:
    asked = body.model_dump(mode="json", include=set(_FIELDS_OF_1))
    return _digest(asked, ", ", ": ")


def _digest(value: JSON, comma: str, colon: str) -> bytes:
    """Return the hash of the JSON with sorted keys and these separators."""
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
