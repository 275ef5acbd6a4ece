"""Signed texts: what verifies them, and that nothing else does."""

import base64
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rfc8785

from runner.base import signing
from runner.base.signing import (
    BadSignature,
    PublicKey,
    Signer,
    TrustedKeys,
    read_public_key,
    verify,
)

KIND = "agent-runner/test/v1"
BODY = {"a": 1, "b": ["x", {"c": None}], "d": 0.5}


def test_what_was_signed_is_read_back(tmp_path: Path) -> None:
    """The public key is all that is needed."""
    signer = Signer.open(tmp_path)
    (key,) = signer.public_keys
    assert verify(signer.sign(KIND, BODY), KIND, (read_public_key(key.pem),)) == BODY


def test_a_signed_text_is_canonical(tmp_path: Path) -> None:
    """This includes the signature: writing the same content again gives the same bytes."""
    body = {"z": [1, 0.5, None], "type": "t", "signature": "s", "\u00e9": {"b": 1, "a": '"\n'}}
    text = Signer.open(tmp_path).sign("kind/\u00e9", body)
    assert rfc8785.dumps(json.loads(text)).decode() == text
    assert json.loads(text)["body"] == body


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace('"a":1', '"a":2'), "does not fit"),
        (lambda text: text.replace('"a":1', '"a":1,"z":1'), "does not fit"),
        (lambda text: text.replace('"a":1', '"a":1,"a":1'), "twice"),
        (lambda text: text.replace(KIND, "agent-runner/other/v1"), "not of type"),
        (lambda text: text[:-9], "not JSON"),
        (lambda _: "[]", "not a signed document"),
        (lambda text: json.dumps({**json.loads(text), "extra": 1}), "not a signed document"),
        (lambda text: json.dumps({**json.loads(text), "signature": "AAAA"}), "does not fit"),
        (lambda text: json.dumps({**json.loads(text), "signature": "*"}), "not canonical"),
        (lambda text: json.dumps({**json.loads(text), "signature": 7}), "not canonical"),
        (lambda text: json.dumps({**json.loads(text), "signature": "\u00e9"}), "not canonical"),
        (lambda text: json.dumps({**json.loads(text), "key": "0" * 16}), "not trusted"),
        (lambda text: json.dumps({**json.loads(text), "key": []}), "not trusted"),
        (lambda text: text.replace('"a":1', '"a":' + "[" * 900 + "]" * 900), "does not fit|JSON"),
        (lambda text: text.replace('"a":1', '"a":"\\ud800"'), "does not fit"),
        (lambda text: text.replace('"a":1', '"a":' + "1" * 5000), "not JSON"),
    ],
)
def test_whatever_was_changed_is_found(tmp_path: Path, change: object, why: str) -> None:
    """A value, a field, the kind, the key, or the end was changed."""
    signer = Signer.open(tmp_path)
    text = signer.sign(KIND, BODY)
    assert callable(change)
    with pytest.raises(BadSignature, match=why):
        verify(change(text), KIND, signer.public_keys)


def test_a_signature_is_written_in_one_way(tmp_path: Path) -> None:
    """The last digit of base64 has bits that decode to nothing; the control shows that."""
    signer = Signer.open(tmp_path)
    document = json.loads(signer.sign(KIND, BODY))
    signature = document["signature"]
    others = [f"{signature[:-3]}{digit}==" for digit in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"]
    same = [
        other for other in others
        if other != signature and base64.b64decode(other) == base64.b64decode(signature)
    ]  # fmt: skip
    for other in (*same, signature + "\n", signature[:-2]):
        with pytest.raises(BadSignature, match="not canonical"):
            verify(json.dumps({**document, "signature": other}), KIND, signer.public_keys)


def test_an_operator_adds_a_key_and_nothing_else_does(tmp_path: Path) -> None:
    """It is another node's key, identified by its own bytes, whatever its file is called."""
    ours, theirs = Signer.open(tmp_path / "a"), Signer.open(tmp_path / "b")
    trusted = TrustedKeys(tmp_path / "a")
    assert trusted.read() == ours.public_keys
    assert trusted.add(theirs.public_keys[0].pem).id == theirs.key_id
    path = trusted.folder / f"{theirs.key_id}.pub"
    path.rename(trusted.folder / f"{ours.key_id[::-1]}.pub")
    assert {key.id for key in trusted.read()} == {ours.key_id, theirs.key_id}
    assert verify(theirs.sign(KIND, BODY), KIND, trusted.read()) == BODY
    for text in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "\u00e9"):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
            trusted.add(text)


def test_public_keys_of_earlier_releases_move_to_where_the_api_may_read_them(
    tmp_path: Path,
) -> None:
    """They used to lie beside the private keys."""
    before = Signer.open(tmp_path)
    text = before.sign(KIND, BODY)
    (public,) = TrustedKeys(tmp_path).folder.glob("*.pub")
    public.rename(tmp_path / "keys" / public.name)
    signing.rotate(tmp_path)
    assert verify(text, KIND, Signer.open(tmp_path).public_keys) == BODY
    assert list((tmp_path / "keys").glob("*.pub")) == []


def test_one_kind_is_not_another(tmp_path: Path) -> None:
    """A text of another kind does not verify as this one, whatever its body is."""
    signer = Signer.open(tmp_path)
    text = signer.sign("agent-runner/other/v1", BODY)
    forged = text.replace("agent-runner/other/v1", KIND)
    with pytest.raises(BadSignature, match="does not fit"):
        verify(forged, KIND, signer.public_keys)


def test_another_deployments_key_is_not_ours(tmp_path: Path) -> None:
    """It is refused as an unknown key, and also in the place of a known one."""
    ours, theirs = Signer.open(tmp_path / "a"), Signer.open(tmp_path / "b")
    text = theirs.sign(KIND, BODY)
    with pytest.raises(BadSignature, match="not trusted"):
        verify(text, KIND, ours.public_keys)
    posing = (PublicKey(theirs.key_id, ours.public_keys[0].pem),)
    with pytest.raises(BadSignature, match="does not fit"):
        verify(text, KIND, posing)


def test_after_a_rotation_old_texts_verify_and_the_old_key_is_gone(tmp_path: Path) -> None:
    """The new key signs new texts."""
    before = Signer.open(tmp_path)
    text = before.sign(KIND, BODY)
    made = signing.rotate(tmp_path)
    after = Signer.open(tmp_path)
    assert after.key_id == made.id != before.key_id
    assert verify(text, KIND, after.public_keys) == BODY
    assert verify(after.sign(KIND, BODY), KIND, after.public_keys) == BODY
    assert len(list((tmp_path / "keys").glob("*.pem"))) == 1


def test_two_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    """The first one's key counts."""
    with ThreadPoolExecutor(8) as pool:
        ids = {signer.key_id for signer in pool.map(lambda _: Signer.open(tmp_path), range(8))}
    assert len(ids) == 1
    assert len(TrustedKeys(tmp_path).read()) == 1


def test_the_private_key_is_the_owners_alone(tmp_path: Path) -> None:
    """Its repr does not reveal it either."""
    signer = Signer.open(tmp_path)
    (path,) = (tmp_path / "keys").glob("*.pem")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "PRIVATE" not in repr(signer)
