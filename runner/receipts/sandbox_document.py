"""The receipt of a sandbox's end: a pure function from known facts to the document."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runner import __version__
from runner.audit.events import Place
from runner.sandbox.observe.isolation import EffectiveIsolation
from runner.store.residents import LifeTimes
from runner.words.execution import JSON, EgressUsage
from runner.words.lives import EndReason
from runner.words.living import StoredSandbox


@dataclass(frozen=True, slots=True)
class Lived:
    """The facts that the node that ends a sandbox knows itself."""

    node: str | None = None
    """None if the sandbox's node was lost and another one ends it."""
    container: str | None = None
    image_digest: str | None = None
    profile_hash: str | None = None
    isolation: EffectiveIsolation | None = None
    egress_policy_hash: str | None = None
    egress: EgressUsage | None = None
    """Of its way out since this process of its node has held it."""
    cpu_s: float | None = None
    records_lost: int | None = None
    """How many audit records were dropped; None if nobody knows."""


def sandbox_receipt(
    sandbox: StoredSandbox,
    reason: EndReason,
    times: LifeTimes,
    lived: Lived,
    on_record: Mapping[str, JSON],
    head: Place,
) -> dict[str, Any]:
    """Return the receipt's body. `on_record` counts what the audit log holds of the sandbox."""
    return {
        "sandbox": str(sandbox.id),
        "tenant": str(sandbox.tenant_id),
        "image": sandbox.image,
        "image_digest": lived.image_digest,
        "profile_hash": lived.profile_hash,
        "resources": asdict(sandbox.resources),
        "isolation": asdict(lived.isolation) if lived.isolation else None,
        "isolation_asked": sandbox.isolation.value,
        "egress_rules": [dict(rule) for rule in sandbox.egress],
        "egress_policy_hash": lived.egress_policy_hash,
        "secrets": sorted(set(sandbox.secret_env.values())),
        "times": {name: at and at.isoformat() for name, at in asdict(times).items()},
        "state": "ended",
        "reason": reason.value,
        "kept_as": sandbox.kept_as and str(sandbox.kept_as),
        "cpu_s": lived.cpu_s,
        "egress": asdict(lived.egress) if lived.egress else None,
        "on_record": dict(on_record),
        "records_lost": lived.records_lost,
        "audit_head": {"seq": head.seq, "hash": head.hash.hex()},
        "node": lived.node,
        "container": lived.container,
        "version": __version__,
    }
