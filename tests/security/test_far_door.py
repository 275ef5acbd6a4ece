"""Only an API of this deployment may knock at a node's door from another host, and only there."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from runner.base.duties import Duties
from runner.base.tracing import NoTracer
from runner.door.calls import CALLS, KnockCall, RefreshCall
from runner.door.client import Door
from runner.door.grants import Knock, sign_for
from runner.door.identity import DoorIdentity, DoorRole, certify, make_authority, revoke
from runner.door.reaching import tls_address
from runner.door.replies import REPLIES, FailedReply
from runner.door.revocation import REVOKED
from runner.door.streams import ApiLine
from runner.door.wire import DoorLine, Hung
from runner.node.measures import Measures
from runner.node.residents.door import open_door
from runner.node.residents.far import MOST_STRANGERS, FarDoor, open_far_door
from runner.node.residents.journal import Journal
from runner.node.residents.strangers import Failures
from runner.store.db import Database
from runner.words.errors import NodeAway, SandboxEnded, SetupError
from runner.words.ids import new_id
from tests.unit.node.test_door import nobody

DAY = timedelta(days=1)
SANDBOX = (new_id(), new_id(), "key:agent")


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    make_authority(tmp_path / "authority")
    return tmp_path / "authority"


@pytest.fixture
def certificates(tmp_path: Path, authority: Path) -> Path:
    """Return a folder with the certificates of the node `one` and of an API."""
    folder = tmp_path / "door-of-one"
    certify(authority, folder, DoorRole.NODE, "one", DAY)
    certify(authority, folder, DoorRole.API, "api-1", DAY)
    return folder


@asynccontextmanager
async def answering(
    folder: Path,
    certificates: Path,
    node: str,
    *,
    most: int = MOST_STRANGERS,
    failures: Failures | None = None,
    patience: int = 1,
) -> AsyncIterator[tuple[str, FarDoor]]:
    """Let a node on which nothing lives answer; yield where, and its door.

    It knows at most `most` strangers at once, and waits `patience` times as long for a call.
    """
    residents = nobody()
    residents.taken_over.set()
    journal = Journal(Database(SecretStr("postgresql://nowhere.invalid/")))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = f"127.0.0.1:{port}"
    identity = DoorIdentity(certificates, DoorRole.NODE)
    async with (
        open_door(
            folder,
            residents=residents,
            journal=journal,
            measures=Measures(),
            tracer=NoTracer(),
            node=node,
            patience=patience,
        ) as door,
        open_far_door(
            door, place, identity, Duties(), most=most, within_s=600, failures=failures
        ) as far,
    ):
        yield place, far


@pytest.fixture
async def one(tmp_path: Path, certificates: Path) -> AsyncIterator[tuple[str, FarDoor]]:
    async with answering(tmp_path / "one", certificates, "one") as found:
        yield found


def knock_at(place: str, node: str = "one") -> Knock:
    return Knock(*SANDBOX, door=tls_address(place, node))


def api(certificates: Path) -> Door:
    """Return an API that is known by these certificates, and has no door of its own host."""
    return Door(Path("/nowhere"), away_s=30, certificates=certificates)


async def test_an_api_with_its_certificate_is_let_in(
    one: tuple[str, FarDoor], certificates: Path
) -> None:
    """The control of what follows: the node looks for the sandbox, which never lived there."""
    with pytest.raises(SandboxEnded, match="does not live on this node"):
        await api(certificates).refresh(knock_at(one[0]))


async def test_an_api_without_certificates_says_what_it_lacks(
    one: tuple[str, FarDoor], certificates: Path, tmp_path: Path
) -> None:
    """Once they are there, they are used: the API is not started again."""
    door = api(tmp_path / "later")
    with pytest.raises(NodeAway, match=r"the door's certificates in .*later"):
        await door.refresh(knock_at(one[0]))
    (tmp_path / "later").symlink_to(certificates)
    with pytest.raises(SandboxEnded):
        await door.refresh(knock_at(one[0]))


async def heard(
    place: str,
    context: ssl.SSLContext,
    *said: KnockCall | RefreshCall,
    source: str = "127.0.0.1",
) -> list[object]:
    """Return what a node answers to somebody with this context until it hangs up."""
    host, _, port = place.rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=context, local_addr=(source, 0)
    )
    line: ApiLine = DoorLine(reader, writer, says=CALLS, hears=REPLIES)
    found: list[object] = []
    try:
        async with asyncio.timeout(60):
            for each in said:
                await line.tell(each)
            while not (found and isinstance(found[-1], FailedReply)):
                found.append(await line.hear())
    except Hung:
        return found
    finally:
        line.abort()
    return found


def stranger(certificates: Path, own: Path | None) -> ssl.SSLContext:
    """Return what somebody connects with who knows this deployment's authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificates / "authority.pem")
    if own is not None:
        context.load_cert_chain(own)
    return context


