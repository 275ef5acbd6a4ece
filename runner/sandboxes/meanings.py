"""The meaning of each reason for which a sandbox ended, and advice for its owner."""

from collections.abc import Mapping
from types import MappingProxyType

from runner.words.explanation import Meaning
from runner.words.lives import EndReason

_NEW = "Make a new one; keep files that must outlive a sandbox in a snapshot."

MEANINGS: Mapping[EndReason, Meaning] = MappingProxyType(
    {
        EndReason.KILLED: Meaning("somebody deleted it", "Nothing needs to be done."),
        EndReason.EXPIRED: Meaning(
            "its `timeout_s` had passed",
            "Set a longer `timeout_s`, extend it by PATCH while it lives, or have it pause instead "
            "with `on_timeout`.",
        ),
        EndReason.MAX_LIFE: Meaning("its `max_life_s` had passed", "Set a longer `max_life_s`."),
        EndReason.OUT_OF_MEMORY: Meaning(
            "its processes together needed more memory than it has", "Make one of a larger `size`."
        ),
        EndReason.LOST: Meaning("its node did not come back, and its files are lost", _NEW),
        EndReason.START_FAILED: Meaning(
            "no node could start it; nothing ran", "Try again; if it recurs, tell the operator."
        ),
        EndReason.NODE_DRAINED: Meaning("its node was stopped", _NEW),
        EndReason.TENANT_SUSPENDED: Meaning(
            "the operator suspended the tenant", "Ask the operator."
        ),
        EndReason.PROTOCOL_VIOLATION: Meaning(
            "the sandbox sent what an intact supervisor never sends",
            "Tell the operator: a program in it may be hostile.",
        ),
        EndReason.EVICTED: Meaning(
            "its host was short of memory while it was paused, and its files became a snapshot",
            "Make a new one from the snapshot that `kept_as` names.",
        ),
        EndReason.INTERNAL_ERROR: Meaning("a part of the service failed", _NEW),
    }
)
