"""After a flood of refused jobs was discarded, the worker looks for work and misses nothing."""

import pytest
import redis
from rq.serializers import JSONSerializer

from runner.embedded.services import services
from runner.queue.job import RefusedJob, Then, bound_job_class
from runner.queue.rings import RingList
from tests.support.deployment import state_folder
from tests.support.rings import put


def test_the_look_comes_after_what_waits_was_thrown_away() -> None:
    """A ring that arrives before is discarded as well, and its execution is still found.

    A look before discarding would not have found it.
    """
    with (
        state_folder() as folder,
        services(folder, ephemeral=True) as running,
        redis.Redis.from_url(running.redis_url) as connection,
    ):
        waiting_at_look = []

        def refuse(_job_id: str, _why: str) -> Then:
            put(connection)
            return Then.DISCARD

        job_class = bound_job_class(
            lambda _: None,
            refuse,
            lambda: waiting_at_look.append(connection.llen(RingList.key_of())),
        )
        connection.hset("rq:job:forged", mapping={"data": b"[]"})
        with pytest.raises(RefusedJob):
            job_class.fetch("forged", connection=connection, serializer=JSONSerializer)
        assert waiting_at_look == [0]
