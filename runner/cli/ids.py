"""Ids as people type them: whole, or only the beginning, as with git's commits."""

import re
from collections.abc import Mapping, Sequence
from uuid import UUID

from agent_runner import Client, Sandbox
from runner.cli.console import fail

DIGITS = 32
LEAST = 4
SHORT = len("0199f2a1-c0de-7b20")
"""How much of an id lists print: the time to the millisecond, and 12 random bits (RFC 9562)."""
_BEGINNING = re.compile(rf"[0-9a-f]{{{LEAST},{DIGITS}}}")


def whole(api: Client, given: str) -> str:
    """Return the id of the one execution whose id begins like this, or end the command.

    If it cannot be the beginning of an id, it is returned unchanged, and the API refuses it.
    """
    if (digits := _beginning(given)) is None:
        return given
    return _only(given, _executions(api, digits), "execution", "executions")


def of_either(api: Client, given: str) -> str:
    """Return the id of the one execution or sandbox whose id begins like this, as `whole` does."""
    if (digits := _beginning(given)) is None:
        return given
    found = [*_executions(api, digits), *_sandboxes(api, digits)]
    return _only(given, found, "execution or sandbox", "executions or sandboxes")


def find_sandbox(api: Client, given: str) -> Sandbox:
    """Return the one sandbox whose id begins like this, or end the command, as `whole` does."""
    if (digits := _beginning(given)) is not None:
        given = _only(given, _sandboxes(api, digits), "sandbox", "sandboxes")
    return api.sandboxes.get(given)


def shortened(ids: Sequence[str]) -> Mapping[str, str]:
    """Return the beginning by which to print each id: no two are equal, and all equally long."""
    length = SHORT
    while len({each[:length] for each in ids}) < len(set(ids)):
        length += 1
    return {each: each[:length] for each in ids}


def _executions(api: Client, digits: str) -> list[str]:
    found, _ = api.list(limit=2, cursor=_behind(digits))
    return [each.id for each in found if _digits(each.id).startswith(digits)]


def _sandboxes(api: Client, digits: str) -> list[str]:
    found, _ = api.sandboxes.list(limit=2, cursor=_behind(digits))
    return [each.id for each in found if _digits(each.id).startswith(digits)]


def _only(given: str, ids: list[str], kind: str, kinds: str) -> str:
    if not ids:
        fail(f"no {kind} has an id that begins with {given}")
    if len(ids) > 1:
        fail(
            f"the ids of several {kinds} begin with {given}, among them {ids[0]} and {ids[1]}: "
            "give more of it"
        )
    return ids[0]


def _beginning(given: str) -> str | None:
    """Return the digits of what may begin an id; None for a whole id and for anything else."""
    digits = _digits(given)
    return digits if _BEGINNING.fullmatch(digits) and len(digits) < DIGITS else None


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
