"""Formats sizes, times and numbers for people; `--json` prints them exactly."""

from datetime import UTC, datetime, timedelta

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS = ((86_400, "d"), (3600, "h"), (60, "min"))
STEP = 1024
TEN = 10


def size(count: float) -> str:
    """Return a number of bytes in the largest unit of which there is at least one."""
    for unit in _UNITS:
        if round(count) < STEP or unit == _UNITS[-1]:
            break
        count /= STEP
    return f"{count:.0f} {unit}" if unit == "B" or count >= TEN else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a span of time in its two largest units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < TEN:
        return f"{seconds:.2f} s"
    left = round(seconds)
    parts: list[tuple[int, str]] = []
    for length, unit in (*_SPANS, (1, "s")):
        count, left = divmod(left, length)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)


def number(value: float) -> str:
    """Return a number with separated thousands, and three digits after the point if any."""
    return f"{round(value):,}" if value == round(value) or value >= STEP else f"{value:.3g}"


def quantity(name: str, value: float) -> str:
    """Return a value of the API in the unit that its name implies, or as a plain number."""
    if "bytes" in name.split("_"):
        return size(value)
    if name.endswith("_mb"):
        return size(value * STEP * STEP)
    if name.endswith(("_s", "_s_per_day")) and not name.endswith("gib_s"):
        return duration(value)
    return number(value)


def moment(text: str) -> str:
    """Return a time of the API to the second, in UTC as the API writes it."""
    at = datetime.fromisoformat(text).astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}"


def age(text: str, now: datetime | None = None) -> str:
    """Return how long ago a time of the API was, in one unit."""
    return f"{_span((now or datetime.now(UTC)) - datetime.fromisoformat(text))} ago"


def ahead(text: str, now: datetime | None = None) -> str:
    """Return in how long a time of the API will be, in one unit."""
    return f"in {_span(datetime.fromisoformat(text) - (now or datetime.now(UTC)))}"


def _span(time: timedelta) -> str:
    seconds = max(time.total_seconds(), 0)
    for length, unit in _SPANS:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
