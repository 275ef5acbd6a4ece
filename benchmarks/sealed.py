"""Signs a file of figures, with the key by which the deployment on this host signs its receipts.

Beside `performance.json` comes `performance.json.signed`: the file's digest, when it was signed,
and of which revision. Whoever has the host's public keys (`trusted-keys/` in its state folder,
`GET /v1/receipts/keys`) can check that the raw figures are those that were measured there. Usage:
`python -m benchmarks.sealed docs/performance.json [KEY.pub …]`.
"""

import hashlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.base.settings import Settings
from runner.base.signing import (
    BadSignature,
    PublicKey,
    Signer,
    TrustedKeys,
    read_public_key,
    verify,
)

KIND = "runner.figures.v1"


def beside(figures: Path) -> Path:
    """Return where the signature of a file is."""
    return figures.with_name(f"{figures.name}.signed")


def seal(figures: Path, signer: Signer, revision: str) -> None:
    """Sign a file as it is now."""
    body = {"sha256": _digest(figures), "at": datetime.now(UTC).isoformat(), "revision": revision}
    beside(figures).write_text(signer.sign(KIND, body) + "\n")


def check(figures: Path, keys: tuple[PublicKey, ...]) -> dict[str, Any]:
    """Return what the signature says of a file. Raises BadSignature if it is not this file's."""
    said = verify(beside(figures).read_text().rstrip("\n"), KIND, keys)
    if said["sha256"] != _digest(figures):
        raise BadSignature(f"{figures} has been changed since it was signed")
    return said


def _digest(figures: Path) -> str:
    return hashlib.sha256(figures.read_bytes()).hexdigest()


def main() -> int:
    """Check what the command line names; return the exit code."""
    figures, *named = map(Path, sys.argv[1:])
    keys = tuple(read_public_key(each.read_text()) for each in named)
    try:
        said = check(figures, keys or TrustedKeys(Settings().state_dir).read())
    except BadSignature as error:
        print(f"{figures}: {error}", file=sys.stderr)
        return 1
    print(f"{figures} is as it was signed at {said['at']}, of revision {said['revision']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