async def test_strangers_learn_nothing(
    one: tuple[str, FarDoor], certificates: Path, tmp_path: Path, authority: Path
) -> None:
    """No certificate, a node's own, an expired one, one of another authority: none is answered."""
    make_authority(tmp_path / "other")
    certify(tmp_path / "other", tmp_path / "foreign", DoorRole.API, "api-1", DAY)
    past = datetime.now(UTC) - 3 * DAY
    certify(authority, tmp_path / "old", DoorRole.API, "api-1", DAY, now=past)
    certify(authority, tmp_path / "two", DoorRole.NODE, "two", DAY)
    good = certificates / "api.pem"
    for own in (
        None,
        tmp_path / "two" / "node.pem",
        tmp_path / "old" / "api.pem",
        tmp_path / "foreign" / "api.pem",
    ):
        assert await answered(one[0], certificates, own) == [], own
    assert isinstance((await answered(one[0], certificates, good))[-1], FailedReply)


async def answered(
    place: str, certificates: Path, own: Path | None, source: str = "127.0.0.1"
) -> list[object]:
    """Return what somebody hears who has a grant by the API's own key."""
    grant = sign_for(
        DoorIdentity(certificates, DoorRole.API).key, "one", Knock(*SANDBOX), "refresh"
    )
    said = (KnockCall(grant, "refresh"), RefreshCall())
    try:
        return await heard(place, stranger(certificates, own), *said, source=source)
    except (ssl.SSLError, ConnectionError):
        return []


