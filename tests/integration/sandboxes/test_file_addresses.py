"""Signed addresses of files: what each lends, and that nothing else than that is taken for one.

Every refusal is tried again without the control that makes it, and is then none.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from uuid import UUID

import pytest

from runner.audit import events as audit
from runner.audit.events import Filter, Origin
from runner.auth import keys
from runner.auth.caller import Caller
from runner.auth.rights import Rights
from runner.base.settings import Settings
from runner.door.client import Door
from runner.door.grants import MOST_S
from runner.egress.policy import Policy
from runner.fleet.directory import NodeDirectory
from runner.quotas.sizes import load_sizes
from runner.sandboxes import addresses
from runner.sandboxes.addresses import AddressedFile, FileAddresses, FileOperation
from runner.sandboxes.catalogue import Catalogue
from runner.sandboxes.living import LivingSandboxes
from runner.sandboxes.order import LivingOrder
from runner.sandboxes.place import SandboxPlaces
from runner.secrets.keyring import KeyRing
from runner.secrets.vault import Vault
from runner.store import keys as stored_keys
from runner.store import rights as stored_rights
from runner.store.db import Database
from runner.store.keys import Grant
from runner.words.errors import Gone, NotAuthenticated, NotFound
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role
from runner.words.sandbox import Isolation
from tests.integration.store.conftest import new_tenant
from tests.support.played_node import played_node

NANO = LivingOrder(size="nano", limits={"pids": 8, "memory_mb": 64, "disk_mb": 8})
PATH = "out/Bericht ä &.pdf"
HERE = Origin(ip="203.0.113.7")
READ, WRITE = FileOperation


@dataclass
class Signed:
    """An address of a sandbox's file that may be read, and what made it."""

    signing: FileAddresses
    living: LivingSandboxes
    caller: Caller
    sandbox: UUID
    token: str

    async def used(
        self,
        *,
        token: str | None = None,
        path: str = PATH,
        sandbox: UUID | None = None,
        operation: FileOperation | None = READ,
        origin: Origin = HERE,
    ) -> AddressedFile:
        """Use the address, with whatever else is given."""
        return await self.signing.read(
            self.token if token is None else token,
            path,
            str(sandbox or self.sandbox),
            operation,
            origin,
        )

    async def recorded(self) -> list[dict[str, object]]:
        """Return the facts of each use on record."""
        async with self.signing.database.tenant(self.caller.tenant_id) as tx:
            found = await audit.list_after(tx, 0, Filter(action="sandbox:address_use"), 100)
        bodies = [json.loads(each.body) for each in found]
        assert all(each["outcome"] == "denied" for each in bodies)
        return [each["metadata"] for each in bodies]


async def key_of(database: Database, tenant: UUID, grant: Grant) -> Caller:
    """Return a caller with a new key."""
    made, id_ = keys.generate(), new_id()
    async with database.tenant(tenant) as tx:
        await stored_keys.insert(
            tx,
            key_id=id_,
            prefix=made.prefix,
            hash_=made.hash,
            name="test",
            grant=grant,
            created_by="test",
        )
    principal = Principal(tenant, id_, PrincipalKind.KEY, made.prefix, grant.role)
    return Caller(principal, HERE)


@pytest.fixture
async def signed(
    api: Database,
    owner: Database,
    worker: Database,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Signed]:
    """Return an address that was signed with a developer's key, good for a minute."""
    name = request.node.name.removeprefix("test_").replace("_", "-").partition("[")[0]
    tenant = await new_tenant(owner, f"{name[:40].rstrip('-')}-{str(new_id())[-6:]}")
    caller = await key_of(api, tenant, Grant(Role.DEVELOPER))
    catalogue = Catalogue(
        sizes=load_sizes(Settings().profiles_path),
        images={"python": frozenset({"python"})},
        isolations=(Isolation.CONTAINER,),
        egress_ceiling=Policy(rules=()),
    )
    living = LivingSandboxes(
        api, Door(tmp_path, away_s=MOST_S), SandboxPlaces(api), catalogue, NodeDirectory(api)
    )
    ring = KeyRing.parse(base64.b64encode(bytes(32)).decode(), "test")
    signing = FileAddresses(api, Vault(ring), Rights(api, idle=timedelta(hours=1)))
    async with played_node(worker, tmp_path):
        made = await living.create(caller, NANO)
        address = await signing.sign(caller, made.id, PATH, READ, 60)
        yield Signed(signing, living, caller, made.id, address.token)


