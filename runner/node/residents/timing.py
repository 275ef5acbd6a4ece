"""How long a sandbox may live: which of its limits comes next, and what its end then says."""

from datetime import UTC, datetime

from runner.words.lives import EndReason
from runner.words.living import StoredSandbox


def next_limit(sandbox: StoredSandbox, *, expired: bool) -> tuple[datetime | None, EndReason]:
    """Return when the next limit is reached, and which one; `expired` if its time was up before."""
    ends, lives = sandbox.expires_at, sandbox.lives_until
    if ends is None or expired:
        return lives, EndReason.MAX_LIFE
    # If it could not be paused, its time stays up.
    if lives is not None and (lives < ends or lives <= datetime.now(UTC)):
        return lives, EndReason.MAX_LIFE
    return ends, EndReason.EXPIRED


def why_over(sandbox: StoredSandbox, reason: EndReason) -> str:
    """Return what its record says if one of its limits has ended it."""
    if reason is EndReason.EXPIRED and sandbox.timeout_s is not None:
        return f"its time was up: {sandbox.timeout_s:g} s"
    return "it has lived for as long as it may"
