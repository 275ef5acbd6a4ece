"""The part of the settings that is about people: their sessions, and their identity provider."""

from pydantic import BaseModel, Field, SecretStr

from runner.base import forms
from runner.words.principal import Role


class IdentitySettings(BaseModel):
    """Settings of sessions and of an OpenID Connect provider; `Settings` reads them."""

    session_idle_s: float = Field(default=1800.0, ge=1, le=30 * 86_400)
    """A user's session ends when nobody has used it for this many seconds."""
    session_max_s: float = Field(default=43_200.0, ge=1, le=90 * 86_400)
    insecure_cookies: bool = False
    """Sessions over plain HTTP, for development on this host: refused on any other address."""
    oidc_issuer: forms.IssuerUrl | None = None
    """Identity provider whose tokens are accepted; over HTTPS, unless it is on this host."""
    oidc_audience: str | None = Field(default=None, min_length=1, max_length=256)
    oidc_tenant_claim: str = Field(default="tenant", min_length=1, max_length=256)
    oidc_role_claim: str = Field(default="role", min_length=1, max_length=256)
    oidc_roles: dict[str, Role] = Field(default_factory=lambda: {role.value: role for role in Role})
    """Roles by the values of the claim that stand for them."""
    oidc_members: bool = False
    """Whether a token stands for a member, linked by `runner members link`, with their role."""
    oidc_client_id: str | None = Field(default=None, pattern=r"^[\x20-\x7e]{1,256}$")
    """What the provider calls this deployment; with it, people sign in to the console there."""
    oidc_client_secret: SecretStr | None = Field(default=None, min_length=1, max_length=1024)
    """Proves to the provider that it is this deployment; public clients have none."""
    oidc_callback: forms.CallbackUrl | None = None
    """Where the provider sends people back to, exactly as it is registered there."""
    oidc_name: str | None = Field(default=None, min_length=1, max_length=64)
    """What the console calls the provider; by default, its host."""
    mcp_resource: forms.McpUrl | None = None
    """The address of `/mcp` for clients that log in elsewhere, and the audience of their tokens."""

    def check_identity(self) -> None:
        """Raise ValueError if these settings do not fit together."""
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("RUNNER_OIDC_ISSUER and RUNNER_OIDC_AUDIENCE are set together")
        if self.mcp_resource is not None and self.oidc_issuer is None:
            raise ValueError("RUNNER_MCP_RESOURCE needs RUNNER_OIDC_ISSUER")
        if (self.oidc_client_id is None) != (self.oidc_callback is None):
            raise ValueError("RUNNER_OIDC_CLIENT_ID and RUNNER_OIDC_CALLBACK are set together")
        if self.oidc_client_secret is not None and self.oidc_client_id is None:
            raise ValueError("RUNNER_OIDC_CLIENT_SECRET needs RUNNER_OIDC_CLIENT_ID")
        if self.oidc_client_id is not None and not (self.oidc_issuer and self.oidc_members):
            # A session belongs to a membership and ends with it; claims alone make no member.
            raise ValueError(
                "RUNNER_OIDC_CLIENT_ID needs RUNNER_OIDC_ISSUER and RUNNER_OIDC_MEMBERS=true: "
                "whoever signs in to the console is a member here"
            )
