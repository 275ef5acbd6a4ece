"""Reads a sandbox's secrets: from its tenant's store first, then from the operator's file."""

import asyncio
import json
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from uuid import UUID

from runner.audit import events as audit
from runner.node.runs.actor import SandboxUser
from runner.node.runs.recorder import until_stored
from runner.secrets.vault import Vault
from runner.store.db import Database
from runner.words.errors import Invalid, SecretsUnreadable

MAX_ENV_BYTES = 32 * 1024
"""Room for secrets in one control frame, beside what a request may hold itself."""

Purpose = Literal["environment", "egress"]


class Secrets:
    """Reads values when a sandbox uses them, and records every use, even a failed one."""

    def __init__(self, *, database: Database, vault: Vault, file: "FileSecrets") -> None:
        self._database = database
        self._vault = vault
        self._file = file

    async def use(self, user: SandboxUser, name: str, purpose: Purpose) -> str | None:
        """Return the value of the tenant's secret with that name, or None.

        Raises KeyUnavailable if it cannot be opened.
        """
        return await until_stored(lambda: self._use(user, name, purpose))

    async def environment(
        self, user: SandboxUser, secret_env: Mapping[str, str], *, lenient: bool = False
    ) -> dict[str, str]:
        """Return these variables with the values of the secrets that they name.

        Raises Invalid if the tenant does not have a secret or the values are too large together,
        and KeyUnavailable if a value cannot be opened. With `lenient`, leaves out a variable whose
        secret the tenant no longer has.
        """
        found = {}
        for variable, name in secret_env.items():
            value = await self.use(user, name, "environment")
            if value is None and lenient:
                continue
            if value is None:
                raise Invalid(f"the tenant has no secret {name!r}", "secret_env")
            found[variable] = value
        if len(json.dumps(found)) > MAX_ENV_BYTES:
            raise Invalid(f"secret_env is above {MAX_ENV_BYTES} bytes, as JSON", "secret_env")
        return found

    async def _use(self, user: SandboxUser, name: str, purpose: Purpose) -> str | None:
        async with self._database.tenant(user.tenant_id) as tx:
            value, source = await self._vault.read(tx, user.tenant_id, name), "store"
            if value is None:
                value, source = await self._file.read(user.tenant_id, name), "file"
            found = value is not None
            event = user.did(
                audit.Action.SECRET_USE,
                {
                    user.kind: str(user.id),
                    "purpose": purpose,
                    **({"source": source} if found else {}),
                },
                outcome=audit.Outcome.SUCCESS if found else audit.Outcome.FAILURE,
                resource=("secret", name),
            )
            audit.append(tx, user.tenant_id, event)
        return value


class FileSecrets:
    """The operator's TOML file with a table for each tenant's id, read anew at each use."""

    def __init__(self, path: Path | None) -> None:
        """Check the file. Raises SecretsUnreadable if others may read it or it is not TOML."""
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
                raise self._unusable(f"may be read by others: `chmod 600 {self._path}`")
            tables = tomllib.loads(self._path.read_text())
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            # The parser's message may quote the line, and the line may hold a secret.
            raise self._unusable("is not TOML") from None
        if not all(isinstance(table, dict) for table in tables.values()):
            raise self._unusable("must have a table for each tenant, and nothing outside of them")
        return tables

    def _unusable(self, why: str) -> SecretsUnreadable:
        return SecretsUnreadable(f"RUNNER_EGRESS_SECRETS: {self._path} {why}")
