"""The text of a receipt: pure functions from known facts to the document that is signed."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import rfc8785

from runner import __version__
from runner.audit.events import Place
from runner.sandbox.observe.isolation import EffectiveIsolation
from runner.store.attempts import Times
from runner.words.execution import Artifact, Claim, ExecutionRequest, Result, Stream


@dataclass(frozen=True, slots=True)
class Ran:
    """The worker's own facts about a run."""

    node: str | None
    """None if the execution's worker was lost and another one ends it."""
    sandbox: str | None
    isolation: EffectiveIsolation | None
    egress_policy_hash: str | None
    output_hashes: Mapping[Stream, str]
    runs_before: int | None
    """How many executions of the tenant its sandbox had served before."""


def receipt(
    claim: Claim,
    request: ExecutionRequest,
    result: Result,
    artifacts: Sequence[Artifact],
    ran: Ran,
    times: Times,
    head: Place,
) -> dict[str, Any]:
    """Return the receipt's body. Hashes are `sha256:` and hexadecimal digits."""
    return {
        "execution": str(claim.execution_id),
        "tenant": str(claim.tenant_id),
        "attempt": claim.attempt,
        "request_hash": request_hash(request),
        "image": request.sandbox.image,
        "image_digest": result.image_digest,
        "profile_hash": result.profile_hash,
        "egress_policy_hash": ran.egress_policy_hash,
        "isolation": asdict(ran.isolation) if ran.isolation else None,
        "isolation_asked": request.sandbox.isolation.value,
        "limits": asdict(request.limits),
        "times": {name: at and at.isoformat() for name, at in asdict(times).items()},
        "state": result.state.value,
        "reason": result.reason.value,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "usage": asdict(result.usage),
        "egress": asdict(result.egress) if result.egress else None,
        "output": {
            stream.value: {
                "total_bytes": output.total_bytes,
                "truncated": output.truncated,
                "hash": ran.output_hashes.get(stream),
            }
            for stream, output in ((Stream.STDOUT, result.stdout), (Stream.STDERR, result.stderr))
        },
        "artifacts": [
            {"path": each.path, "size": each.size, "hash": f"sha256:{each.sha256}"}
            for each in sorted(artifacts, key=lambda each: each.path)
        ],
        "result_hash": _hash(asdict(result)),
        "audit_head": {"seq": head.seq, "hash": head.hash.hex()},
        "node": ran.node,
        "sandbox": ran.sandbox,
        "sandbox_runs_before": ran.runs_before,
        "version": __version__,
    }


def request_hash(request: ExecutionRequest) -> str:
    """Return the hash of the complete request; a client can compute it from what it sent."""
    # Leave out newer fields at their defaults, so that earlier requests keep their hash.
    chosen = {}
    if request.language == "python" and not request.run.program.interpret:
        chosen["interpreter"] = "fresh"
    if request.reuse:
        chosen["reuse"] = "tenant"
    if request.run.bounds.output_keep != "head":
        chosen["output_keep"] = request.run.bounds.output_keep
    return _hash(
        {
            **chosen,
            "argv": list(request.run.program.argv),
            "env": dict(request.run.program.env),
            "stdin": hashlib.sha256(request.run.program.stdin).hexdigest(),
            "files": {file.path: file.sha256 for file in request.run.files},
            "limits": asdict(request.limits),
            "image": request.sandbox.image,
            "isolation": request.sandbox.isolation.value,
            "egress": [dict(rule) for rule in request.egress],
            "secret_env": dict(request.run.secret_env),
            "metadata": dict(request.metadata),
            "on_worker_loss": request.on_worker_loss,
        }
    )


def _hash(value: Any) -> str:
    return "sha256:" + hashlib.sha256(rfc8785.dumps(_plain(value))).hexdigest()


def _plain(value: Any) -> Any:
    """Return the value with JSON's types only: enumerations become texts, tuples become lists."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, str) else value
