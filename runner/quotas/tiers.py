"""Quotas of a tenant: numbers by tier, and a tenant's own instead of them."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, ValidationError
from pydantic.dataclasses import dataclass as checked

from runner.words.complaints import complaint
from runner.words.errors import Invalid, SetupError
from runner.words.execution import JSON
from runner.words.principal import Tier
from runner.words.resources import Limits

MOST = 2**62
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Few = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Amount = Annotated[int, Field(ge=0, le=MOST)]


@checked(frozen=True, slots=True, config=ConfigDict(extra="forbid", strict=True))
class Quotas:
    """The quotas of a tenant. `weight` is its share of the slots while others wait, too."""

    concurrent: _Count
    queued: _Count
    cpu_s_per_day: Annotated[int, Field(ge=1, le=MOST)]
    egress_bytes_per_day: _Amount
    storage_bytes: _Amount
    stored_objects: _Amount
    max_size: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    weight: Annotated[int, Field(ge=1, le=1000)]
    sandboxes: _Few
    sandbox_memory_mb: _Few
    sandbox_hours_per_day: _Few
    snapshot_bytes: _Amount
    snapshot_days: Annotated[int, Field(ge=0, le=36_500)]
    """For how long snapshots are kept at most; 0 until somebody deletes them."""
    templates: _Few
    template_bytes: _Amount
    template_days: Annotated[int, Field(ge=0, le=36_500)]
    """For how long a template is kept that no tag stands for; 0 until somebody deletes it."""


_OVERRIDABLE = frozenset(Quotas.__dataclass_fields__) - {"concurrent"}


def load_tiers(profiles_dir: Path, sizes: Mapping[str, Limits]) -> dict[Tier, Quotas]:
    """Read `tiers.toml`. Raises SetupError that says what to correct."""
    path = profiles_dir / "tiers.toml"
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
        tiers = {Tier(name): Quotas(**table) for name, table in tables.items()}
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(f"{path}: cannot read the quotas of the tiers: {error}") from error
    if missing := sorted(set(Tier) - set(tiers)):
        raise SetupError(f"{path} lacks {', '.join(missing)}")
    for tier, quotas in tiers.items():
        if quotas.max_size not in sizes:
            raise SetupError(f"{path}: {tier}: there is no size {quotas.max_size!r}")
    return tiers


def overrides(given: Mapping[str, JSON], sizes: Mapping[str, Limits]) -> dict[str, JSON]:
    """Return a tenant's own quotas, checked. Raises Invalid with `field` set.

    How many of its executions run at once is not among them: `max_concurrency` says that.
    """
    for name in given:
        if name not in _OVERRIDABLE:
            known = ", ".join(sorted(_OVERRIDABLE))
            raise Invalid(f"there is no quota {name!r}; choose one of {known}", f"quotas.{name}")
    try:
        replace(_ANY, **given)
    except ValidationError as error:
        first = error.errors()[0]
        raise Invalid(complaint(first), f"quotas.{first['loc'][0]}") from None
    size = given.get("max_size")
    if size is not None and size not in sizes:
        raise Invalid(f"there is no size {size!r}", "quotas.max_size")
    return dict(given)


_ANY = Quotas(
    concurrent=1,
    queued=1,
    cpu_s_per_day=1,
    egress_bytes_per_day=0,
    storage_bytes=0,
    stored_objects=0,
    max_size="small",
    weight=1,
    sandboxes=0,
    sandbox_memory_mb=0,
    sandbox_hours_per_day=0,
    snapshot_bytes=0,
    snapshot_days=0,
    templates=0,
    template_bytes=0,
    template_days=0,
)


def ceiling(terms: Limits, quotas: Quotas, sizes: Mapping[str, Limits]) -> Limits:
    """Return the most that one execution may ask for, within the tenant's terms and its tier.

    A size that this process does not know sets no bounds; the terms still do.
    """
    size = sizes.get(quotas.max_size, terms)
    return Limits(**{name: min(value, getattr(size, name)) for name, value in _items(terms)})


def _items(limits: Limits) -> list[tuple[str, Any]]:
    return list(asdict(limits).items())
