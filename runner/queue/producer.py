"""The producer's end of the queue: it makes the only permitted job."""

from collections.abc import Sequence
from typing import TypeAlias

import redis
from rq.serializers import JSONSerializer

from runner.queue.job import RingJob
from runner.queue.ring import RING, Ring
from runner.queue.rings import QUEUE, RingList

UNUSED_RING_TTL_S = 3600
MAX_WAITING = 1000
"""The most rings that wait, the newest: each one makes its consumer look until nothing is left."""

Command: TypeAlias = tuple[str | bytes | float, ...]


class RingMaker:
    """Lets RQ say how a ring is put into its queue, without telling Redis."""

    def __init__(self) -> None:
        # It is never opened: RQ only writes into its pipeline.
        self._nowhere = redis.Redis(connection_pool=redis.ConnectionPool(max_connections=1))
        self._queue = RingList(
            QUEUE, connection=self._nowhere, job_class=RingJob, serializer=JSONSerializer
        )

    def commands(self, found: Ring) -> Sequence[Command]:
        """Return the commands by which Redis takes this ring, all of them in one transaction."""
        pipeline = self._nowhere.pipeline()
        self._queue.enqueue_call(
            func=RING,
            args=(str(found.tenant_id), str(found.execution_id)),
            timeout=-1,
            result_ttl=0,
            failure_ttl=60,
            ttl=UNUSED_RING_TTL_S,
            description="ring",
            pipeline=pipeline,
        )
        pipeline.ltrim(self._queue.key, -MAX_WAITING, -1)
        return [arguments for arguments, _ in pipeline.command_stack]
