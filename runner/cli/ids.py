"""Ids of executions as people type them: whole, or only the beginning, as with git's commits."""

import re
from uuid import UUID

from agent_runner import Client
from runner.cli.console import fail

DIGITS = 32
LEAST = 4
_BEGINNING = re.compile(rf"[0-9a-f]{{{LEAST},{DIGITS}}}")


def whole(api: Client, given: str) -> str:
    """Return the id of the one execution whose id begins like this, or end the command.

    If it cannot be the beginning of an id, it is returned unchanged, and the API refuses it.
    """
    digits = _digits(given)
    if not _BEGINNING.fullmatch(digits) or len(digits) == DIGITS:
        return given
    found, _ = api.list(limit=2, cursor=_behind(digits))
    ids = [each.id for each in found if _digits(each.id).startswith(digits)]
    if not ids:
        fail(f"no execution has an id that begins with {given}")
    if len(ids) > 1:
        fail(
            f"the ids of several executions begin with {given}, among them {ids[0]} and "
            f"{ids[1]}: give more of it"
        )
    return ids[0]


def _digits(text: str) -> str:
    return text.replace("-", "").lower()


def _behind(digits: str) -> str:
    """Return the cursor of a listing, newest first, that starts with ids with these digits.

    Ids are UUIDs of version 7 (RFC 9562), so the listing is in the order of ids.
    """
    # Import it here: that takes as long as most commands take to run.
    from runner.api.cursors import encode

    last = int(digits.ljust(DIGITS, "f"), 16)
    return encode(UUID(int=min(last + 1, 2**128 - 1)))