async def test_older_versions_of_tls_are_refused(
    one: tuple[str, FarDoor], certificates: Path
) -> None:
    context = stranger(certificates, certificates / "api.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await heard(one[0], context)
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    grant = KnockCall("none", "refresh")
    assert isinstance((await heard(one[0], context, grant, RefreshCall()))[-1], FailedReply)


async def test_a_grant_opens_only_the_door_that_it_was_made_for(
    one: tuple[str, FarDoor], certificates: Path, tmp_path: Path
) -> None:
    """Nor is one taken that another key than the caller's has signed."""
    context = stranger(certificates, certificates / "api.pem")
    key = DoorIdentity(certificates, DoorRole.API).key
    foreign = DoorIdentity(certificates, DoorRole.NODE).key

    async def said(grant: str) -> str:
        answer = await heard(one[0], context, KnockCall(grant, "refresh"), RefreshCall())
        assert isinstance(answer[-1], FailedReply)
        return str(answer[-1])

    for grant in (
        sign_for(key, "two", Knock(*SANDBOX), "refresh"),
        sign_for(foreign, "one", Knock(*SANDBOX), "refresh"),
    ):
        assert "not signed by its caller for this node" in await said(grant)
    assert "expired" in await said(sign_for(key, "one", Knock(*SANDBOX), "refresh", now=1.0))
    good = sign_for(key, "one", Knock(*SANDBOX), "refresh")
    assert "does not live on this node" in await said(good)


async def test_an_api_speaks_to_nobody_but_the_node_that_it_means(
    tmp_path: Path, certificates: Path, authority: Path
) -> None:
    """Another node answers at the address, or somebody with a certificate of an API."""
    certify(authority, tmp_path / "door-of-two", DoorRole.NODE, "two", DAY)
    async with answering(tmp_path / "two", tmp_path / "door-of-two", "two") as (place, _):
        with pytest.raises(NodeAway, match="is not the node one"):
            await api(certificates).refresh(knock_at(place))
        with pytest.raises(SandboxEnded):
            await api(certificates).refresh(knock_at(place, "two"))
    make_authority(tmp_path / "other")
    certify(tmp_path / "other", tmp_path / "door-of-three", DoorRole.NODE, "one", DAY)
    async with answering(tmp_path / "three", tmp_path / "door-of-three", "one") as (place, _):
        with pytest.raises(NodeAway, match="does not answer"):
            await api(certificates).refresh(knock_at(place))


async def test_certificates_are_replaced_without_a_stop(
    one: tuple[str, FarDoor], certificates: Path, tmp_path: Path
) -> None:
    """Both ends go over to another authority while a connection stays open."""
    place, far = one
    door = api(certificates)
    with pytest.raises(SandboxEnded):
        await door.refresh(knock_at(place))
    host, _, port = place.rpartition(":")
    context = stranger(certificates, certificates / "api.pem")
    key = DoorIdentity(certificates, DoorRole.API).key
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    open_line: ApiLine = DoorLine(reader, writer, says=CALLS, hears=REPLIES)
    make_authority(tmp_path / "new")
    for role, name in ((DoorRole.NODE, "one"), (DoorRole.API, "api-1")):
        certify(tmp_path / "new", certificates, role, name, DAY)
    await far.follow()
    with pytest.raises(SandboxEnded):
        await door.refresh(knock_at(place))
    # What the old authority has signed is not taken any more, but an open call is answered.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await heard(place, context)
    await open_line.tell(KnockCall(sign_for(key, "one", Knock(*SANDBOX), "refresh"), "refresh"))
    await open_line.tell(RefreshCall())
    async with asyncio.timeout(60):
        await open_line.hear()
        assert "does not live" in str(await open_line.hear())
    open_line.abort()


async def test_unusable_certificates_change_nothing(
    one: tuple[str, FarDoor], certificates: Path
) -> None:
    """A half-written file is not used; what was in use stays so."""
    place, far = one
    whole = (certificates / "node.pem").read_bytes()
    (certificates / "node.pem").write_bytes(whole[:100])
    await far.follow()
    with pytest.raises(SandboxEnded):
        await api(certificates).refresh(knock_at(place))
    with pytest.raises(SetupError):
        DoorIdentity(certificates, DoorRole.NODE)


async def test_whoever_has_a_revoked_certificate_is_not_let_in(
    one: tuple[str, FarDoor], certificates: Path, authority: Path, tmp_path: Path
) -> None:
    """Others are, and so is a certificate that the same name was given later."""
    place, far = one
    good = await asyncio.to_thread((certificates / "api.pem").read_bytes)
    certify(authority, tmp_path / "other", DoorRole.API, "api-2", DAY)
    assert await answered(place, certificates, certificates / "api.pem")
    assert revoke(authority, DoorRole.API, "api-1") == 1
    # Until the node has the list, it knows nothing of it.
    assert await answered(place, certificates, certificates / "api.pem")
    await bring(authority, certificates)
    await far.follow()
    assert await answered(place, certificates, certificates / "api.pem") == []
    assert await answered(place, certificates, tmp_path / "other" / "api.pem")
    certify(authority, certificates, DoorRole.API, "api-1", DAY)
    assert await answered(place, certificates, certificates / "api.pem")
    # A list that was made later holds what was revoked before.
    assert revoke(authority, DoorRole.API, "api-2") == 1
    await bring(authority, certificates)
    await far.follow()
    stolen = tmp_path / "stolen.pem"
    await asyncio.to_thread(stolen.write_bytes, good)
    for own in (stolen, tmp_path / "other" / "api.pem"):
        assert await answered(place, certificates, own) == []


async def test_what_is_open_with_a_revoked_certificate_is_cut(
    certificates: Path, authority: Path, tmp_path: Path
) -> None:
    """What another one has open goes on, and so does everything until the node has the list."""
    certify(authority, tmp_path / "other", DoorRole.API, "api-2", DAY)
    async with answering(tmp_path / "one", certificates, "one", patience=100) as (place, far):
        stolen = await opened(place, certificates, certificates / "api.pem")
        other = await opened(place, certificates, tmp_path / "other" / "api.pem")
        revoke(authority, DoorRole.API, "api-1")
        await far.follow()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stolen.hear()
        await bring(authority, certificates)
        await far.follow()
        async with asyncio.timeout(60):
            with pytest.raises(Hung):
                await stolen.hear()
        key = DoorIdentity(tmp_path / "other", DoorRole.API).key
        await other.tell(KnockCall(sign_for(key, "one", Knock(*SANDBOX), "refresh"), "refresh"))
        await other.tell(RefreshCall())
        async with asyncio.timeout(60):
            await other.hear()
            assert "does not live" in str(await other.hear())
        for line in (stolen, other):
            line.abort()


async def opened(place: str, certificates: Path, own: Path) -> ApiLine:
    """Connect with a certificate, and say nothing yet."""
    host, _, port = place.rpartition(":")
    context = stranger(certificates, own)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    return DoorLine(reader, writer, says=CALLS, hears=REPLIES)


async def test_an_api_speaks_to_no_node_whose_certificate_was_revoked(
    one: tuple[str, FarDoor], certificates: Path, authority: Path
) -> None:
    door = api(certificates)
    with pytest.raises(SandboxEnded):
        await door.refresh(knock_at(one[0]))
    revoke(authority, DoorRole.NODE, "one")
    await bring(authority, certificates)
    with pytest.raises(NodeAway, match="does not answer"):
        await door.refresh(knock_at(one[0]))


async def test_a_list_of_another_authority_shuts_no_door(
    one: tuple[str, FarDoor], certificates: Path, tmp_path: Path
) -> None:
    """With it, no certificate could be checked: what was in use stays so, and a start says why."""
    place, far = one
    door = api(certificates)
    with pytest.raises(SandboxEnded):
        await door.refresh(knock_at(place))
    make_authority(tmp_path / "other")
    certify(tmp_path / "other", tmp_path / "foreign", DoorRole.API, "api-1", DAY)
    revoke(tmp_path / "other", DoorRole.API, "api-1")
    await bring(tmp_path / "other", certificates)
    await far.follow()
    with pytest.raises(SandboxEnded):
        await door.refresh(knock_at(place))
    with pytest.raises(SetupError, match=r"revoked\.pem is another authority's"):
        DoorIdentity(certificates, DoorRole.NODE)


def test_only_what_is_still_good_is_revoked(authority: Path, tmp_path: Path) -> None:
    certify(authority, tmp_path / "x", DoorRole.API, "old", DAY, now=datetime.now(UTC) - 3 * DAY)
    for name in ("old", "never-made"):
        with pytest.raises(SetupError, match=r"has signed no certificate for .*good"):
            revoke(authority, DoorRole.API, name)


async def bring(authority: Path, certificates: Path) -> None:
    """Copy the list of what was revoked to where a node or an API reads it."""
    await asyncio.to_thread(shutil.copy, authority / REVOKED, certificates)


NEIGHBOUR, OTHER = "127.0.0.2", "127.0.0.3"
"""Hosts of strangers; every address of 127.0.0.0/8 is this host's own."""


@pytest.mark.parametrize(("most", "kept"), [(8, 8), (1000, 40)], ids=["bounded", "unbounded"])
async def test_strangers_hold_few_of_a_nodes_descriptors(
    tmp_path: Path, certificates: Path, most: int, kept: int
) -> None:
    """They connect and say nothing. Without the bound, the node keeps a descriptor for each."""
    async with (
        answering(tmp_path / "one", certificates, "one", most=most) as (place, _),
        silent(place, NEIGHBOUR, 40),
    ):
        async with asyncio.timeout(60):
            while len(held_by_node(place)) != kept:  # noqa: ASYNC110 - sockets tell nobody
                await asyncio.sleep(0.01)
        with pytest.raises(SandboxEnded):
            await api(certificates).refresh(knock_at(place))


async def test_a_host_of_many_strangers_shuts_out_no_other_host(
    tmp_path: Path, certificates: Path
) -> None:
    """Whoever has most of them loses its oldest one: one that is slow elsewhere gets its time."""
    async with (
        answering(tmp_path / "one", certificates, "one", most=8) as (place, _),
        silent(place, OTHER, 1) as (slow,),
        silent(place, NEIGHBOUR, 40) as many,
    ):
        async with asyncio.timeout(60):
            # The bound of 8, less the one that is slow.
            await cut(many, 40 - 7)
        assert OTHER in held_by_node(place)
        assert not slow.at_eof()


@pytest.mark.parametrize(("at_once", "greeted"), [(5, False), (1000, True)])
async def test_a_host_whose_handshakes_fail_is_not_greeted_for_a_while(
    tmp_path: Path, certificates: Path, *, at_once: int, greeted: bool
) -> None:
    """Not even if it could show a certificate; other hosts are. Without the bound, it would be."""
    now = [0.0]
    failures = Failures(at_once, per_s=1.0, clock=lambda: now[0])
    good = certificates / "api.pem"
    async with answering(tmp_path / "one", certificates, "one", failures=failures) as (place, _):
        for _ in range(5):
            assert await answered(place, certificates, None, NEIGHBOUR) == []
        assert bool(await answered(place, certificates, good, NEIGHBOUR)) is greeted
        assert await answered(place, certificates, good, OTHER)
        now[0] += 1
        assert await answered(place, certificates, good, NEIGHBOUR)


async def test_an_api_whose_calls_are_broken_off_is_greeted(
    tmp_path: Path, certificates: Path
) -> None:
    """A tenant's clients may hang up as often as they like: others' calls get through."""
    failures = Failures(3, per_s=0.0)
    good = certificates / "api.pem"
    async with answering(tmp_path / "one", certificates, "one", failures=failures) as (place, _):
        for _ in range(4):
            for _ in range(2):
                assert await answered(place, certificates, None, NEIGHBOUR) == []
            assert await answered(place, certificates, good, NEIGHBOUR)


@asynccontextmanager
async def silent(
    place: str, host: str, number: int
) -> AsyncIterator[tuple[asyncio.StreamReader, ...]]:
    """Connect as often as that from a host, and say nothing."""
    at, _, port = place.rpartition(":")
    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(number):
            reader, writer = await asyncio.open_connection(at, int(port), local_addr=(host, 0))
            stack.callback(writer.transport.abort)
            readers.append(reader)
        yield tuple(readers)


async def cut(strangers: tuple[asyncio.StreamReader, ...], number: int) -> None:
    """Wait until the node has hung up on the first ones of them."""
    for each in strangers[:number]:
        with suppress(ConnectionError):
            assert await each.read() == b""


def held_by_node(place: str) -> list[str]:
    """Return the other ends of the connections that the node at this address has open."""
    port = int(place.rpartition(":")[2])
    return [
        each.raddr.ip
        for each in psutil.Process().net_connections("tcp")
        if each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED
    ]
