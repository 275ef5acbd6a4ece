"""Counts refused jobs, so that a flood in Redis fills neither the audit log nor anybody's time.

Threads only count. A task writes one audit record for each window. After a few refusals in a
window, what waits in Redis is thrown away unread, and the worker looks in PostgreSQL by itself:
PostgreSQL knows what waits, and losing Redis' content costs at most a second.
"""

import threading
import time
from dataclasses import dataclass, field

import structlog

from runner.audit import events as audit
from runner.store.db import Database
from runner.words.errors import NotReady
from runner.words.execution import JSON
from runner.words.text import numbered, printable

WINDOW_S = 5.0
"""Length of a window, for which there is at most one record."""
EXAMPLES = 10
FLOOD = 20
"""Refusals in a window after which the remaining jobs are not read."""
LOOK_AGAIN_S = 0.2
"""Pause after a look that found nothing: an execution without a ring waits at most this long."""


@dataclass(slots=True)
class _Window:
    count: int = 0
    examples: list[dict[str, JSON]] = field(default_factory=list)


class Refusals:
    """Counts what consumers refuse, and records it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._window = _Window()
        self._nothing_at = 0.0
        self._log = structlog.get_logger("runner.worker")

    def count(self, job_id: str, why: str) -> bool:
        """Count one refusal, from any thread; return whether there are too many to read others."""
        with self._lock:
            self._window.count += 1
            if len(self._window.examples) < EXAMPLES:
                self._window.examples.append(
                    {"job": printable(job_id, numbered), "why": printable(why, numbered)}
                )
            return self._window.count > FLOOD

    def may_look(self) -> bool:
        """Return whether to look for work in place of rings that were thrown away."""
        with self._lock:
            return time.monotonic() >= self._nothing_at + LOOK_AGAIN_S

    def found_nothing(self) -> None:
        """Remember that a look has just found nothing to run."""
        with self._lock:
            self._nothing_at = time.monotonic()

    async def record(self) -> None:
        """Write one audit record for the refusals since the last one, if there were any."""
        with self._lock:
            window, self._window = self._window, _Window()
        if not window.count:
            return
        first = window.examples[0]
        self._log.warning("jobs_refused", count=window.count, first=first["job"], why=first["why"])
        event = audit.AuditEvent(
            actor="system:queue",
            action=audit.Action.QUEUE_JOB,
            outcome=audit.Outcome.DENIED,
            resource_type="queue_job",
            resource_id=str(first["job"]),
            metadata={"why": first["why"], "count": window.count, "examples": window.examples},
        )
        try:
            await audit.append_platform(self._database, event)
        except NotReady as error:
            self._log.warning("refusals_not_audited", count=window.count, error=error.detail)
