"""Which routes are counted together, and what becomes of them while Redis is away: one table."""

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
    """Methods and routes of a group, or all routes; the first rule that fits decides."""

    methods: frozenset[str]
    templates: frozenset[str] | None
    group: Group


READING = frozenset({"GET", "HEAD", "OPTIONS"})
POST = frozenset({"POST"})
DELETE = frozenset({"DELETE"})

RULES = (
    Rule(READING, frozenset({"/readyz", "/metrics"}), Group.OPERATIONS),
    Rule(POST, frozenset({"/v1/login", "/v1/login/accept"}), Group.LOGIN),
    Rule(POST, frozenset({"/v1/executions"}), Group.SUBMIT),
    Rule(POST, frozenset({"/v1/executions/{execution_id}/cancel"}), Group.STOP),
    Rule(DELETE, frozenset({"/v1/keys/{key_id}"}), Group.STOP),
    Rule(READING, frozenset({"/v1/audit/verification", "/v1/audit/export"}), Group.HEAVY),
    Rule(READING, None, Group.READ),
)

UNCOUNTED = "/healthz"
"""Says that the process lives, from no more than that; asked often, by what decides to restart."""


def group_of(method: str, template: str) -> Group:
    """Return the group of a request by its route's template. What no rule foresaw is a write."""
    for rule in RULES:
        if method in rule.methods and (rule.templates is None or template in rule.templates):
            return rule.group
    return Group.WRITE
