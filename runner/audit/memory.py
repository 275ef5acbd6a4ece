"""Seals that this worker has made, kept outside the database: one small file for each chain.

A file holds the newest checkpoint as it was signed. If somebody rewrites a chain and removes its
checkpoints from the database, the worker still refuses to seal a chain that does not pass through
the checkpoint in the file.
"""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from runner.base.signing import replace_file


@dataclass(frozen=True, slots=True)
class Memory:
    """Checkpoints by tenant, in `sealed/` of the state folder."""

    state_dir: Path

    def get(self, tenant: UUID) -> str | None:
        """Return the newest checkpoint that was put; None if there is none."""
        try:
            return self._path(tenant).read_text("utf-8", "replace")
        except FileNotFoundError:
            return None

    def put(self, tenant: UUID, document: str) -> None:
        """Remember this checkpoint instead of the previous one."""
        path = self._path(tenant)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, document.encode(), 0o600)

    def forget(self, tenant: UUID) -> bool:
        """Forget one chain, after a restore from a backup; return whether it was known."""
        known = self._path(tenant).exists()
        self._path(tenant).unlink(missing_ok=True)
        return known

    def _path(self, tenant: UUID) -> Path:
        return self.state_dir / "sealed" / f"{tenant}.json"
