"""Notices of an end: a worker tells the API that waits all of it, so that nobody reads it back.

The worker has just stored the end, and sends what an answer needs along with the announcement. It
is sealed with a key of the deployment that is derived for this one execution: Redis learns nothing
but how many KiB it has, and a forged message, or one of another execution, does not open. Then the
API reads PostgreSQL, as it does when nothing was sent along. What does open was durable before it
was sent, and an ended execution never changes, so a repeated message says the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter, ValidationError

from runner.executions.read import Seen
from runner.queue.changes import MOST_NOTICE
from runner.secrets.envelope import Unopened, seal, unseal
from runner.secrets.keyring import Derivation
from runner.store.attempts import Times
from runner.words.errors import KeyUnavailable
from runner.words.execution import (
    Artifact,
    Execution,
    ExecutionRequest,
    Result,
    StoredOutput,
    Stream,
)

_PURPOSE = b"agent-runner/end-notice/v1\0"
_STEP = 1024
"""A notice is filled up with spaces to a multiple of so many bytes, before it is sealed. Otherwise
its length would tell the length of the output."""


@dataclass(frozen=True, slots=True)
class EndNotice:
    """All that an answer says of an execution that has ended, besides its request."""

    __pydantic_config__ = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    attempt: int
    times: Times
    result: Result
    output: Mapping[Stream, StoredOutput]
    artifacts: tuple[Artifact, ...]

    def seen(self, tenant_id: UUID, execution_id: UUID, request: ExecutionRequest) -> Seen:
        """Return the execution as `read` returns it."""
        run = request.run
        execution = Execution(
            id=execution_id,
            tenant_id=tenant_id,
            state=self.result.state,
            attempt=self.attempt,
            created_at=self.times.created_at,
            started_at=self.times.started_at,
            ended_at=self.times.ended_at,
            cancel_requested_at=self.times.cancel_requested_at,
            project=request.project,
            image=request.sandbox.image,
            size=request.size,
            language=request.language,
            limits=request.limits,
            metadata=dict(request.metadata),
            isolation=request.sandbox.isolation,
            interpret=run.program.interpret,
            reuse=request.reuse,
            output_keep=run.bounds.output_keep,
            egress=tuple(dict(rule) for rule in request.egress),
            egress_policy=request.egress_policy,
            result=self.result,
        )
        return Seen(execution, output=self.output, artifacts=list(self.artifacts))


_NOTICE = TypeAdapter(EndNotice)


class EndNotices:
    """Seals and opens the notices of a deployment."""

    def __init__(self, keys: Derivation) -> None:
        self._keys = keys

    def sealed(self, tenant_id: UUID, execution_id: UUID, notice: EndNotice) -> bytes | None:
        """Return the notice for its announcement; None if it is too long, or there is no key."""
        if sum(len(output.raw) for output in notice.output.values()) > MOST_NOTICE:
            return None
        text = _NOTICE.dump_json(notice)
        text += b" " * (-len(text) % _STEP)
        place = _place(tenant_id, execution_id)
        try:
            key, *_ = self._keys.derive(place)
        except KeyUnavailable:
            return None
        sealed = seal(key, text, bound_to=place)
        return sealed if len(sealed) <= MOST_NOTICE else None

    def opened(self, tenant_id: UUID, execution_id: UUID, sealed: bytes) -> EndNotice | None:
        """Return the notice; None if it is not this execution's, or nobody here can tell."""
        place = _place(tenant_id, execution_id)
        try:
            keys = self._keys.derive(place)
        except KeyUnavailable:
            return None
        for key in keys:
            try:
                return _NOTICE.validate_json(unseal(key, sealed, bound_to=place))
            except Unopened:
                continue
            except ValidationError:
                # A worker of another version says it in another way.
                return None
        return None


def _place(tenant_id: UUID, execution_id: UUID) -> bytes:
    """Return the text to which a notice and its key are bound."""
    return _PURPOSE + tenant_id.bytes + execution_id.bytes
