"""Prepares reports of egress decisions: without secrets, and no longer than people read.

A program chooses what it asks the proxy for, and may put its secrets there.
"""

from collections.abc import Mapping
from dataclasses import replace

from runner.audit import events as audit
from runner.base.masking import Masker
from runner.words.execution import JSON
from runner.words.text import shortened

_LONG = frozenset({"host", "detail"})


async def as_told(facts: Mapping[str, JSON], masker: Masker) -> dict[str, JSON]:
    """Return the facts with secrets masked, and then with long ones shortened."""
    found = dict(facts)
    for name, each in facts.items():
        if isinstance(each, str):
            starred = await masker.text_aside(each)
            found[name] = shortened(starred) if name in _LONG else starred
    return found


async def event_as_told(event: audit.AuditEvent, masker: Masker) -> audit.AuditEvent:
    """Return the event with its facts masked and shortened in the same way."""
    return replace(event, metadata=await as_told(event.metadata, masker))
