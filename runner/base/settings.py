"""Everything an operator can set, read once from `RUNNER_*` variables and frozen.

Nothing else in the package reads the environment. Passwords inside URLs are `SecretStr`: they
do not appear in a repr, a log or an error.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    Field,
    IPvAnyNetwork,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from runner.base import forms
from runner.base.defaults import default_node, default_state_dir
from runner.base.identity_settings import IdentitySettings
from runner.base.rates import RateLimits
from runner.words.sandbox import Isolation

FIRST_SANDBOX_UID = 1000
"""Ids below this belong to users of the system itself (login.defs(5))."""
LAST_SANDBOX_UID = 2**31 - 1
"""The largest id that Docker takes."""

OciRuntime = Literal["auto", "runc", "crun"]

LIBRECHAT = "librechat"
"""The image that code of LibreChat's users runs in."""

_CREDENTIALS = {
    "database_superuser_url", "database_owner_url", "database_operator_url", "database_api_url",
    "database_worker_url", "redis_url", "secrets_key", "objects_access_key", "objects_secret_key",
    "audit_webhook_secret", "oidc_client_secret", "traces_headers",
}  # fmt: skip


class Settings(IdentitySettings, BaseSettings):
    """The deployment's configuration. Defaults suit one host with the embedded services."""

    model_config = SettingsConfigDict(
        env_prefix="RUNNER_",
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        enable_decoding=False,
    )

    node: str = Field(default_factory=default_node, pattern=r"^[A-Za-z0-9._-]{1,63}$")
    zone: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,63}$")
    """The place of this host, such as a data centre: the API prefers nodes of its own zone."""
    state_dir: Path = Field(default_factory=default_state_dir)

    database_superuser_url: forms.PostgresUrl | None = None
    """A superuser, for `runner backup` and `runner restore` alone: sees every tenant's rows."""
    database_owner_url: forms.PostgresUrl | None = None
    """Owner of the schema, for the operator's commands; neither API nor worker needs it."""
    database_operator_url: forms.PostgresUrl | None = None
    """Makes and ends tenants, for `runner tenants`; an API that has it serves `/operator/v1`."""
    database_api_url: forms.PostgresUrl | None = None
    """The API's login role: row-level security applies, no scheduling rights."""
    database_worker_url: forms.PostgresUrl | None = None
    """The worker's login role: row-level security applies, may claim and reap."""
    redis_url: forms.RedisUrl | None = None
    """Unset URLs mean the embedded services (`runner dev`, `make demo`)."""

    docker_url: forms.DockerUrl = "unix:///var/run/docker.sock"
    docker_timeout_s: forms.Seconds = 30.0
    patience: int = Field(default=1, ge=1, le=100)
    """Multiplies every wait on a part of this host: for slow, emulated or overloaded hosts."""
    images: tuple[forms.ImageName, ...] = Field(default=("python", "data"), min_length=1)
    """Names under `sandbox_images/` that executions may use; the first is the default."""
    template_images: dict[forms.ImageReference, forms.ImageName] = Field(
        default={"e2bdev/base": "base", "e2bdev/code-interpreter": "code-interpreter-v1"}
    )
    """Further names by which clients may ask for images, and which of ours each stands for."""
    isolation: tuple[Isolation, ...] = Field(
        default=(Isolation.CONTAINER, Isolation.GVISOR), min_length=1
    )
    """Isolation that executions may ask for, the default first; gVisor needs Docker's `runsc`."""
    oci_runtime: OciRuntime = "runc"
    """What starts sandboxes of isolation `container`; `auto` takes crun if it is fit."""
    profiles_dir: Path | None = None
    """Operator's own `profiles/`; unset means the shipped ones."""

    host: forms.Host = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    max_body_mb: int = Field(default=16, ge=1, le=256)
    max_queued: int = Field(default=100_000, ge=1)
    """Executions that may wait in the whole deployment; beyond it the API answers 503."""
    max_connections: int = Field(default=1000, ge=1, le=100_000)
    """Connections that known callers may hold at once, in shares; strangers may hold as many."""
    client_timeout_s: float = Field(default=10.0, ge=0.2, le=300)
    """Seconds a client may take to send a head, to pause in a body, and to read an answer."""
    cors_origins: tuple[forms.Origin, ...] = ()
    """Origins whose pages may call the API from a browser; none by default."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Networks of the proxies in front, whose `X-Forwarded-For` is believed."""
    ports_domain: forms.DomainName | None = None
    """Domain below which ports of sandboxes have names, all of which lead to the API."""
    sandbox_fusion: bool = False
    """Whether `POST /run_code` runs code in the form of SandboxFusion."""
    librechat: bool = False
    """Whether `/librechat/` runs code and keeps files for LibreChat, in the image `librechat`."""
    console: bool = True
    """Whether `/console` serves the pages for people, if they were built."""
    rate_limiting: bool = True
    rate_limits: RateLimits = RateLimits()

    slots: int = Field(default_factory=lambda: max(2, 2 * (os.cpu_count() or 1)), ge=1, le=256)
    """Executions this worker runs at once: one RQ consumer thread each."""
    pool: int = Field(default=4, ge=0, le=4096)
    """Sandboxes of the default kind that are started ahead and wait."""
    pool_max: int = Field(default=32, ge=0, le=4096)
    """The most sandboxes that wait, of all kinds; 0 starts none ahead."""
    pool_idle_s: forms.Seconds = 600.0
    """Seconds that a sandbox waits before a newer one replaces it."""
    pool_reserve_mb: int = Field(default=1024, ge=0)
    """Memory of the host that the pool leaves alone, in MiB."""
    reuse_runs: int = Field(default=400, ge=1)
    """The most executions that one sandbox serves, for a tenant that may reuse sandboxes."""
    reuse_age_s: forms.Seconds = 600.0
    """Seconds that a reused sandbox may live."""
    lease_s: forms.Seconds = Field(default=30.0, ge=2.0)
    max_attempts: int = Field(default=3, ge=1, le=10)
    reconcile_s: forms.Seconds = 2.0
    drain_s: float = Field(default=20.0, ge=0, le=86_400)
    """Seconds that a stopping worker lets running executions finish."""
    sandbox_uids: str = Field(default="70000:4096", pattern=r"^[1-9][0-9]{0,9}:[1-9][0-9]{0,5}$")
    """User ids that sandboxes run as, each one of its own: the first, and how many."""
    launch_timeout_s: forms.Seconds = 20.0
    sandboxes: int = Field(default=256, ge=0, le=4096)
    """Sandboxes that may live on this node at once, beside those of executions."""
    sandbox_alone_s: int = Field(default=600, ge=1, le=86_400)
    """How long a living sandbox goes on without its worker, which may be restarted meanwhile."""
    sandbox_reserve_mb: int = Field(default=512, ge=0)
    """Memory of the host, in MiB, for which paused sandboxes are evicted if tenants chose so."""
    template_images_mb: int = Field(default=20_480, ge=0)
    sandboxes_on_stop: Literal["leave", "end"] = "leave"
    """Fate of living sandboxes when their worker stops: left to the next worker, or ended."""
    door_gid: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """Group that may knock at the worker's door: the API's, if it runs as another user."""
    door_address: forms.Place | None = None
    """`host:port` where APIs of other hosts reach this worker's door; needs certificates."""
    worker_metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of 127.0.0.1 where the worker answers `/metrics`; none by default."""
    output_flood_mb: int = Field(default=256, ge=1)
    """Output beyond this ends the execution; output between `output_kb` and this is dropped."""
    max_artifacts: int = Field(default=64, ge=0, le=1024)

    egress_uid: int = Field(default=10002, ge=1)
    """User id of the egress proxy's process, when the worker may choose one (as root)."""
    egress_trusted_networks: tuple[forms.Network, ...] = ()
    """Networks that may be reached although they are private, such as `10.2.0.0/16`."""
    egress_hosts: dict[str, forms.Address] = Field(default_factory=dict)
    """Addresses of names that the proxy does not look up."""
    egress_roots: Path | None = None
    """Certificates (PEM) of further authorities that servers may be signed by."""
    egress_secrets: Path | None = None
    """TOML file with a table for each tenant's id: values of the secrets that rules inject."""

    secrets_key: SecretStr | None = None
    """Keys that seal tenants' secrets: base64 of 32 bytes each, the newest first."""
    secrets_key_file: Path | None = None
    """File with such keys; the embedded stack makes one below `state_dir`."""

    objects_url: str | None = None
    """The place of objects, such as `s3://bucket/prefix`; if unset, a folder of `state_dir`."""
    objects_endpoint: forms.HttpUrl | None = None
    """Address of an S3-compatible server that is not Amazon's."""
    objects_region: str = "us-east-1"
    objects_access_key: SecretStr | None = None
    objects_secret_key: SecretStr | None = None
    """For S3; if unset, the platform's credentials (`AWS_*` variables, instance and pod roles)."""
    max_file_mb: int = Field(default=1024, ge=1, le=5 * 1024)
    """The largest file that one upload may store."""
    retention_days: int = Field(default=30, ge=0, le=36_500)
    """Days that ended executions are kept, unless a tenant has its own number; 0: for ever."""
    retention_every_s: forms.Seconds = 60.0
    audit_checkpoint_s: forms.Seconds = 60.0
    """How old the newest checkpoint of a chain that has grown may be."""
    audit_webhook_url: str | None = None
    """`https://` address that gets every audit record of the deployment."""
    audit_webhook_secret: SecretStr | None = None
    """Signs what is sent there: `whsec_` and base64, as in Standard Webhooks."""
    audit_syslog_url: str | None = None
    """`tcp://host:port` or `tls://host:port` of a syslog receiver that gets every audit record."""
    audit_trusted_networks: tuple[forms.Network, ...] = ()
    """Private networks that these two may be in; sandboxes and tenants cannot reach them."""

    traces_url: forms.HttpUrl | None = None
    """Where spans are sent by OTLP over HTTP; without it, there is no tracing."""
    traces_headers: forms.Headers | None = None
    """Headers that the collector demands, as a JSON object."""
    traces_ratio: float = Field(default=1.0, ge=0, le=1)
    """The share of requests that are traced, of those whose client does not decide it."""
    traces_per_minute: int = Field(default=600, ge=0)
    """The most requests of one tenant that one API process traces in a minute."""

    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    _from_json = field_validator(
        "images", "template_images", "isolation", "cors_origins", "trusted_proxies", "rate_limits",
        "oidc_roles", "egress_trusted_networks", "egress_hosts", "audit_trusted_networks",
        mode="before",
    )(forms.from_json)  # fmt: skip

    @model_validator(mode="after")
    def _sound(self) -> Self:
        self._check_sandbox_uids()
        if self.insecure_cookies and not forms.is_this_host(self.host):
            raise ValueError("RUNNER_INSECURE_COOKIES needs RUNNER_HOST to be a loopback address")
        self.check_identity()
        if self.librechat and LIBRECHAT not in self.images:
            raise ValueError(f"RUNNER_LIBRECHAT needs the image {LIBRECHAT!r} in RUNNER_IMAGES")
        return self

    def _check_sandbox_uids(self) -> None:
        uids = self.sandbox_uid_range
        if uids[0] < FIRST_SANDBOX_UID or uids[-1] > LAST_SANDBOX_UID:
            raise ValueError(
                f"RUNNER_SANDBOX_UIDS must lie from {FIRST_SANDBOX_UID} to {LAST_SANDBOX_UID}"
            )
        if self.egress_uid in uids:
            raise ValueError("RUNNER_SANDBOX_UIDS must not hold RUNNER_EGRESS_UID")
        if len(uids) < self.most_sandboxes:
            raise ValueError(
                f"RUNNER_SANDBOX_UIDS names {len(uids)} ids; at least {self.most_sandboxes} are "
                "needed, one for each of RUNNER_SLOTS + RUNNER_SANDBOXES + 3 * RUNNER_POOL_MAX"
            )

    @property
    def most_sandboxes(self) -> int:
        """How many may exist at once: running, living, waiting (fresh or to be reused), removed."""
        return self.slots + self.sandboxes + 3 * self.pool_max

    @property
    def sandbox_uid_range(self) -> range:
        """The user ids that sandboxes may run as."""
        first, count = map(int, self.sandbox_uids.split(":"))
        return range(first, first + count)

    def as_environment(self) -> dict[str, str]:
        """Return the variables from which a child process reads the same settings.

        The services' URLs and keys are not among them: each process is given its own.
        """
        values = self.model_dump(mode="json", exclude_none=True, exclude=_CREDENTIALS)
        return {
            f"RUNNER_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in values.items()
        }

    def patient(self, seconds: float) -> float:
        """Return how long to wait for a part of this host that needs `seconds` elsewhere.

        Not for what clients, tenants or leases count on: see docs/operations/configuration.md.
        """
        return seconds * self.patience

    @property
    def node_id(self) -> str:
        """The host and the state folder, so that two deployments on one host stay apart."""
        folder = hashlib.sha256(str(self.state_dir.absolute()).encode()).hexdigest()[:8]
        return f"{self.node}-{folder}"

    @property
    def run_dir(self) -> Path:
        """Sockets and pid files: short-lived, private to this host."""
        return self.state_dir / "run"

    @property
    def door_dir(self) -> Path:
        """The socket at which the API reaches this host's worker."""
        return self.run_dir / "door"

    @property
    def door_certificates(self) -> Path:
        """The files that identify this host at doors that other hosts reach."""
        return self.state_dir / "door"

    @property
    def secrets_key_path(self) -> Path:
        """File with the keys that seal tenants' secrets, unless the environment holds them."""
        return self.secrets_key_file or self.state_dir / "keys" / "secrets.kek"

    @property
    def objects_dir(self) -> Path:
        """Root of the local object store."""
        return self.state_dir / "objects"

    @property
    def profiles_path(self) -> Path:
        """The folder of sizes and seccomp profiles."""
        return self.profiles_dir or project_root() / "profiles"

    @property
    def console_path(self) -> Path:
        """Where the console's build leaves its files."""
        return project_root() / "console" / "dist"

    @property
    def recipes_path(self) -> Path:
        """The folder of the recipes of sandbox images."""
        return project_root() / "sandbox_images"


class ClientSettings(BaseSettings):
    """The deployment that the command line talks to."""

    model_config = SettingsConfigDict(env_prefix="RUNNER_", frozen=True, extra="ignore")

    url: str | None = None
    api_key: SecretStr | None = None


class ClaudeSettings(BaseSettings):
    """The work that `runner agents claude` may fetch. Anthropic's package has given the name."""

    model_config = SettingsConfigDict(env_prefix="ANTHROPIC_", frozen=True, extra="ignore")

    environment_key: SecretStr | None = None


def project_root() -> Path:
    """Return the folder that holds `profiles/` and `sandbox_images/` beside this package."""
    return Path(__file__).resolve().parents[2]


def set_variables() -> tuple[str, ...]:
    """Return the names of this process's variables that begin as those of settings do."""
    return tuple(name for name in os.environ if name.startswith("RUNNER_"))
