"""A private Redis (or Valkey): it holds only rings and hints, so it stores nothing on disk."""

import shutil
import signal
import time
from pathlib import Path

import redis

from runner.embedded.process import ServiceProcess, ServiceUser
from runner.words.errors import SetupError

READY_AFTER_S = 10.0
PROGRAMS = ("valkey-server", "redis-server")


class Redis:
    """One Redis on a unix socket."""

    def __init__(self, *, sockets: Path, user: ServiceUser, logs: Path, patience: int) -> None:
        self._patience = patience
        self._socket = sockets / "redis.sock"
        self.url = f"unix://{self._socket}"
        program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
        if program is None:
            raise SetupError("no redis-server or valkey-server: `apt-get install redis-server`")
        log = logs / "redis.log"
        self.process = ServiceProcess(
            [
                program,
                "--port", "0",
                "--unixsocket", str(self._socket),
                "--unixsocketperm", "700",
                "--dir", str(sockets),
                "--save", "",
                "--appendonly", "no",
                "--maxmemory", "256mb",
                # Evicting would drop rings silently; a refusal of new ones is noticed and repeated.
                "--maxmemory-policy", "noeviction",
                "--daemonize", "no",
            ],
            user=user,
            log=log,
            environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            patience=patience,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it answers. Raises SetupError with its log if it does not."""
        self.process.start()
        deadline = time.monotonic() + READY_AFTER_S * self._patience
        with redis.Redis.from_url(self.url) as client:
            while True:
                self.process.check()
                try:
                    client.ping()
                except redis.RedisError:
                    if time.monotonic() > deadline:
                        raise SetupError(
                            f"Redis does not answer:\n{self.process.last_words()}"
                        ) from None
                    time.sleep(0.01)
                else:
                    return

    def stop(self) -> None:
        """End it."""
        self.process.stop(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.stop(signal.SIGKILL)
