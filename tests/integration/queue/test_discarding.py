"""After a flood of refused jobs was discarded, the worker looks for work and misses nothing."""

import pytest
import redis
from rq.serializers import JSONSerializer

from runner.embedded.services import services
from runner.queue.job import RefusedJob, Then, bound_job_class
from runner.queue.producer import RingQueue
from runner.queue.ring import Ring
from runner.words.ids import new_id
from tests.support.deployment import state_folder


def test_the_look_comes_after_what_waits_was_thrown_away() -> None:
    """A ring that arrives before is discarded as well, and its execution is still found.

    A look before discarding would not have found it.
    """
    with (
        state_folder() as folder,
        services(folder, ephemeral=True) as running,
        redis.Redis.from_url(running.redis_url) as connection,
    ):
        queue = RingQueue(connection)
        waiting_at_look = []

        def refuse(_job_id: str, _why: str) -> Then:
            queue.put(Ring(new_id(), new_id()))
            return Then.DISCARD

        job_class = bound_job_class(
            lambda _: None, refuse, lambda: waiting_at_look.append(queue.waiting())
        )
        connection.hset("rq:job:forged", mapping={"data": b"[]"})
        with pytest.raises(RefusedJob):
            job_class.fetch("forged", connection=connection, serializer=JSONSerializer)
        assert waiting_at_look == [0]
