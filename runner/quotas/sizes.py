"""Limits of one execution: sizes by name, and a request's changes to them within a ceiling."""

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from runner.words.errors import Invalid, SetupError
from runner.words.resources import Limits

DEFAULT_SIZE = "small"

FLOOR = Limits(cpu=0.05, memory_mb=32, pids=8, disk_mb=1, timeout_s=0.1, output_kb=1)
"""Below these a sandbox does not start: the supervisor and one interpreter need as much."""

_ADAPTER = TypeAdapter(Limits)
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def load_sizes(profiles_dir: Path) -> dict[str, Limits]:
    """Read every `limits/<size>.toml`. Raises SetupError that names the file and the remedy."""
    folder = profiles_dir / "limits"
    sizes = {path.stem: _load(path) for path in sorted(folder.glob("*.toml"))}
    if DEFAULT_SIZE not in sizes:
        raise SetupError(
            f"{folder} holds no {DEFAULT_SIZE}.toml: run from a checkout, "
            "or point RUNNER_PROFILES_DIR at a folder with limits/ and seccomp/"
        )
    return sizes


def _load(path: Path) -> Limits:
    if not _NAME.fullmatch(path.stem):
        raise SetupError(f"{path}: a size is named by lower-case letters, digits and hyphens")
    try:
        limits = _ADAPTER.validate_python(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} is not a size of limits: {error}") from error
    for name, value in dataclasses.asdict(limits).items():
        if not math.isfinite(value) or value < getattr(FLOOR, name):
            raise SetupError(f"{path}: {name} must be at least {getattr(FLOOR, name):g}")
    return limits


def resolve_limits(size: Limits, overrides: Mapping[str, float], ceiling: Limits) -> Limits:
    """Return the size with the request's changes.

    Raises Invalid with `field` set if a name is unknown, or if a value is below what a sandbox
    needs or above the ceiling. The ceiling also limits a size's own values.
    """
    wanted: dict[str, float] = {**dataclasses.asdict(size)}
    for name, value in overrides.items():
        if name not in wanted:
            raise Invalid(f"there is no limit named {name!r}", field=f"limits.{name}")
        whole = isinstance(wanted[name], int)
        if not math.isfinite(value) or (whole and value != int(value)):
            kind = "a whole" if whole else "a finite"
            raise Invalid(f"{name} must be {kind} number", field=f"limits.{name}")
        wanted[name] = int(value) if whole else float(value)
    for name, value in wanted.items():
        least, most = getattr(FLOOR, name), getattr(ceiling, name)
        if not least <= value <= most:
            raise Invalid(
                f"{name} is {value:g}; between {least:g} and {most:g} is possible",
                field=f"limits.{name}" if name in overrides else "size",
            )
    return _ADAPTER.validate_python(wanted)
