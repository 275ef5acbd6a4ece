"""The content of a job, and how to read it from whatever bytes Redis holds."""

import json
import zlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

RING = "runner.queue.job.ring"
MAX_PAYLOAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Ring:
    """The content of a job: look, this execution of this tenant waits."""

    tenant_id: UUID
    execution_id: UUID


def parse(data: bytes) -> Ring:
    """Return the ring in a job's payload. Raises ValueError that says why it is not one of ours."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, MAX_PAYLOAD_BYTES)
        rest = inflater.unconsumed_tail
    except zlib.error:
        # RQ accepts a payload that is not compressed.
        text, rest = data, b""
    if rest or len(text) > MAX_PAYLOAD_BYTES:
        raise ValueError("oversized payload")
    try:
        call: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("payload is not JSON") from None
    match call:
        case [str(name), None, [str(tenant), str(execution)], dict(named)] if not named:
            if name != RING:
                raise ValueError(f"function {name[:100]!r} is not permitted")
        case [str(name), *_] if name != RING:
            raise ValueError(f"function {name[:100]!r} is not permitted")
        case _:
            raise ValueError("payload is not a ring")
    try:
        return Ring(tenant_id=UUID(tenant), execution_id=UUID(execution))
    except ValueError:
        raise ValueError("payload holds no ids") from None
