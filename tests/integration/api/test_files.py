"""`/v1/files` as a client sees it."""

import base64
import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from runner.words.principal import Role
from tests.support.deployment import Deployment, bearing, eventually

FILES = "/v1/files"
BODY = b"0123456789"


@pytest.fixture
def client(shared: Deployment, request: pytest.FixtureRequest) -> httpx.Client:
    """Return a connection for a tenant that only this test uses."""
    return shared.http(_name(request))


def _name(request: pytest.FixtureRequest) -> str:
    return f"f-{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"


def digest(content: bytes) -> str:
    """Return RFC 9530's spelling of a SHA-256 sum."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def used(deployment: Deployment, tenant: str) -> tuple[int, int]:
    """Return what a tenant stores according to the ledger: bytes and objects."""
    rows = deployment.sql(
        "SELECT bytes, objects FROM storage_usage JOIN tenants USING (tenant_id) WHERE name = %s",
        tenant,
    )
    return (rows[0]["bytes"], rows[0]["objects"]) if rows else (0, 0)


def test_what_the_store_does_not_give_is_answered_503(
    shared: Deployment, request: pytest.FixtureRequest
) -> None:
    """A 200 that is cut off before its first byte would not say that it may be tried again."""
    http, sdk = shared.http(_name(request)), shared.client(_name(request))
    assert http.put(f"{FILES}/lost", content=BODY).is_success
    ran = sdk.run(command=["sh", "-c", "echo > a.txt"], size="nano")
    download = f"/v1/executions/{ran.id}/artifacts/a.txt"
    asked: list[tuple[str, dict[str, str]]] = [
        (f"{FILES}/lost", {}), (f"{FILES}/lost", {"Range": "bytes=1-2"}), (download, {}),
    ]  # fmt: skip
    assert all(http.get(path, headers=headers).is_success for path, headers in asked)
    for row in shared.sql(
        "SELECT object_key FROM objects JOIN tenants USING (tenant_id) WHERE name = %s",
        _name(request),
    ):
        (shared.stack.settings.objects_dir / row["object_key"]).unlink()
    for path, headers in asked:
        refused = http.get(path, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (
            503,
            "urn:runner:problem:service-unavailable",
        )
        assert int(refused.headers["Retry-After"]) > 0


def test_a_file_is_written_read_listed_and_deleted(client: httpx.Client) -> None:
    """The test follows one file through its whole life."""
    made = client.put(f"{FILES}/data/in.csv", content=BODY, headers={"Content-Type": "text/csv"})
    assert made.status_code == 201
    view = made.json()
    assert (view["path"], view["size"], view["media_type"]) == ("data/in.csv", 10, "text/csv")
    assert view["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert made.headers["etag"] == view["etag"] == f'"{view["sha256"]}"'
    read = client.get(f"{FILES}/data/in.csv")
    assert read.content == BODY
    headers = read.headers
    assert headers["content-digest"] == headers["repr-digest"] == digest(BODY)
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''in.csv"
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    head = client.head(f"{FILES}/data/in.csv")
    assert (head.headers["content-length"], head.headers["etag"]) == ("10", view["etag"])
    assert client.get(FILES).json() == {"items": [view], "next_cursor": None}
    assert client.delete(f"{FILES}/data/in.csv").status_code == 204
    for method in ("GET", "HEAD", "DELETE"):
        assert client.request(method, f"{FILES}/data/in.csv").status_code == 404


def test_an_overwrite_keeps_the_name_and_frees_the_old(
    shared: Deployment, client: httpx.Client, request: pytest.FixtureRequest
) -> None:
    """One name has one file, and the old content no longer counts."""
    first = client.put(f"{FILES}/a", content=b"x" * 1000).json()
    second = client.put(f"{FILES}/a", content=b"y" * 10)
    assert second.status_code == 200
    assert second.json()["created_at"] == first["created_at"]
    assert client.get(f"{FILES}/a").content == b"y" * 10
    assert used(shared, _name(request)) == (10, 1)


@pytest.mark.parametrize(
    ("asked", "content", "says"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", BODY, "bytes 0-9/10"),
        ("bytes=8-999999999999999999", b"89", "bytes 8-9/10"),
        ("bytes=10-", None, "bytes */10"),
        ("bytes=-0", None, "bytes */10"),
        # Several, other units, and nonsense: the whole (RFC 9110, 14.2).
        ("bytes=0-1,3-4", BODY, None),
        ("bytes=4-2", BODY, None),
        ("bytes=-", BODY, None),
        ("items=0-1", BODY, None),
        ("bytes=a-b", BODY, None),
    ],
)
def test_ranges(shared: Deployment, asked: str, content: bytes | None, says: str | None) -> None:
    """One range is answered with these bytes, and one beyond the end with 416."""
    client = shared.http("f-ranges")
    client.put(f"{FILES}/r", content=BODY)
    answer = client.get(f"{FILES}/r", headers={"Range": asked})
    assert answer.headers.get("content-range") == says
    if content is None:
        assert answer.status_code == 416
        return
    assert answer.content == content
    assert answer.status_code == (206 if says else 200)
    assert answer.headers["repr-digest"] == digest(BODY)
    assert ("content-digest" in answer.headers) is (says is None)


def test_a_range_of_what_has_changed_is_the_whole(client: httpx.Client) -> None:
    """With If-Range, a resumed download never gets a mixture."""
    tag = client.put(f"{FILES}/r", content=BODY).headers["etag"]
    asked = {"Range": "bytes=5-", "If-Range": tag}
    assert client.get(f"{FILES}/r", headers=asked).content == b"56789"
    client.put(f"{FILES}/r", content=b"another one")
    assert client.get(f"{FILES}/r", headers=asked).content == b"another one"


def test_what_is_known_is_not_sent_again(client: httpx.Client) -> None:
    """This is If-None-Match for reading."""
    tag = client.put(f"{FILES}/a", content=BODY).headers["etag"]
    for sent in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = client.get(f"{FILES}/a", headers={"If-None-Match": sent})
        assert (answer.status_code, answer.content) == (304, b"")
    assert client.get(f"{FILES}/a", headers={"If-None-Match": '"x"'}).status_code == 200


def test_no_update_is_lost(client: httpx.Client) -> None:
    """`If-None-Match: *` only creates; `If-Match` only changes what was seen."""
    only_new = {"If-None-Match": "*"}
    tag = client.put(f"{FILES}/a", content=b"1", headers=only_new).headers["etag"]
    assert client.put(f"{FILES}/a", content=b"2", headers=only_new).status_code == 412
    seen = {"If-Match": tag}
    assert client.put(f"{FILES}/a", content=b"2", headers=seen).status_code == 200
    for method in ("PUT", "DELETE"):
        late = client.request(
            method, f"{FILES}/a", headers=seen, content=b"" if method == "PUT" else None
        )
        assert late.status_code == 412
    assert client.put(f"{FILES}/none", content=b"", headers={"If-Match": "*"}).status_code == 412
    weak = {"If-Match": "W/" + client.head(f"{FILES}/a").headers["etag"]}
    assert client.put(f"{FILES}/a", content=b"3", headers=weak).status_code == 412
    assert client.put(f"{FILES}/a", content=b"3", headers={"If-Match": "x"}).status_code == 422
    assert (
        client.put(f"{FILES}/a", content=b"3", headers={"If-None-Match": '"x"'}).status_code == 422
    )
    assert client.get(f"{FILES}/a").content == b"2"


@pytest.mark.parametrize("header", [{"If-None-Match": "*"}, {"If-Match": "seen"}])
def test_of_concurrent_writers_that_expect_the_same_one_wins(
    shared: Deployment, client: httpx.Client, header: dict[str, str], request: pytest.FixtureRequest
) -> None:
    """Eight write at once."""
    if "If-Match" in header:
        header = {"If-Match": client.put(f"{FILES}/a", content=b"0").headers["etag"]}
    key = shared.key(_name(request))

    def write(number: int) -> int:
        with bearing(shared.url, key) as own:
            return own.put(
                f"{FILES}/a", content=b"%d" % number * 50_000, headers=header
            ).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(write, range(1, 9)))
    assert statuses in ([200] + [412] * 7, [201] + [412] * 7)
    assert used(shared, _name(request)) == (50_000, 1)


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("Content-Digest", digest),
        ("Repr-Digest", digest),
        ("Content-Digest", lambda content: f"md5=:AAAA:, {digest(content)}"),
        ("Digest", lambda content: digest(content).replace(":", "").replace("sha-256", "SHA-256")),
    ],
)
def test_a_promised_digest_is_checked(
    shared: Deployment, name: str, spelled: "object", request: pytest.FixtureRequest
) -> None:
    """If it is wrong, nothing is stored."""
    assert callable(spelled)
    client = shared.http(_name(request))
    wrong = client.put(f"{FILES}/a", content=BODY, headers={name: spelled(b"other")})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["field"] == "header.content-digest"
    assert client.get(f"{FILES}/a").status_code == 404
    assert client.put(f"{FILES}/a", content=BODY, headers={name: spelled(BODY)}).status_code == 201
    assert used(shared, _name(request)) == (10, 1)


def test_a_broken_digest_is_not_ignored(client: httpx.Client) -> None:
    """Whoever sends one wants it checked; we do not check other algorithms."""
    for sent in ("sha-256=:AAAA:", "sha-256=:!:", "sha-256=::"):
        answer = client.put(f"{FILES}/a", content=BODY, headers={"Content-Digest": sent})
        assert answer.status_code == 422, sent
    other = {"Content-Digest": "sha-512=:AAAA:"}
    assert client.put(f"{FILES}/a", content=BODY, headers=other).status_code == 201


def test_what_is_not_simply_the_file_is_refused(client: httpx.Client) -> None:
    """It has no length, is a part, or is encoded."""
    assert client.put(f"{FILES}/a", content=iter([b"x"])).status_code == 411
    ranged = {"Content-Range": "bytes 0-1/2"}
    assert client.put(f"{FILES}/a", content=b"xx", headers=ranged).status_code == 400
    packed = {"Content-Encoding": "gzip"}
    assert client.put(f"{FILES}/a", content=b"xx", headers=packed).status_code == 415
    assert client.get(FILES).json()["items"] == []


def test_json_is_a_file_like_any(client: httpx.Client) -> None:
    """Nothing parses its content."""
    sent = b'{"a": [[[' * 100
    headers = {"Content-Type": "application/json"}
    assert client.put(f"{FILES}/a.json", content=sent, headers=headers).status_code == 201
    assert client.get(f"{FILES}/a.json").content == sent


def test_other_routes_take_json_alone(client: httpx.Client) -> None:
    """Only routes that stream accept other types."""
    answer = client.post("/v1/executions", content=b"x", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_a_listing_comes_in_pages(client: httpx.Client) -> None:
    """Files come by name, within the prefix, each once."""
    names = [f"p/{n:02}" for n in range(25)]
    for name in (*names, "a", "p", "p0", "q"):
        client.put(f"{FILES}/{name}", content=b"x")
    listed: list[str] = []
    cursor = None
    while True:
        asked = {"prefix": "p/", "limit": "10", **({"cursor": cursor} if cursor else {})}
        page = client.get(FILES, params=asked).json()
        listed += [each["path"] for each in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert listed == names


def test_what_has_expired_is_gone(client: httpx.Client) -> None:
    """It is gone at once, even before it is removed, and its name is free."""
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    made = client.put(f"{FILES}/a", content=b"1", params={"expires_at": soon})
    assert made.json()["expires_at"] is not None
    eventually(lambda: client.get(f"{FILES}/a").status_code == 404)
    assert client.get(FILES).json()["items"] == []
    again = client.put(f"{FILES}/a", content=b"2", headers={"If-None-Match": "*"})
    assert again.status_code == 201


@pytest.fixture
def small(shared: Deployment) -> Iterator[tuple[str, httpx.Client]]:
    """Yield a tenant that may store 1,000 bytes in 3 objects."""
    client = shared.http("f-small")
    shared.sql(
        'UPDATE tenants SET quotas = \'{"storage_bytes": 1000, "stored_objects": 3}\' '
        "WHERE name = 'f-small'"
    )
    yield "f-small", client
    for each in client.get(FILES).json()["items"]:
        client.delete(f"{FILES}/{each['path']}")


def test_a_full_storage_says_which_limit_and_how_full(
    shared: Deployment, small: tuple[str, httpx.Client]
) -> None:
    """It refuses before it reads the body, and deleted space is free at once."""
    name, client = small
    assert client.put(f"{FILES}/a", content=b"x" * 900).status_code == 201
    refused = client.put(f"{FILES}/b", content=b"x" * 101)
    assert refused.status_code == 413
    said = refused.json()
    assert said["type"] == "urn:runner:problem:storage-full"
    assert "storage_bytes is 1000: 900 are used, this takes 101 more" in said["detail"]
    assert client.put(f"{FILES}/b", content=b"x" * 100).status_code == 201
    assert client.put(f"{FILES}/c", content=b"").status_code == 201
    full = client.put(f"{FILES}/d", content=b"")
    assert "stored_objects is 3: 3 are used, this takes 1 more" in full.json()["detail"]
    assert used(shared, name) == (1000, 3)
    client.delete(f"{FILES}/a")
    assert used(shared, name) == (100, 2)
    assert client.put(f"{FILES}/d", content=b"x" * 900).status_code == 201


def test_a_declared_length_is_refused_before_a_byte_is_sent(
    shared: Deployment, small: tuple[str, httpx.Client]
) -> None:
    """The head alone is enough."""
    name, _ = small
    at = httpx.URL(shared.url)
    with socket.create_connection((at.host, at.port or 80), timeout=20) as connection:
        connection.sendall(
            f"PUT {FILES}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n"
            f"Authorization: Bearer {shared.key(name)}\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_concurrent_uploads_do_not_share_the_last_place(
    shared: Deployment, small: tuple[str, httpx.Client]
) -> None:
    """Ten upload 400 bytes at once where 1,000 are allowed: two are stored in any order."""
    name, _ = small
    key = shared.key(name)

    def write(number: int) -> int:
        with bearing(shared.url, key) as own:
            return own.put(f"{FILES}/{number}", content=b"x" * 400).status_code

    with ThreadPoolExecutor(10) as pool:
        statuses = sorted(pool.map(write, range(10)))
    assert statuses == [201] * 2 + [413] * 8
    assert used(shared, name) == (800, 2)


def test_an_upload_that_breaks_off_leaves_nothing(
    shared: Deployment, small: tuple[str, httpx.Client]
) -> None:
    """Its space is reserved while it comes, and free again once it has ended early."""
    name, client = small
    at = httpx.URL(shared.url)
    with socket.create_connection((at.host, at.port or 80), timeout=20) as connection:
        connection.sendall(
            f"PUT {FILES}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"
            f"Authorization: Bearer {shared.key(name)}\r\n\r\nonly this".encode()
        )
        eventually(lambda: used(shared, name) == (900, 1))
        assert client.put(f"{FILES}/b", content=b"x" * 101).status_code == 413
    eventually(lambda: used(shared, name) == (0, 0))
    assert client.get(f"{FILES}/a").status_code == 404
    doomed = shared.sql(
        "SELECT state FROM objects JOIN tenants USING (tenant_id) WHERE name = %s "
        "AND state <> 'doomed'", name,
    )  # fmt: skip
    assert doomed == []


def test_what_was_done_with_a_file_is_audited(client: httpx.Client) -> None:
    """Writes, reads and deletions are recorded with size and sum, never with the content."""
    client.put(f"{FILES}/a", content=BODY)
    client.get(f"{FILES}/a")
    client.delete(f"{FILES}/a")
    records = [each["record"] for each in client.get("/v1/audit").json()["items"]]
    of_file = [each for each in records if each["resource_type"] == "file"]
    assert [each["action"] for each in of_file] == ["file:write", "file:read", "file:delete"]
    assert {each["resource_id"] for each in of_file} == {"a"}
    assert of_file[0]["metadata"]["size"] == 10
    assert BODY.decode() not in str(records)


def test_a_viewer_reads_alone(shared: Deployment) -> None:
    """tests/security/test_roles.py covers roles by route; this test shows that it works."""
    shared.http("f-roles").put(f"{FILES}/a", content=BODY)
    viewer = shared.http("f-roles", Role.VIEWER)
    assert viewer.get(f"{FILES}/a").content == BODY
    assert viewer.put(f"{FILES}/a", content=b"").status_code == 403
    assert viewer.delete(f"{FILES}/a").status_code == 403
