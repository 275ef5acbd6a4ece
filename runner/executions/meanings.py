"""The meaning of each reason for which an execution ended, and advice for its submitter."""

from collections.abc import Mapping
from types import MappingProxyType

from runner.words.explanation import Meaning
from runner.words.states import Reason

_AGAIN = "Submit it again."
_TWICE = "It may have run: submit it again if it may run twice."
_FIX = "Correct the program."
_TELL = "Tell the operator, then submit it again."

MEANINGS: Mapping[Reason, Meaning] = MappingProxyType(
    {
        Reason.COMPLETED: Meaning("the program exited with code 0", "Nothing needs to be done."),
        Reason.EXIT_NONZERO: Meaning("the program exited with another code than 0", _FIX),
        Reason.KILLED_BY_SIGNAL: Meaning("a signal ended the program", _FIX),
        Reason.COMMAND_NOT_STARTED: Meaning(
            "the image cannot execute the command, or its files could not be placed; nothing ran",
            "Correct the submission.",
        ),
        Reason.WALL_CLOCK_LIMIT: Meaning(
            "the program reached `timeout_s`", "Submit it with a higher limit, or make it faster."
        ),
        Reason.CANCEL_REQUESTED: Meaning(
            "somebody cancelled it, or the operator suspended the tenant; it may have run",
            "Submit it again if it is still wanted.",
        ),
        Reason.MEMORY_LIMIT: Meaning(
            "the program reached its memory limit", "Submit it with a larger `size` or `memory_mb`."
        ),
        Reason.OUTPUT_FLOOD: Meaning(
            "the program wrote more than the deployment lets one execution discard",
            "Have the program write less, or write to a file.",
        ),
        Reason.WORKER_LOST: Meaning("its worker died or was cut off", _TWICE),
        Reason.WORKER_DRAINED: Meaning("its worker was stopped while it ran", _TWICE),
        Reason.ATTEMPTS_EXHAUSTED: Meaning(
            "its worker was lost in each of its attempts; it may have run",
            "Tell the operator: the program may be the cause.",
        ),
        Reason.SECRET_UNAVAILABLE: Meaning(
            "a secret that it needs is not stored, is too large or cannot be read; nothing ran",
            "Store the secret under the name in `secret_env`; if it is stored, tell the operator.",
        ),
        Reason.EGRESS_NOT_OPENED: Meaning(
            "an egress rule names a secret that the tenant does not have; nothing ran",
            "Store the secret, then submit it again.",
        ),
        Reason.ISOLATION_MISSING: Meaning(
            "the worker's host lacks the isolation that was asked for; nothing ran", _TELL
        ),
        Reason.IMAGE_MISSING: Meaning(
            "the worker's host has no usable image, or the template was deleted; nothing ran",
            "Name another template, or tell the operator; then submit it again.",
        ),
        Reason.SANDBOX_START_FAILED: Meaning("no sandbox could be started; nothing ran", _AGAIN),
        Reason.SANDBOX_DIED: Meaning("the sandbox ended without a report", _TWICE),
        Reason.SANDBOX_PROTOCOL: Meaning(
            "the sandbox sent what an intact supervisor never sends; it may have run",
            "Tell the operator: the program may be hostile.",
        ),
        Reason.RESULT_NOT_STORED: Meaning(
            "the program ended, but its result could not be stored", _TWICE
        ),
        Reason.INTERNAL: Meaning("a part of the service failed", _TWICE),
    }
)
