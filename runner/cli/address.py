"""How to reach a deployment: its address, and a key.

`runner dev` writes how to reach it to a file in the state folder, which only its user can read, and
removes the file when it stops.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from runner.base.settings import Settings
from runner.embedded.hold import is_held
from runner.words.errors import SetupError

if TYPE_CHECKING:
    from runner.embedded.stack import Stack


class Address(BaseModel):
    """The address of a deployment, and a key that it accepts."""

    model_config = ConfigDict(frozen=True)

    url: str
    api_key: str


class Beside(Address):
    """The address and key by which a user's other commands reach the deployment of `runner dev`."""

    docker_url: str
    superuser_url: str
    owner_url: str
    operator_url: str

    @classmethod
    def of(cls, running: "Stack", api_key: str) -> "Beside":
        """Return how to reach a running stack."""
        return cls(
            url=running.url,
            api_key=api_key,
            docker_url=running.settings.docker_url,
            superuser_url=running.services.superuser_url,
            owner_url=running.services.owner_url,
            operator_url=running.services.operator_url,
        )


@contextmanager
def announced(settings: Settings, beside: Beside) -> Iterator[None]:
    """Let other commands of this user find the deployment inside the context."""
    path = _file(settings)
    # It is complete when it appears, and only this user can read it (mkstemp's mode).
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w") as file:
        file.write(beside.model_dump_json())
    Path(partial).rename(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def found(settings: Settings) -> Beside | None:
    """Return the deployment that `runner dev` runs with the same state folder.

    Raises SetupError if this user may not read the file.
    """
    path = _file(settings)
    try:
        # A process that was killed has left the file.
        return (
            Beside.model_validate_json(path.read_bytes()) if is_held(settings.state_dir) else None
        )
    except FileNotFoundError:
        return None
    except PermissionError:
        raise SetupError(
            f"{path} belongs to the user who runs `runner dev`: be that user, or set RUNNER_URL "
            "and RUNNER_API_KEY"
        ) from None
    except ValidationError:
        raise SetupError(
            f"{path} is not what this release writes: stop `runner dev` and start it again"
        ) from None


def _file(settings: Settings) -> Path:
    return settings.run_dir / "dev.json"
