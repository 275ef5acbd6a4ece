"""A state folder serves one worker at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from runner.base.locks import lock_file
from runner.base.settings import Settings
from runner.words.errors import SetupError


@contextmanager
def only_worker(settings: Settings) -> Iterator[None]:
    """Hold the node's lock: a second worker would take the first one's sandboxes for strays."""
    with lock_file(settings.run_dir / "worker.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(
                f"another worker runs with this state folder ({settings.state_dir}); "
                "stop it, or give this one its own RUNNER_STATE_DIR"
            ) from None
        yield
