"""The name of the image of a tenant's template, and the labels that say whose it is."""

import hashlib
from dataclasses import dataclass
from uuid import UUID

REPOSITORY = "agent-runner"
TEMPLATE_LABEL = "runner.template"
TENANT_LABEL = "runner.tenant"
BYTES_LABEL = "runner.bytes"


@dataclass(frozen=True, slots=True)
class TemplateImage:
    """An image of a tenant's template, made by a node. Several nodes may share a Docker daemon."""

    name: str
    """The name by which sandboxes refer to it."""
    template: UUID
    tenant: UUID
    node: str
    bytes: int = 0
    """The bytes that it takes beyond its base, once it is made."""
    user: str | None = None
    """The user of its sandboxes; None for that of its base."""

    @property
    def tag(self) -> str:
        """Docker's name for it. Its labels do not name the node, so each makes the same image."""
        return f"{repository_of(self.node)}:{self.template}"


def repository_of(node: str) -> str:
    """Return where in Docker a node has its images of templates."""
    return f"{REPOSITORY}/template-{hashlib.sha256(node.encode()).hexdigest()[:12]}"
