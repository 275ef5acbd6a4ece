"""Requests of clients to change a living sandbox."""

from typing import Annotated

from pydantic import ConfigDict, Field

from runner.api.fields import Name, Strict
from runner.api.rules import EgressEntry, entries
from runner.api.sandbox_requests import Metadata, Seconds
from runner.sandboxes.egress import EgressOrder
from runner.store.sandboxes import LifeChange
from runner.words.lives import OnShortage


class SandboxChange(Strict):
    """A change of a sandbox; fields that are left out stay as they are."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"timeout_s": 900}, {"metadata": {"step": "2"}}]}
    )

    timeout_s: Seconds | None = Field(
        default=None, description="How many seconds from now it lives; null for no end."
    )
    metadata: Metadata | None = Field(default=None, description="Labels in place of all it has.")
    on_shortage: Annotated[OnShortage, Field(strict=False)] | None = Field(
        default=None,
        description="What becomes of it if its host is short of memory while it is paused: `keep` "
        "or `snapshot`.",
    )
    egress: list[EgressEntry] | None = Field(
        default=None,
        max_length=64,
        description="Rules in place of all that it has; an empty list permits nothing any more.",
    )
    egress_policy: Name | None = Field(
        default=None,
        description="A named egress policy, whose rules are added to `egress`. With this field or "
        "`egress`, what the sandbox had before is gone.",
    )

    def egress_order(self) -> EgressOrder | None:
        """Return the rules that are wanted; None if they are to stay as they are."""
        if not self.model_fields_set & {"egress", "egress_policy"}:
            return None
        return EgressOrder(entries(self.egress or []), self.egress_policy)

    def change(self) -> LifeChange:
        """Return the change. A null `timeout_s` means no limit; one left out means no change."""
        return LifeChange(
            sets_timeout="timeout_s" in self.model_fields_set,
            timeout_s=self.timeout_s,
            metadata=self.metadata,
            on_shortage=self.on_shortage,
        )
