"""Which routes are counted together, and what becomes of them while Redis is away: one table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Group(StrEnum):
    """Routes that share a count. One group's requests take nothing of another's."""

    SUBMIT = "submit"
    LOGIN = "login"
    STOP = "stop"
    WRITE = "write"
    HEAVY = "heavy"
    READ = "read"
    OPERATIONS = "operations"


OPEN_WITHOUT_REDIS: Mapping[Group, bool] = MappingProxyType(
    {
        # Starts containers.
        Group.SUBMIT: False,
        # Each try is a guess at a password.
        Group.LOGIN: False,
        # Ends what should not go on: never held up by what only counts.
        Group.STOP: True,
        # Changes what is stored, and adds to the audit log.
        Group.WRITE: False,
        # Reads a tenant's whole log.
        Group.HEAVY: False,
        # One indexed query: results stay within reach when Redis is not.
        Group.READ: True,
        # How an operator learns that Redis is away.
        Group.OPERATIONS: True,
    }
)
"""True: served uncounted. False: refused with 503 until Redis counts again."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Methods and paths of a group; the first rule that fits decides."""

    methods: frozenset[str]
    path: re.Pattern[str]
    group: Group


READING = frozenset({"GET", "HEAD", "OPTIONS"})
POST = frozenset({"POST"})
DELETE = frozenset({"DELETE"})

RULES = (
    Rule(READING, re.compile(r"/readyz|/metrics"), Group.OPERATIONS),
    Rule(POST, re.compile(r"/v1/login(/.*)?"), Group.LOGIN),
    Rule(POST, re.compile(r"/v1/executions"), Group.SUBMIT),
    Rule(POST, re.compile(r"/v1/executions/[^/]+/cancel"), Group.STOP),
    Rule(DELETE, re.compile(r"/v1/keys/[^/]+"), Group.STOP),
    Rule(READING, re.compile(r"/v1/audit/(verification|export)"), Group.HEAVY),
    Rule(READING, re.compile(r".*", re.DOTALL), Group.READ),
)

UNCOUNTED = "/healthz"
"""Says that the process lives, from no more than that; asked often, by what decides to restart."""


def group_of(method: str, path: str) -> Group:
    """Return a request's group. What no rule foresaw is a write."""
    for rule in RULES:
        if method in rule.methods and rule.path.fullmatch(path):
            return rule.group
    return Group.WRITE
