"""Requests to E2B's control plane: strict types, with bounds on everything.

Fields that this deployment does not support are known by name, so that they are refused with a
reason; fields that nobody knows are refused as in every other request.
"""

from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from runner.api.fields import EnvName, Strict, Text
from runner.api.requests import MAX_ENV
from runner.api.sandbox_requests import MAX_METADATA, MAX_TIMEOUT_S
from runner.api.snapshots import MOST_COPIES

DEFAULT_S = 300
FIRST_DEFAULT_S = 15
"""The default of the interface's first version, whose clients send a time of their own."""
MAX_DESTINATIONS = 64

Timeout = Annotated[int, Field(ge=0, le=MAX_TIMEOUT_S)]
TemplateName = Annotated[Text, StringConstraints(min_length=1, max_length=256)]
Destination = Annotated[Text, StringConstraints(min_length=1, max_length=300)]
# Their clients take any text as a label's name.
Metadata = Annotated[
    dict[
        Annotated[Text, StringConstraints(min_length=1, max_length=64)],
        Annotated[Text, StringConstraints(max_length=512)],
    ],
    Field(max_length=MAX_METADATA),
]


class E2bBody(Strict):
    """Base of E2B's bodies, whose fields are written in camel case."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False)


def lacks(reason: str) -> BeforeValidator:
    """Return what refuses a field of E2B's that has a value: this deployment lacks what it is."""

    def refuse(value: object) -> None:
        if value:
            raise ValueError(f"is not supported here: {reason}")

    return BeforeValidator(refuse)


class AutoResume(E2bBody):
    """The choice whether traffic resumes a paused sandbox."""

    enabled: bool


class NetworkRules(E2bBody):
    """The hosts that processes in a sandbox may reach."""

    allow_out: list[Destination] = Field(default_factory=list, max_length=MAX_DESTINATIONS)
    deny_out: list[Destination] = Field(default_factory=list, max_length=MAX_DESTINATIONS)
    dns_servers: Annotated[None, lacks("the egress proxy looks names up")] = None
    egress_proxy: Annotated[None, lacks("the egress proxy is the deployment's own")] = None
    rules: Annotated[None, lacks("set headers by `inject` in an egress policy")] = None


class Network(NetworkRules):
    """The hosts that a sandbox may reach, and those who may reach it."""

    allow_public_traffic: Annotated[
        None, lacks("open ports one by one by POST /v1/sandboxes/{id}/ports/{port}")
    ] = None
    mask_request_host: Annotated[None, lacks("servers inside see the name asked for")] = None
    https_ports: Annotated[None, lacks("servers inside are reached by plain HTTP")] = None


class NetworkChange(NetworkRules):
    """The hosts that processes may reach from now on; fields that are left out permit nothing."""

    allow_internet_access: Annotated[bool | None, Field(alias="allow_internet_access")] = None


class E2bSandbox(E2bBody):
    """A sandbox to make."""

    template_id: Annotated[TemplateName, Field(alias="templateID")]
    timeout: Timeout = DEFAULT_S
    auto_pause: bool = False
    auto_pause_memory: bool = True
    auto_resume: AutoResume | None = None
    allow_internet_access: Annotated[bool | None, Field(alias="allow_internet_access")] = None
    network: Network | None = None
    metadata: Metadata = Field(default_factory=dict)
    env_vars: dict[EnvName, Annotated[Text, StringConstraints(max_length=8192)]] = Field(
        default_factory=dict, max_length=MAX_ENV
    )
    mcp: Annotated[None, lacks("there is no MCP gateway in sandboxes")] = None
    iam: Annotated[None, lacks("there are no workload identities")] = None
    volume_mounts: Annotated[None, lacks("there are no volumes")] = None

    @field_validator("network", mode="before")
    @classmethod
    def _public_unsaid(cls, network: Any) -> Any:
        """Take public traffic for unsaid: clients ask for it unless they were told not to."""
        if isinstance(network, dict) and network.get("allowPublicTraffic") is True:
            return {name: value for name, value in network.items() if name != "allowPublicTraffic"}
        return network

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if not self.auto_pause_memory:
            raise ValueError(
                "autoPauseMemory is not supported here: a paused sandbox keeps its memory"
            )
        return self

    @property
    def internet(self) -> bool | None:
        """Whether it asks for internet access; None if it leaves that to the tenant."""
        return self.allow_internet_access


class E2bFirstSandbox(E2bSandbox):
    """A sandbox to make, in the first version of the interface. All traffic is secured."""

    timeout: Timeout = FIRST_DEFAULT_S
    secure: bool | None = None

    @property
    def internet(self) -> bool | None:
        """Whether it asks for internet access. These clients say yes unless they were told no."""
        return False if self.allow_internet_access is False else None


class Connecting(E2bBody):
    """For how long a sandbox is to live from now on."""

    timeout: Timeout = DEFAULT_S
    memory: bool = True

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if not self.memory:
            raise ValueError("memory: a sandbox cannot be resumed without its memory here")
        return self


class Resuming(Connecting):
    """As clients of early versions resume a sandbox."""

    timeout: Timeout = FIRST_DEFAULT_S
    auto_pause: bool | None = None


class Timing(E2bBody):
    """For how long a sandbox is to live from now on."""

    timeout: Timeout


class Refreshing(E2bBody):
    """For how long a sandbox is to live at least."""

    duration: Annotated[int, Field(ge=0, le=3600)] = FIRST_DEFAULT_S


class Pausing(E2bBody):
    """The way in which a sandbox is to be paused."""

    memory: bool = True
    require_healthy_guest: bool = False

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if not self.memory:
            raise ValueError("memory: a paused sandbox keeps its memory here; take a snapshot")
        return self


class E2bSnapshot(E2bBody):
    """A snapshot to take: of the files only, as E2B's are with `memory: false`."""

    name: Annotated[Text, StringConstraints(min_length=1, max_length=256)] | None = None
    memory: bool | None = None

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if self.memory:
            raise ValueError("memory: a snapshot keeps the files of a sandbox here, not its memory")
        return self


class NewForks(E2bBody):
    """Copies of a sandbox to make."""

    timeout: Timeout = FIRST_DEFAULT_S
    count: Annotated[int, Field(ge=1, le=MOST_COPIES)] = 1
