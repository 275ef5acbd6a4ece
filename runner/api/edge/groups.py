"""Groups of routes that are counted together, and their handling without Redis: one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from runner.api.e2b.paths import Part, part_of
from runner.api.librechat.paths import EXEC, PROGRAMMATIC


class Group(StrEnum):
    """Routes that share a count. Requests of one group use nothing of another group's rate."""

    SUBMIT = "submit"
    LOGIN = "login"
    STOP = "stop"
    WRITE = "write"
    USE = "use"
    PORTS = "ports"
    SIGNED = "signed"
    HEAVY = "heavy"
    READ = "read"
    OPERATIONS = "operations"


OPEN_WITHOUT_REDIS: Mapping[Group, bool] = MappingProxyType(
    {
        # Starts containers.
        Group.SUBMIT: False,
        # Each try is a guess at a password, or asks the identity provider.
        Group.LOGIN: False,
        # Ends what should not continue, so counting must never delay it.
        Group.STOP: True,
        # Changes what is stored, and adds to the audit log.
        Group.WRITE: False,
        # Starts programs, and moves files.
        Group.USE: False,
        # Reaches programs, too.
        Group.PORTS: False,
        # Moves files, as use does.
        Group.SIGNED: False,
        # Reads a whole log.
        Group.HEAVY: False,
        # One indexed query: results can be read even without Redis.
        Group.READ: True,
        # By this, an operator learns that Redis is away.
        Group.OPERATIONS: True,
    }
)
"""The handling without Redis. True: served uncounted. False: refused with 503."""


TIMES: Mapping[Group, int] = MappingProxyType({Group.USE: 10, Group.PORTS: 20})
"""A group's rate as a multiple of its tier's; 1 by default.

An agent at work in a sandbox sends requests as often as a person types, and each costs a fraction
of starting a container. A browser requests all parts of a page at once.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """Methods and routes of a group, or all routes. The first rule that matches decides."""

    methods: frozenset[str] | None
    templates: frozenset[str] | None
    group: Group

    def fits(self, method: str, template: str) -> bool:
        """Return whether a request is one of these."""
        return (self.methods is None or method in self.methods) and (
            self.templates is None or template in self.templates
        )


TRAFFIC = "/v1/sandboxes/{sandbox_id}/ports/{port}/{path}"
"""The group of requests to the ports of sandboxes, by path or by name."""
MCP = "/mcp"
RUN_CODE = "/run_code"
SIGN_IN = "/v1/login/oidc"
CALLBACK = "/v1/login/oidc/callback"
"""Where a browser begins to sign in at the identity provider, and where that sends it back to."""
SIGNED = "/v1/sandboxes/{sandbox_id}/files/signed/content"
"""The paths of signed addresses. Their users share no rate with whoever signed them."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})
POST = frozenset({"POST"})
DELETE = frozenset({"DELETE"})
SANDBOX = "/v1/sandboxes/{sandbox_id}"
E2B_SANDBOX = "/sandboxes/{sandbox_id}"
PROCESS = f"{SANDBOX}/processes/{{process}}"
CONTEXT = f"{SANDBOX}/contexts/{{context}}"
ANY = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
IN_SANDBOXES = frozenset(
    {
        f"{SANDBOX}/metrics",
        f"{SANDBOX}/metrics/series",
        "/sandboxes/metrics",
        f"{E2B_SANDBOX}/metrics",
        f"{SANDBOX}/contexts",
        CONTEXT,
        f"{CONTEXT}/run",
        f"{CONTEXT}/interrupt",
        f"{CONTEXT}/restart",
        f"{SANDBOX}/processes",
        PROCESS,
        f"{PROCESS}/output",
        f"{PROCESS}/terminal",
        f"{PROCESS}/stdin",
        f"{PROCESS}/signal",
        f"{PROCESS}/resize",
        f"{SANDBOX}/files",
        f"{SANDBOX}/files/content",
        f"{SANDBOX}/files/archive",
        f"{SANDBOX}/files/stat",
        f"{SANDBOX}/files/folders",
        f"{SANDBOX}/files/move",
        f"{SANDBOX}/files/watch",
        f"{SANDBOX}/tcp/{{port}}",
    }
)
"""Routes that a sandbox's node answers."""

RULES = (
    Rule(None, frozenset({TRAFFIC}), Group.PORTS),
    Rule(None, frozenset({SIGNED}), Group.SIGNED),
    Rule(READING, frozenset({"/readyz", "/metrics"}), Group.OPERATIONS),
    Rule(POST, frozenset({"/v1/login", "/v1/login/accept"}), Group.LOGIN),
    Rule(READING, frozenset({SIGN_IN, CALLBACK}), Group.LOGIN),
    Rule(
        POST,
        frozenset(
            {
                "/v1/executions",
                "/v1/sandboxes",
                RUN_CODE,
                EXEC,
                PROGRAMMATIC,
                f"{SANDBOX}/fork",
                f"{SANDBOX}/snapshots",
                "/v1/templates",
                "/v3/templates",
                "/v2/templates/{template_id}/builds/{build_id}",
                "/sandboxes",
                "/v2/sandboxes",
                f"{E2B_SANDBOX}/fork",
                f"{E2B_SANDBOX}/snapshots",
            }
        ),
        Group.SUBMIT,
    ),
    Rule(POST, frozenset({"/v1/executions/{execution_id}/cancel"}), Group.STOP),
    Rule(DELETE, frozenset({"/v1/keys/{key_id}", SANDBOX, PROCESS, E2B_SANDBOX}), Group.STOP),
    Rule(
        READING,
        frozenset(
            {
                "/v1/audit/verification",
                "/v1/audit/export",
                "/operator/v1/audit/verification",
                "/operator/v1/audit/export",
            }
        ),
        Group.HEAVY,
    ),
    Rule(ANY, IN_SANDBOXES, Group.USE),
    # A tool that does more than use a sandbox counts its call once more.
    Rule(POST, frozenset({MCP}), Group.USE),
    Rule(READING, None, Group.READ),
)

UNCOUNTED = "/healthz"
"""Says only that the process lives; supervisors ask it often."""


def group_of(method: str, template: str) -> Group:
    """Return the group of a request by its route's template. Without a rule, it is a write."""
    if part_of(template) is Part.INSIDE:
        # E2B's routes in sandboxes: a sandbox's node answers all of them.
        return Group.USE
    for rule in RULES:
        if rule.fits(method, template):
            return rule.group
    return Group.WRITE
