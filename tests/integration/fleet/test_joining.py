"""A host becomes a node by a token that works once, for one node, and for a while."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runner.auth.caller import By
from runner.door import identity, joining
from runner.door.identity import DoorIdentity, DoorRole, certify, make_authority, revoke
from runner.door.joining import JOIN_REPLIES, JOIN_REQUESTS, JoinRequest, JoinToken
from runner.door.wire import HEADER, DoorLine, Hung
from runner.embedded.services import Services
from runner.fleet import invitations
from runner.fleet.admission import (
    MOST_AT_ONCE,
    PER_ADDRESS,
    AdmissionTerms,
    Attempts,
    open_admission,
)
from runner.store.db import Database
from runner.words.errors import NotFound, SetupError
from tests.support.nodes import free_port

NODE = "host-2"
NODE_ID = "host-2-0a1b2c3d"
REFUSED = "the token was refused: it is wrong, used, revoked, expired, or for another node"
UNTOLD = "the token was not sent to it"
Superuser: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
UNUSED = b"UPDATE node_invitations SET used_at = NULL, used_as = NULL"
UNREVOKED = b"UPDATE node_invitations SET revoked_at = NULL"
EXPIRED = (
    b"UPDATE node_invitations "
    b"SET made_at = now() - interval '2 h', expires_at = now() - interval '1 s'"
)
UNEXPIRED = b"UPDATE node_invitations SET expires_at = now() + interval '1 min'"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    make_authority(tmp_path / "authority")
    return tmp_path / "authority"


@asynccontextmanager
async def admitting(
    operators: Database, authority: Path, *, attempts: int = 1000, within_s: float = 60
) -> AsyncIterator[str]:
    """Admit hosts; yield where. One address may try that many times in a minute."""
    place = f"127.0.0.1:{free_port()}"
    terms = AdmissionTerms(authority, timedelta(days=1), {"RUNNER_ZONE": "attic"})
    bound = Attempts(per_address=attempts, in_all=10 * attempts)
    async with open_admission(operators, terms, place, bound, within_s=within_s):
        yield place


@pytest.fixture
async def place(operators: Database, authority: Path) -> AsyncIterator[str]:
    async with admitting(operators, authority) as found:
        yield found


async def invited(operators: Database, authority: Path, node: str = NODE) -> JoinToken:
    made = await invitations.invite(operators, node, joining.public_key_of(authority), By())
    return JoinToken.read(made.token)


async def refused(place: str, token: JoinToken, folder: Path, node_id: str = NODE_ID) -> None:
    """Show that a token opens nothing, that the host is not told why, and keeps nothing."""
    with pytest.raises(SetupError) as told:
        await joining.join(place, token, node_id, folder)
    assert told.value.detail == REFUSED
    assert kept(folder) == []


def kept(folder: Path) -> list[Path]:
    """Return what a host has kept."""
    return list(folder.iterdir())


@pytest.fixture(autouse=True)
def superuser_in(postgres: Services) -> Iterator[Superuser]:
    """Return a superuser's connection to a database in which nobody is invited."""
    with psycopg.connect(postgres.postgres.url("postgres", "runner"), autocommit=True) as opened:
        opened.execute("TRUNCATE node_invitations")
        yield opened


async def test_a_host_gets_a_certificate_for_its_own_key(
    operators: Database, authority: Path, place: str, tmp_path: Path
) -> None:
    """Its API finds the node that it names; the settings that the operator gives come with it."""
    token = await invited(operators, authority)
    assert await joining.join(place, token, NODE_ID, tmp_path / "door") == {"RUNNER_ZONE": "attic"}
    mine = DoorIdentity(tmp_path / "door", DoorRole.NODE)
    shown = x509.load_pem_x509_certificate((tmp_path / "door" / "node.pem").read_bytes())
    assert identity.named_in(shown) == identity.DoorPeer(
        DoorRole.NODE, NODE_ID, mine.key.public_key(), shown.serial_number
    )
    assert (tmp_path / "door" / "node.pem").stat().st_mode & 0o777 == 0o600


