"""The parts by which people get in: with a password, at the identity provider, as operators."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from runner.auth import open_sign_ins, throttle
from runner.auth.login import Logins
from runner.auth.oidc import Issuer, Trust
from runner.auth.open_sign_ins import OpenSignIns
from runner.auth.operating import OperatorRights
from runner.auth.passwords import Passwords
from runner.auth.provider import Client
from runner.auth.sessions import Lifetime
from runner.auth.sign_in import SignIns
from runner.auth.throttle import Throttle
from runner.base.settings import Settings
from runner.store.db import Database


@dataclass(frozen=True, slots=True)
class WaysIn:
    """How people log in, whose tokens count, and where people sign in, if anywhere else."""

    logins: Logins
    issuer: Issuer | None
    sign_ins: SignIns | None


@asynccontextmanager
async def ways_in(
    settings: Settings, database: Database, redis_url: SecretStr, lifetime: Lifetime
) -> AsyncIterator[WaysIn]:
    """Yield the ways in that the settings name."""
    async with (
        Throttle(redis_url, answer_s=settings.patient(throttle.ANSWER_S)) as counting,
        OpenSignIns(redis_url, answer_s=settings.patient(open_sign_ins.ANSWER_S)) as open_ones,
    ):
        logins = Logins(database, Passwords(), counting, lifetime)
        issuer = _issuer(settings, database)
        yield WaysIn(logins, issuer, _sign_ins(settings, issuer, logins, open_ones))


@dataclass(frozen=True, slots=True)
class Operating:
    """The operators' login of the database, and what their requests end with; None without it."""

    database: Database | None = None
    rights: OperatorRights | None = None


@asynccontextmanager
async def operating(url: SecretStr | None, lifetime: Lifetime) -> AsyncIterator[Operating]:
    """Yield the parts for operators' routes, if the settings name their login."""
    if url is None:
        yield Operating()
        return
    async with (
        Database(url, max_size=2) as database,
        # Its own connection, as that of tenants' rights.
        Database(url, max_size=1) as watching,
        OperatorRights(watching, idle=lifetime.idle) as rights,
    ):
        yield Operating(database, rights)


def _issuer(settings: Settings, database: Database) -> Issuer | None:
    """Return the identity provider whose tokens are taken, if the settings name one."""
    if not settings.oidc_issuer or not settings.oidc_audience:
        return None
    trust = Trust(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        tenant_claim=settings.oidc_tenant_claim,
        role_claim=settings.oidc_role_claim,
        roles=settings.oidc_roles,
        mcp_audience=settings.mcp_resource,
        members=settings.oidc_members,
    )
    return Issuer(trust, database)


def _sign_ins(
    settings: Settings, issuer: Issuer | None, logins: Logins, open_ones: OpenSignIns
) -> SignIns | None:
    """Return how people sign in at the provider, if it knows this deployment as a client."""
    client_id, callback = settings.oidc_client_id, settings.oidc_callback
    if issuer is None or client_id is None or callback is None:
        return None
    return SignIns(
        name=settings.oidc_name or urlsplit(issuer.provider.issuer).hostname or "",
        client=Client(client_id, callback, settings.oidc_client_secret),
        issuer=issuer,
        logins=logins,
        open=open_ones,
    )
