"""The producer's end of the queue: it makes the only permitted job."""

import redis
from rq.serializers import JSONSerializer

from runner.queue.job import RingJob
from runner.queue.ring import RING, Ring
from runner.queue.rings import QUEUE, RingList

UNUSED_RING_TTL_S = 3600
MAX_WAITING = 1000
"""The most rings that wait, the newest: each one makes its consumer look until nothing is left."""


class RingQueue:
    """The producer's end."""

    def __init__(self, connection: "redis.Redis") -> None:
        self._connection = connection
        self._queue = RingList(
            QUEUE, connection=connection, job_class=RingJob, serializer=JSONSerializer
        )

    def put(self, found: Ring) -> None:
        """Ring once."""
        with self._connection.pipeline() as pipeline:
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
            pipeline.execute()

    def waiting(self) -> int:
        """Return how many rings no worker has answered yet."""
        return int(self._queue.count)