async def test_what_was_revoked_is_known_to_a_host_from_its_first_moment(
    operators: Database, authority: Path, place: str, tmp_path: Path
) -> None:
    certify(authority, tmp_path / "stolen", DoorRole.API, "api-1", timedelta(days=1))
    revoke(authority, DoorRole.API, "api-1")
    await joining.join(place, await invited(operators, authority), NODE_ID, tmp_path / "door")
    known = tmp_path / "door" / "revoked.pem"
    assert known.read_bytes() == (authority / "revoked.pem").read_bytes()
    # What the host was given can be revoked like what was made by hand.
    assert revoke(authority, DoorRole.NODE, NODE_ID) == 1


async def test_a_host_that_joins_again_has_a_new_key(
    operators: Database, authority: Path, place: str, tmp_path: Path
) -> None:
    """So is a certificate replaced: whoever follows the folder uses the new one."""
    door = tmp_path / "door"
    await joining.join(place, await invited(operators, authority), NODE_ID, door)
    mine = DoorIdentity(door, DoorRole.NODE)
    first = mine.key
    await joining.join(place, await invited(operators, authority), NODE_ID, door)
    assert mine.refresh()
    assert mine.key.public_key() != first.public_key()


async def test_a_token_works_once(
    operators: Database, authority: Path, place: str, tmp_path: Path, superuser_in: Superuser
) -> None:
    """The control: the same token works again once nothing says that it was used."""
    token = await invited(operators, authority)
    await joining.join(place, token, NODE_ID, tmp_path / "first")
    await refused(place, token, tmp_path / "second")
    superuser_in.execute(UNUSED)
    await joining.join(place, token, NODE_ID, tmp_path / "second")


async def test_an_expired_token_is_refused(
    operators: Database, authority: Path, place: str, tmp_path: Path, superuser_in: Superuser
) -> None:
    """The control: it works as long as its time has not come."""
    token = await invited(operators, authority)
    superuser_in.execute(EXPIRED)
    await refused(place, token, tmp_path / "door")
    superuser_in.execute(UNEXPIRED)
    await joining.join(place, token, NODE_ID, tmp_path / "door")


async def test_an_open_invitation_is_listed_however_many_have_ended_since(
    operators: Database, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invitations, "SHOWN", 2)
    await invited(operators, authority)
    (still_open,) = await invitations.list_invitations(operators)
    for _ in range(2):
        await invited(operators, authority)
        newest = (await invitations.list_invitations(operators))[0]
        await invitations.revoke(operators, newest.invitation_id, By())
    assert [*await invitations.list_invitations(operators)] == [still_open]
    assert len(await invitations.list_invitations(operators, ended=True)) == 2


async def test_a_revoked_token_is_refused(
    operators: Database, authority: Path, place: str, tmp_path: Path, superuser_in: Superuser
) -> None:
    """The control: it works if it was not revoked. A token that was used cannot be revoked."""
    token = await invited(operators, authority)
    (mine,) = await invitations.list_invitations(operators)
    await invitations.revoke(operators, mine.invitation_id, By())
    await refused(place, token, tmp_path / "door")
    assert [*await invitations.list_invitations(operators)] == []
    superuser_in.execute(UNREVOKED)
    await joining.join(place, token, NODE_ID, tmp_path / "door")
    with pytest.raises(NotFound):
        await invitations.revoke(operators, mine.invitation_id, By())


@pytest.mark.parametrize(
    "node_id", ["host-3-0a1b2c3d", "host-0a1b2c3d", "host-2-9-0a1b2c3d", "host-2", "", "host-2-xyz"]
)
async def test_a_token_is_for_one_node(
    operators: Database, authority: Path, place: str, tmp_path: Path, node_id: str
) -> None:
    """Also if its name begins alike. The control: the node that was invited is let in."""
    token = await invited(operators, authority)
    await refused(place, token, tmp_path / "door", node_id)
    await joining.join(place, token, NODE_ID, tmp_path / "door")


