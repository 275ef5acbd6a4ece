"""Acting for a key by a sandbox's token: where the key may not be used, that is on record."""

import json
from ipaddress import ip_network

import pytest

from runner.audit import events as audit
from runner.audit.events import Filter, Origin
from runner.auth import keys
from runner.auth.identity import ELSEWHERE, on_behalf_of
from runner.store import keys as stored_keys
from runner.store.db import Database
from runner.store.keys import Grant
from runner.words.errors import NotAuthenticated
from runner.words.ids import new_id
from runner.words.principal import Role
from tests.integration.store.conftest import new_tenant


async def test_a_token_that_is_used_elsewhere_is_on_record(api: Database, owner: Database) -> None:
    """The key itself leaves the same record: its owner sees that it, or its token, was stolen."""
    tenant, made, key_id = await new_tenant(owner, "elsewhere"), keys.generate(), new_id()
    async with api.tenant(tenant) as tx:
        await stored_keys.insert(
            tx,
            key_id=key_id,
            prefix=made.prefix,
            hash_=made.hash,
            name="test",
            grant=Grant(Role.DEVELOPER, networks=(ip_network("203.0.113.0/24"),)),
            created_by="test",
        )

    async def recorded() -> list[tuple[object, ...]]:
        async with api.tenant(tenant) as tx:
            found = await audit.list_after(tx, 0, Filter(action="authentication:verify"), 100)
        bodies = [json.loads(each.body) for each in found]
        return [(each["outcome"], each["resource_id"], each["metadata"]["why"]) for each in bodies]

    here, elsewhere = Origin(ip="203.0.113.7"), Origin(ip="198.51.100.1")
    assert (await on_behalf_of(api, made.prefix, here, "no")).id == key_id
    assert await recorded() == []
    for said in (True, False):
        with pytest.raises(NotAuthenticated):
            await on_behalf_of(api, made.prefix, elsewhere, "no", recorded=said)
        assert await recorded() == [("failure", str(key_id), ELSEWHERE)]
