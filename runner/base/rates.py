"""How often callers may send requests, as the operator sets it."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from runner.words.principal import Tier

SUSTAINED_MINUTES = 5


class Rate(BaseModel):
    """The rate at which a caller may send requests: at most `burst` in any minute.

    Over a longer time it is `per_minute`, counted over any five minutes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_minute: int = Field(ge=1, le=100_000)
    burst: int = Field(ge=1, le=500_000)

    def times(self, factor: int) -> "Rate":
        """Return a rate `factor` times as high; it may exceed what an operator can set."""
        if factor == 1:
            return self
        return self.model_copy(
            update={"per_minute": factor * self.per_minute, "burst": factor * self.burst}
        )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.per_minute <= self.burst <= SUSTAINED_MINUTES * self.per_minute:
            raise ValueError(f"burst must be from per_minute to {SUSTAINED_MINUTES} times that")
        return self


class RateLimits(BaseModel):
    """Rates for strangers by address, and for principals by their tenant's tier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    anonymous: Rate = Rate(per_minute=10, burst=20)
    operations: Rate = Rate(per_minute=600, burst=600)
    """For `/readyz` and `/metrics`, which ask PostgreSQL and need no key."""
    free: Rate = Rate(per_minute=60, burst=100)
    pro: Rate = Rate(per_minute=300, burst=500)
    enterprise: Rate = Rate(per_minute=3000, burst=5000)

    def of(self, tier: Tier) -> Rate:
        """Return a tier's rate."""
        return {Tier.FREE: self.free, Tier.PRO: self.pro, Tier.ENTERPRISE: self.enterprise}[tier]