async def test_a_wrong_token_is_refused(
    operators: Database, authority: Path, place: str, tmp_path: Path
) -> None:
    """The control: the right one works, and wrong ones have not used it up."""
    token = await invited(operators, authority)
    for secret in (JoinToken.make(token.authority, NODE).secret, "", token.secret[:-1]):
        await refused(place, replace(token, secret=secret), tmp_path / "door")
    await joining.join(place, token, NODE_ID, tmp_path / "door")


async def test_of_hosts_that_use_a_token_at_once_one_is_let_in(
    operators: Database, authority: Path, place: str, tmp_path: Path
) -> None:
    """The control: with a token each, all of them are."""
    hosts = [tmp_path / str(number) for number in range(8)]

    async def race(tokens: list[JoinToken]) -> int:
        tries = (
            joining.join(place, token, NODE_ID, host)
            for token, host in zip(tokens, hosts, strict=True)
        )
        ends = await asyncio.gather(*tries, return_exceptions=True)
        assert all(isinstance(each, dict) or str(each) == REFUSED for each in ends), ends
        return sum(isinstance(each, dict) for each in ends)

    assert await race([await invited(operators, authority)] * len(hosts)) == 1
    assert await race([await invited(operators, authority) for _ in hosts]) == len(hosts)


async def said(place: str, *pieces: bytes) -> bytes:
    """Say something to whoever admits nodes, as a host would; return the whole answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, _, port = place.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        for piece in pieces:
            writer.write(piece)
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


def framed(request: JoinRequest) -> bytes:
    payload = JOIN_REQUESTS.encode(request)
    return HEADER.pack(b"C", len(payload)) + payload


def request(token: JoinToken, key: Ed25519PrivateKey | None = None) -> JoinRequest:
    made = joining.certification_request(key or Ed25519PrivateKey.generate())
    return JoinRequest(token.secret, NODE_ID, made)


async def test_a_recorded_exchange_is_worth_nothing(
    operators: Database, authority: Path, place: str, superuser_in: Superuser
) -> None:
    """Byte for byte what a host has said is refused the second time, as a wrong token is.

    The control: it is answered with a certificate once nothing says that the token was used.
    """
    token = await invited(operators, authority)
    recorded = framed(request(token))
    wrong = await said(place, framed(request(JoinToken.make(token.authority, NODE))))
    assert b"joined" in await said(place, recorded)
    assert await said(place, recorded) == wrong
    assert b"refused" in wrong
    superuser_in.execute(UNUSED)
    assert b"joined" in await said(place, recorded)


async def test_only_who_holds_a_key_has_it_certified(
    operators: Database, authority: Path, place: str
) -> None:
    """A request with somebody else's public key is refused. The control: whole, it is answered."""
    token = await invited(operators, authority)
    theirs, mine = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    whole = joining.certification_request(theirs)
    der = x509.load_pem_x509_csr(whole.encode()).public_bytes(serialization.Encoding.DER)
    der = der.replace(raw(theirs), raw(mine))
    pem = ssl.DER_cert_to_PEM_cert(der).replace(" CERTIFICATE", " CERTIFICATE REQUEST")
    for forged in (pem, "", "nonsense", whole[: len(whole) // 2]):
        answer = await said(place, framed(JoinRequest(token.secret, NODE_ID, forged)))
        assert b"refused" in answer
    assert b"joined" in await said(place, framed(request(token, theirs)))


def raw(key: Ed25519PrivateKey) -> bytes:
    encoding, form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return key.public_key().public_bytes(encoding, form)


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\n\r\n", b"C\x7f\xff\xff\xff", b"C\0\0\0\2{}"]
)
async def test_nonsense_is_not_answered(
    operators: Database, authority: Path, place: str, tmp_path: Path, nonsense: bytes
) -> None:
    """Whoever comes next is let in."""
    assert await said(place, nonsense) == b""
    await joining.join(place, await invited(operators, authority), NODE_ID, tmp_path / "door")


@asynccontextmanager
async def impostor(
    certificates: Path, role: DoorRole
) -> AsyncIterator[tuple[str, asyncio.Queue[bytes]]]:
    """Listen with somebody's certificate; yield where, and what each host says there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{role.value}.pem")
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.put_nowait(await reader.read(4096))
        except OSError:
            heard.put_nowait(b"")
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


@pytest.mark.parametrize("whose", ["another authority's", "a node's", "an API's", "an expired one"])
async def test_a_host_sends_its_token_only_to_its_deployment(
    authority: Path, tmp_path: Path, whose: str
) -> None:
    """The control: whoever shows what the token's authority has signed for admission gets it."""
    make_authority(tmp_path / "other")
    token = JoinToken.make(joining.public_key_of(authority), NODE)
    day = timedelta(days=1)
    signer, role, lasting = {
        "another authority's": (tmp_path / "other", DoorRole.ADMISSION, day),
        "a node's": (authority, DoorRole.NODE, day),
        "an API's": (authority, DoorRole.API, day),
        "an expired one": (authority, DoorRole.ADMISSION, -timedelta(minutes=1)),
    }[whose]
    certify(signer, tmp_path / "shown", role, "x", lasting)
    async with impostor(tmp_path / "shown", role) as (place, heard):
        with pytest.raises(SetupError, match=UNTOLD):
            await joining.join(place, token, NODE_ID, tmp_path / "door")
        assert await asyncio.wait_for(heard.get(), 60) == b""

    certify(authority, tmp_path / "true", DoorRole.ADMISSION, "x", day)
    async with impostor(tmp_path / "true", DoorRole.ADMISSION) as (place, heard):
        with pytest.raises(SetupError, match="nobody who admits nodes"):
            await joining.join(place, token, NODE_ID, tmp_path / "door")
        assert token.secret.encode() in await asyncio.wait_for(heard.get(), 60)


async def test_an_address_may_try_a_few_times_in_a_minute(
    operators: Database, authority: Path, tmp_path: Path
) -> None:
    """Beyond that, not even the right token helps. The control: with a wider bound, it does."""
    token = await invited(operators, authority)
    wrong = JoinToken.make(token.authority, NODE)
    for bound in (PER_ADDRESS, 1000):
        async with admitting(operators, authority, attempts=bound) as place:
            for _ in range(PER_ADDRESS):
                await refused(place, wrong, tmp_path / "door")
            if bound == PER_ADDRESS:
                with pytest.raises(SetupError, match="nobody who admits nodes answers"):
                    await joining.join(place, token, NODE_ID, tmp_path / "door")
            else:
                await joining.join(place, token, NODE_ID, tmp_path / "door")


async def test_hosts_that_say_nothing_are_cut_off(
    operators: Database, authority: Path, tmp_path: Path
) -> None:
    """They keep others out for that long at most. The control: while they hang, nobody comes in."""
    token = await invited(operators, authority)
    async with admitting(operators, authority, within_s=2) as place:
        host, _, port = place.rpartition(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(MOST_AT_ONCE)]
        try:
            with pytest.raises(SetupError, match="nobody who admits nodes answers"):
                await joining.join(place, token, NODE_ID, tmp_path / "door")
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(60):
                for each in silent:
                    each.setblocking(False)  # noqa: FBT003 - the standard library's signature
                    assert await loop.sock_recv(each, 1) == b""
            await joining.join(place, token, NODE_ID, tmp_path / "door")
        finally:
            for each in silent:
                each.close()


async def test_neither_database_nor_audit_log_holds_a_token(
    operators: Database, authority: Path, place: str, tmp_path: Path, superuser_in: Superuser
) -> None:
    """Each step is on record. The control: what else the records say is found the same way."""
    token = await invited(operators, authority)
    await refused(place, replace(token, secret="wrong" + token.secret), tmp_path / "door")
    await joining.join(place, token, NODE_ID, tmp_path / "door")
    unused = await invited(operators, authority)
    (mine,) = await invitations.list_invitations(operators)
    await invitations.revoke(operators, mine.invitation_id, By("operator:ada"))
    stored = "".join(
        row[0]
        for every in (
            b"SELECT t::text FROM node_invitations t",
            b"SELECT t::text FROM audit_events t",
        )
        for row in superuser_in.execute(every)
    )
    assert token.secret not in stored
    assert unused.secret not in stored
    for known in ("node:invite", "node:uninvite", "node:certify", "operator:ada", NODE_ID):
        assert known in stored
    denied = superuser_in.execute(
        "SELECT count(*) FROM audit_events t WHERE t::text LIKE '%node:certify%' "
        "AND t::text LIKE '%denied%' AND t::text LIKE '%127.0.0.1%'"
    ).fetchone()
    assert denied is not None
    assert denied[0] >= 1


async def test_a_token_stays_good_if_the_authority_cannot_sign(
    operators: Database, authority: Path, place: str, tmp_path: Path
) -> None:
    token = await invited(operators, authority)
    key = authority / "authority.key"
    key.rename(tmp_path / "away")
    with pytest.raises(SetupError, match="nobody who admits nodes answers"):
        await joining.join(place, token, NODE_ID, tmp_path / "door")
    (tmp_path / "away").rename(key)
    await joining.join(place, token, NODE_ID, tmp_path / "door")


@pytest.mark.parametrize("login", ["api_url", "worker_url"])
def test_only_the_operators_login_reaches_invitations(postgres: Services, login: str) -> None:
    """Whoever takes over an API or a worker can invite nobody. The control: the operator's may."""
    for url, may in ((getattr(postgres, login), False), (postgres.operator_url, True)):
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in (
                "SELECT * FROM node_invitations",
                "UPDATE node_invitations SET revoked_at = now() WHERE false",
            ):
                if may:
                    connection.execute(statement.encode())
                    continue
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


async def test_a_host_takes_no_certificate_that_is_not_its_own(
    authority: Path, tmp_path: Path
) -> None:
    """The control: with the one that is for its key and name, the same answer is taken."""
    token = JoinToken.make(joining.public_key_of(authority), NODE)
    day = timedelta(days=1)
    certify(authority, tmp_path / "shown", DoorRole.ADMISSION, "x", day)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "shown" / "admission.pem")
    given = {"name": NODE_ID, "role": DoorRole.NODE, "own key": True}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = DoorLine[joining.JoinMessage, joining.JoinMessage](
            reader, writer, says=JOIN_REPLIES, hears=JOIN_REQUESTS
        )
        try:
            wanted = await line.hear()
            assert isinstance(wanted, JoinRequest)
            key = joining.requested_key(wanted.request)
            assert key is not None
            if not given["own key"]:
                key = Ed25519PrivateKey.generate().public_key()
            made = identity.certificate_for(authority, given["role"], given["name"], key, day)  # type: ignore[arg-type]
            await line.tell(
                joining.JoinedReply(made.certificate.decode(), made.authority.decode(), None, {})
            )
            line.close()
            await writer.wait_closed()
        except (OSError, Hung):
            pass

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        for wrong in ({"name": "host-3-0a1b2c3d"}, {"role": DoorRole.API}, {"own key": False}):
            before = dict(given)
            given.update(wrong)
            with pytest.raises(SetupError, match="not for this node"):
                await joining.join(place, token, NODE_ID, tmp_path / "door")
            assert kept(tmp_path / "door") == []
            given.update(before)
        await joining.join(place, token, NODE_ID, tmp_path / "door")
