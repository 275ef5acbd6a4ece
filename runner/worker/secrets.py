"""Secrets from the operator's configuration: one TOML file, a table for each tenant's id."""

import asyncio
import stat
import tomllib
from pathlib import Path
from uuid import UUID

from runner.errors import SetupError


class FileSecrets:
    """Reads the file when a secret is wanted: a changed value needs no restart."""

    def __init__(self, path: Path | None) -> None:
        """Look at the file; raises SetupError when others may read it, or it is not TOML."""
        self._path = path
        self._read()

    async def read(self, tenant: UUID, name: str) -> str | None:
        """Return the value of the tenant's secret of that name, or None."""
        tables = await asyncio.to_thread(self._read)
        value = tables.get(str(tenant), {}).get(name)
        return value if isinstance(value, str) else None

    def _read(self) -> dict[str, dict[str, object]]:
        if self._path is None:
            return {}
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode)
            if mode & 0o077:
                raise SetupError(f"{self._path} may be read by others: `chmod 600 {self._path}`")
            return tomllib.loads(self._path.read_text())
        except OSError as error:
            raise SetupError(f"{self._path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            # The parser's message may quote the line, and the line may hold a secret.
            raise SetupError(f"{self._path} is not TOML") from None
