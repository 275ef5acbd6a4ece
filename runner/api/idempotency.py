"""Whether two submissions under one idempotency key are the same: by what the client sent."""

import hashlib
import json
from collections.abc import Mapping

from runner.api.requests import Submission
from runner.models import JSON

VERSION = b"\x02"
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
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return VERSION + hashlib.sha256(text.encode()).digest()


def matches(stored: bytes, sent: Mapping[str, JSON], body: Submission) -> bool:
    """Return whether what is stored of a key's first use is of this body, too.

    What the versions before stored is compared by their rule, for the fields that there were.
    Records go with their executions, so this is over when those are past their retention.
    """
    if stored.startswith(VERSION) and len(stored) > hashlib.sha256().digest_size:
        return stored == fingerprint(sent)
    return sent.keys() - {WAITING} <= _FIELDS_OF_1 and stored == _of_1(body)


def _of_1(body: Submission) -> bytes:
    asked = body.model_dump(mode="json", include=set(_FIELDS_OF_1))
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
