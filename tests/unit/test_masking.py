"""Secrets are starred out of what is stored, in every form that programs print by accident."""

import base64
import json
import os
import random
import re
import subprocess
import time
from urllib.parse import quote, quote_plus

import pytest

from runner.masking import Masker

SECRET = 'p4ss/w+rd "é" & more'  # noqa: S105 - made up
KEY = "-----BEGIN KEY-----\n" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\n" * 4 + "-----END KEY-----\n"

FORMS = {
    "as it is": SECRET,
    "in base64": base64.b64encode(SECRET.encode()).decode(),
    "in base64 for URLs": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "percent-encoded": quote(SECRET, safe=""),
    "percent-encoded, but for slashes": quote(SECRET),
    "percent-encoded in small letters": re.sub(
        "%..", lambda found: found[0].lower(), quote(SECRET)
    ),
    "percent-encoded by a browser": quote(SECRET, safe="!'()*~"),
    "in a form": quote_plus(SECRET),
    "in JSON": json.dumps({"token": SECRET}),
    "in JSON with its letters": json.dumps({"token": SECRET}, ensure_ascii=False),
    "in a list that Python prints": str([SECRET]),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_of_the_secret_is_starred(name: str) -> None:
    """Nothing of five bytes of it is left, and what stands around it is."""
    form = FORMS[name]
    text = f"before {form} after"
    masked = Masker([SECRET]).text(text)
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert len(masked.encode()) == len(text.encode())
    inner = form.strip("{}[]'\" ").removeprefix('token": "')
    assert not [at for at in range(len(inner) - 4) if inner[at : at + 5] in masked]


@pytest.mark.parametrize("before", ["", "x", "xy", "user:", "Bearer "])
def test_base64_of_something_longer_is_starred_at_every_offset(before: str) -> None:
    """As in basic authentication; of the secret's own bits few are left at its two ends."""
    encoded = base64.b64encode(f"{before}{SECRET}###".encode()).decode()
    masked = Masker([SECRET]).text(encoded)
    assert masked.count("*") >= len(SECRET.encode()) * 4 // 3 - 4
    left = base64.b64decode(masked.replace("*", "A"))
    assert SECRET[:3].encode() not in left
    assert SECRET[-3:].encode() not in left


def test_lines_of_a_long_secret_are_starred_one_by_one() -> None:
    """A key that is logged line by line, and base64 that a tool has broken into lines."""
    masker = Masker([KEY])
    for line in KEY.splitlines():
        assert set(masker.text(f"{line}")) == {"*"}
    broken = subprocess.run(
        ["base64"], input=KEY.encode(), capture_output=True, check=True, timeout=10
    ).stdout.decode()
    assert len(broken.splitlines()) > 1
    assert set(masker.text(broken)) == {"*", "\n"}


def test_other_bytes_pass_as_they_are() -> None:
    """Text, binary, and what merely resembles a secret."""
    masker = Masker([SECRET])
    for data in (b"p4ss/w+r", os.urandom(100_000), SECRET.upper().encode(), b""):
        assert masker.whole(data) == data


def test_without_secrets_nothing_is_looked_for() -> None:
    """An empty value is none."""
    for masker in (Masker([]), Masker([""])):
        assert not masker
        stream = masker.stream()
        assert stream.feed(b"all of it") + stream.rest() == b"all of it"


def test_secrets_that_overlap_are_both_starred() -> None:
    """Found in what was there, not in what is left of it."""
    assert Masker(["abcdefgh", "efghijkl"]).text("<abcdefghijkl>") == "<************>"


def test_a_secret_in_pieces_is_starred_however_it_is_cut() -> None:
    """The stream says what the whole says."""
    chance = random.Random(7)  # noqa: S311 - cuts, not keys
    masker = Masker([SECRET, "abab-xyz-q", "b-xyz-q-long"])
    parts = [SECRET, "abab-xyz-q", "ab", "b-xyz-q-long", "-xyz", " ", "\n", SECRET[:9]]
    for _ in range(400):
        data = "".join(chance.choices(parts, k=8)).encode() + b"."
        stream, taken, at = masker.stream(), b"", 0
        while at < len(data):
            size = chance.randint(1, 12)
            taken += stream.feed(data[at : at + size])
            at += size
        taken += stream.rest()
        assert taken == masker.whole(data)
        assert SECRET.encode() not in taken


def test_other_output_is_not_delayed() -> None:
    """Held back is only what may be the beginning of a secret."""
    stream = Masker([SECRET]).stream()
    assert stream.feed(b"progress: 10%\n") == b"progress: 10%\n"
    assert stream.feed(b"token p4ss") == b"token "
    assert stream.feed(b"ion\n") == b"p4ssion\n"


def test_a_secret_that_the_end_cuts_off_is_starred() -> None:
    """Output ends where its limit is, in the middle of a secret as well."""
    stream = Masker([SECRET]).stream()
    assert stream.feed(b"<" + SECRET.encode()[:10]) + stream.rest() == b"<" + b"*" * 10
    stream = Masker([SECRET]).stream()
    assert stream.feed(b"up") + stream.rest() == b"up"


def test_hostile_patterns_do_not_hold_the_worker_up() -> None:
    """A secret and an output made to match nearly everywhere: below a second for a mebibyte."""
    stream = Masker(["a" * 4000 + "b" + "a" * 4000]).stream()
    began = time.process_time()
    for _ in range(16):
        stream.feed(b"a" * 65536)
    assert time.process_time() - began < 1.0