async def test_an_address_lends_one_use_of_one_file(signed: Signed) -> None:
    """It acts as the key that signed it, but may only use sandboxes, and until it expires."""
    found = await signed.used()
    assert (found.path, found.operation) == (PATH, READ)
    own = signed.caller.principal
    assert found.principal.actor == own.actor
    assert found.principal.id == own.id
    assert found.principal.permissions == frozenset({"sandbox:use"})
    assert found.principal.ends_at is not None
    assert 0 < found.principal.ends_at - time.time() <= 60
    assert await signed.recorded() == []


async def refused(attempt: Awaitable[AddressedFile]) -> bool:
    """Return whether an address is not good, by the same words as every other one."""
    try:
        await attempt
    except NotAuthenticated as error:
        return error.detail == addresses.ANSWER
    return False


BOUND: dict[str, Callable[[Signed], Awaitable[AddressedFile]]] = {
    "it is for another sandbox": lambda signed: signed.used(sandbox=new_id()),
    "it is for another operation": lambda signed: signed.used(operation=WRITE),
    "by no method": lambda signed: signed.used(operation=None),
}


@pytest.mark.parametrize("why", BOUND)
async def test_an_address_is_good_for_nothing_else(
    signed: Signed, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Another sandbox or operation is refused, and on record with the reason."""
    assert await refused(BOUND[why](signed))
    (told,) = await signed.recorded()
    assert told["path"] == PATH
    assert told["why"] in BOUND
    monkeypatch.setattr(addresses, "_refusal", lambda *_: None)
    assert not await refused(BOUND[why](signed)), "the control"


async def test_an_address_expires(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends at its time, whatever key signed it."""
    later = time.time() + 61
    monkeypatch.setattr("runner.sandboxes.addresses.time.time", lambda: later)
    assert await refused(signed.used())
    (told,) = await signed.recorded()
    assert told["why"] == "it has expired"
    monkeypatch.setattr(addresses, "_refusal", lambda *_: None)
    assert not await refused(signed.used()), "the control"


def altered(token: str) -> dict[str, str]:
    """Return what others might make of an address."""
    raw = base64.urlsafe_b64decode(token.removeprefix("fa_") + "==")
    mac, tenant, terms = raw[:32], raw[32:48], json.loads(raw[48:])

    def packed(mac: bytes, tenant: bytes, terms: object) -> str:
        body = json.dumps(terms, separators=(",", ":"), ensure_ascii=False).encode()
        return "fa_" + base64.urlsafe_b64encode(mac + tenant + body).rstrip(b"=").decode()

    assert packed(mac, tenant, terms) == token
    return {
        "later": packed(mac, tenant, {**terms, "until": terms["until"] + 3600}),
        "write": packed(mac, tenant, {**terms, "operation": "write"}),
        "owner": packed(mac, tenant, {**terms, "role": "owner"}),
        "no networks": packed(mac, tenant, {**terms, "networks": ["0.0.0.0/0"]}),
        "another key": packed(mac, tenant, {**terms, "principal": str(new_id())}),
        "no mac": packed(bytes(32), tenant, terms),
    }


@pytest.mark.parametrize(
    "what", ["later", "write", "owner", "no networks", "another key", "no mac"]
)
async def test_an_address_that_was_altered_is_none(
    signed: Signed, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nothing of it is read, and nothing recorded: anybody may write such a thing."""
    token = altered(signed.token)[what]
    assert await refused(signed.used(token=token))
    assert await signed.recorded() == []
    monkeypatch.setattr("runner.secrets.vault.hmac.compare_digest", lambda *_: True)
    monkeypatch.setattr(addresses, "_refusal", lambda *_: None)
    # A key that nobody has lends nothing, even if the signature says so.
    assert await refused(signed.used(token=token)) is (what == "another key"), "the control"


async def test_the_path_is_signed_too(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands beside the token, for people to read, and cannot be changed."""
    assert await refused(signed.used(path="out/other.pdf"))
    monkeypatch.setattr("runner.secrets.vault.hmac.compare_digest", lambda *_: True)
    assert (await signed.used(path="out/other.pdf")).path == "out/other.pdf", "the control"


@pytest.mark.parametrize(
    "token", ["", "fa_", "rk_" + "A" * 80, "fa_" + "A" * 80, "fa_" + "A" * 4000, "fa_" + "é" * 80]
)
async def test_what_was_never_signed_is_refused(signed: Signed, token: str) -> None:
    """Whatever is sent, the answer is the same."""
    assert await refused(signed.used(token=token))


async def test_an_address_ends_with_the_key_that_signed_it(
    signed: Signed, api: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends as soon as the key is revoked, and the audit log says so."""
    async with api.tenant(signed.caller.tenant_id) as tx:
        await stored_rights.end_key_alone(tx, signed.caller.principal.id)
    assert await refused(signed.used())
    (told,) = await signed.recorded()
    assert told["why"] == addresses.LENDER_GONE

    async def standing(_: Rights, __: object, principal: Principal) -> Principal:
        return principal

    monkeypatch.setattr(Rights, "confirmed", standing)
    assert not await refused(signed.used()), "the control"


async def test_an_address_keeps_to_the_networks_of_its_key(signed: Signed, api: Database) -> None:
    """A key of one network lends nothing to another one; others do."""
    elsewhere = Origin(ip="198.51.100.1")
    assert not await refused(signed.used(origin=elsewhere)), "the control"
    grant = Grant(Role.DEVELOPER, networks=(ip_network("203.0.113.0/24"),))
    kept = await key_of(api, signed.caller.tenant_id, grant)
    made = await signed.signing.sign(kept, signed.sandbox, PATH, READ, 60)
    assert not await refused(signed.used(token=made.token))
    assert await refused(signed.used(token=made.token, origin=elsewhere))
    assert await refused(signed.used(token=made.token, origin=Origin()))


async def test_another_tenants_sandbox_gets_no_address(signed: Signed, owner: Database) -> None:
    """It is as unknown as any, and its own tenant's key signs nothing for another one."""
    tenant = await new_tenant(owner, f"address-stranger-{str(new_id())[-6:]}")
    stranger = await key_of(signed.signing.database, tenant, Grant(Role.OWNER))
    with pytest.raises(NotFound):
        await signed.signing.sign(stranger, signed.sandbox, PATH, READ, 60)
    own = await signed.living.create(stranger, NANO)
    address = await signed.signing.sign(stranger, own.id, PATH, READ, 60)
    assert await refused(signed.used(token=address.token))


async def test_a_sandbox_that_has_ended_gets_no_address(signed: Signed) -> None:
    """The answer says that it has ended."""
    await signed.living.kill(signed.caller, signed.sandbox)
    with pytest.raises(Gone):
        await signed.signing.sign(signed.caller, signed.sandbox, PATH, READ, 60)


async def test_an_address_lasts_no_longer_than_a_token_of_a_provider(signed: Signed) -> None:
    """Nobody can revoke such a token: it ends by itself, and what it signed with it."""
    soon = time.time() + 5
    principal = replace(signed.caller.principal, ends_at=soon)
    caller = replace(signed.caller, principal=principal)
    made = await signed.signing.sign(caller, signed.sandbox, PATH, READ, 60)
    assert made.expires_at.timestamp() == pytest.approx(soon)
