"""Where an execution's secrets come from: its tenant's store first, the operator's file second."""

import asyncio
import json
import stat
import tomllib
from pathlib import Path
from typing import Literal
from uuid import UUID

from runner.audit import events as audit
from runner.node.runs.recorder import until_stored
from runner.secrets.vault import Vault
from runner.store.db import Database
from runner.words.errors import Invalid, SecretsUnreadable
from runner.words.execution import Claim, RunSpec

MAX_ENV_BYTES = 32 * 1024
"""Beside what a request may hold itself, what one control frame to a sandbox leaves room for."""

Purpose = Literal["environment", "egress"]


class Secrets:
    """Reads values when an execution uses them; every use is on record, failed ones too."""

    def __init__(self, *, database: Database, vault: Vault, file: "FileSecrets") -> None:
        self._database = database
        self._vault = vault
        self._file = file

    async def use(self, claim: Claim, name: str, purpose: Purpose) -> str | None:
        """Return the value of the tenant's secret of that name, or None when there is none.

        Raises KeyUnavailable when it cannot be opened.
        """
        return await until_stored(lambda: self._use(claim, name, purpose))

    async def environment(self, claim: Claim, run: RunSpec) -> dict[str, str]:
        """Return the variables that the run shall have with secrets in them.

        Raises Invalid for a secret that the tenant does not have, and for too much of them;
        KeyUnavailable when one cannot be opened.
        """
        found = {}
        for variable, name in run.secret_env.items():
            value = await self.use(claim, name, "environment")
            if value is None:
                raise Invalid(f"the tenant has no secret {name!r}", "secret_env")
            found[variable] = value
        if len(json.dumps(found)) > MAX_ENV_BYTES:
            raise Invalid(f"secret_env is above {MAX_ENV_BYTES} bytes, as JSON", "secret_env")
        return found

    async def _use(self, claim: Claim, name: str, purpose: Purpose) -> str | None:
        async with self._database.tenant(claim.tenant_id) as tx:
            value, source = await self._vault.read(tx, claim.tenant_id, name), "store"
            if value is None:
                value, source = await self._file.read(claim.tenant_id, name), "file"
            found = value is not None
            event = audit.AuditEvent(
                actor=f"execution:{claim.execution_id}",
                action=audit.Action.SECRET_USE,
                outcome=audit.Outcome.SUCCESS if found else audit.Outcome.FAILURE,
                resource_type="secret",
                resource_id=name,
                metadata={
                    "execution": str(claim.execution_id),
                    "attempt": claim.attempt,
                    "purpose": purpose,
                    **({"source": source} if found else {}),
                },
            )
            audit.append(tx, claim.tenant_id, event)
        return value


class FileSecrets:
    """The operator's TOML file, a table for each tenant's id; a changed value needs no restart."""

    def __init__(self, path: Path | None) -> None:
        """Look at the file; raises SecretsUnreadable when others may read it, or it is not TOML."""
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
