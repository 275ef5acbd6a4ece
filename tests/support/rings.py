"""Rings as the product puts them into Redis, for those that hold a connection of their own."""

import redis

from runner.queue.producer import RingMaker
from runner.queue.ring import Ring
from runner.words.ids import new_id


class Bell:
    """Rings over one connection."""

    def __init__(self, connection: "redis.Redis") -> None:
        self._connection = connection
        self._rings = RingMaker()

    def ring(self, ring: Ring) -> None:
        """Put a ring into the queue."""
        with self._connection.pipeline() as pipeline:
            for command in self._rings.commands(ring):
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py's
            pipeline.execute()


def put(connection: "redis.Redis") -> None:
    """Ring for an execution that does not exist."""
    Bell(connection).ring(Ring(new_id(), new_id()))
