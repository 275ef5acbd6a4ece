"""Rings as the product puts them into Redis, for tests that hold a connection of their own."""

import redis

from runner.queue.producer import RingMaker
from runner.queue.ring import Ring
from runner.words.ids import new_id


def put(connection: "redis.Redis") -> None:
    """Ring for an execution that does not exist."""
    with connection.pipeline() as pipeline:
        for command in RingMaker().commands(Ring(new_id(), new_id())):
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py's
        pipeline.execute()
