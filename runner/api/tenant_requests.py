"""What an operator may ask for a tenant: terms, a suspension, a key."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from runner.api.deps import Dependencies
from runner.api.fields import Name, Strict, Text
from runner.api.rules import EgressEntry, entries
from runner.egress.policy import rule_to_json
from runner.quotas.tiers import overrides
from runner.store.tenants import Terms
from runner.tenants.policies import permitted
from runner.words.errors import Invalid
from runner.words.principal import Role, Tier
from runner.words.sandbox import Isolation

STORED_AS: Mapping[str, str] = MappingProxyType({"max_size": "max_limits"})
"""Terms that have another name where they are stored: a size is stored as its limits."""


class TermsBody(Strict):
    """The terms of a tenant."""

    tier: Annotated[Tier, Field(strict=False)] = Tier.FREE
    max_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="How many executions may run at once; by default the tier's number.",
    )
    quotas: dict[str, int | str] = Field(
        default_factory=dict,
        max_length=16,
        description="Quotas that replace the tier's: `queued`, `cpu_s_per_day`, "
        "`egress_bytes_per_day`, "
        "`storage_bytes`, `max_size`, `weight`.",
    )
    max_size: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = Field(
        default="large", description="The size whose limits no execution may exceed."
    )
    required_isolation: Literal["gvisor"] | None = Field(
        default=None,
        description="The isolation that its executions must use; by default they may choose.",
    )
    egress_ceiling: list[EgressEntry] | None = Field(
        default=None,
        max_length=256,
        description="Rules that bound the tenant's own, in addition to the deployment's ceiling.",
    )
    retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Days for which ended executions are kept; by default as in the deployment.",
    )

    reuse: bool = Field(
        default=False,
        description="Whether its executions may ask for a sandbox that serves several in turn.",
    )

    def terms(self, parts: Dependencies) -> Terms:
        """Return the terms. Raises Invalid for an unknown size, or a rule beyond the ceiling."""
        if self.max_size not in parts.sizes:
            known = ", ".join(sorted(parts.sizes))
            raise Invalid(f"there is no size {self.max_size!r}; choose one of {known}", "max_size")
        ceiling = self.egress_ceiling
        return Terms(
            tier=self.tier,
            max_concurrency=self.max_concurrency,
            max_limits=parts.sizes[self.max_size],
            required_isolation=self.required_isolation and Isolation(self.required_isolation),
            egress_ceiling=None
            if ceiling is None
            else tuple(
                rule_to_json(rule)
                for rule in permitted(
                    entries(ceiling), (parts.egress_ceiling,), field="egress_ceiling"
                )
            ),
            retention_days=self.retention_days,
            quotas=overrides(self.quotas, parts.sizes),
            reuse=self.reuse,
        )


def _without_defaults(schema: dict[str, Any]) -> None:
    """Describe no defaults: a client that fills them in would change what it did not mean to."""
    for each in schema["properties"].values():
        each.pop("default", None)
    schema["examples"] = [{"tier": "pro"}]


class TermsChange(TermsBody):
    """Terms to change; those that are left out stay as they are."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    def on(self, before: Terms, parts: Dependencies) -> Terms:
        """Return the terms `before` with these changes. Raises what `terms` raises."""
        wanted = self.terms(parts)
        names = {STORED_AS.get(name, name) for name in self.model_fields_set}
        return replace(before, **{name: getattr(wanted, name) for name in names})


class NewTenant(TermsBody):
    """A tenant to make."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "acme", "tier": "pro", "max_concurrency": 16}]}
    )

    name: Name = Field(description="Unique in the deployment; cannot be changed.")


class Suspension(Strict):
    """The reason why a tenant is suspended. The tenant sees it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "unpaid since June"}]})

    why: Annotated[Text, StringConstraints(min_length=1, max_length=512)]


class NewKeyOf(Strict):
    """A key to make for a tenant that has lost its own."""

    name: Annotated[Text, StringConstraints(min_length=1, max_length=128)] = "made by the operator"
    role: Annotated[Role, Field(strict=False)] = Role.OWNER
