"""The nodes that can take a sandbox, best first. A wrong choice does no harm: the node refuses."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.store.nodes import StoredNode
from runner.words.nodes import NodeState
from runner.words.sandbox import Isolation
from runner.words.templates import template_in


@dataclass(frozen=True, slots=True)
class NodeNeed:
    """A sandbox's demands on its node."""

    image: str
    """An image of the deployment, or a template of the tenant."""
    isolation: Isolation
    memory_mb: int


def candidates(
    nodes: Sequence[StoredNode],
    wanted: NodeNeed,
    *,
    zone: str | None = None,
    sent: Mapping[str, int] | None = None,
) -> list[StoredNode]:
    """Return the nodes that can take a sandbox, the best first.

    `sent` says how many sandboxes each was sent since it last told how many it holds. A node that
    works is better than one that is broken, then one whose host has the memory free, then one that
    has the sandbox's template, then one of our own zone, and then the emptiest.
    """
    fit = [each for each in nodes if _obstacle(each, wanted, sent or {}) is None]
    template = template_in(wanted.image)

    def cost(node: StoredNode) -> tuple[bool, bool, bool, bool, float, str]:
        coming = (sent or {}).get(node.node, 0)
        return (
            node.fault is not None,
            node.free_mb < wanted.memory_mb * (1 + coming),
            template is not None and template not in node.templates,
            zone is not None and node.zone != zone,
            (node.living + coming) / node.sandboxes,
            node.node,
        )

    return sorted(fit, key=cost)


def why_none(
    nodes: Sequence[StoredNode], wanted: NodeNeed, sent: Mapping[str, int] | None = None
) -> str:
    """Say why no node can take a sandbox, by how many nodes each reason holds for."""
    reasons = Counter(_obstacle(each, wanted, sent or {}) for each in nodes)
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=str))
    return f"no node of this deployment can take this sandbox now ({told}): try again later"


def _obstacle(node: StoredNode, wanted: NodeNeed, sent: Mapping[str, int]) -> str | None:
    if node.state is not NodeState.READY:
        return node.state.value
    if wanted.isolation not in node.isolations:
        return f"without the isolation {wanted.isolation.value}"
    if template_in(wanted.image) is None and wanted.image not in node.images:
        return f"without the image {wanted.image}"
    if node.living + sent.get(node.node, 0) >= node.sandboxes:
        return "full"
    return None
