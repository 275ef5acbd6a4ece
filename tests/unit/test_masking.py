"""Secrets are masked in what is stored, in every form that programs print by accident."""

import base64
import html
import json
import os
import random
import re
import shlex
import subprocess
import time
from urllib.parse import quote, quote_plus

import pytest

from runner.base.masking import Masker
from runner.base.masking.forms import encoded, written

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
    "in JSON of PHP": json.dumps({"token": SECRET}).replace("/", "\\/"),
    "in a list that Python prints": str([SECRET]),
    "in bytes that Python prints": repr(SECRET.encode()),
    "in ASCII that Python prints": ascii(SECRET),
    "in hex": SECRET.encode().hex(),
    "in capital hex": SECRET.encode().hex().upper(),
    "in hex with colons": SECRET.encode().hex(":"),
    "in a hex dump": SECRET.encode().hex(" "),
    "in HTML": html.escape(SECRET),
    "in HTML text": html.escape(SECRET, quote=False),
    "in HTML of a template": html.escape(SECRET).replace("&quot;", "&#34;"),
    "quoted for a shell": shlex.quote(SECRET),
}
QUOTED = 'it\'s 8 "bytes" or\\more\nof <it> & so/on'


@pytest.mark.parametrize("name", FORMS)
def test_a_form_of_the_secret_is_starred(name: str) -> None:
    """No five bytes of it are left, and the text around it stays."""
    form = FORMS[name]
    text = f"before {form} after"
    masked = Masker([SECRET]).text(text)
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert len(masked.encode()) == len(text.encode())
    inner = form.removeprefix("b'").strip("{}[]'\" ").removeprefix('token": "')
    assert not [at for at in range(len(inner) - 4) if inner[at : at + 5] in masked]


@pytest.mark.parametrize("before", ["", "x", "xy", "user:", "Bearer "])
def test_base64_of_something_longer_is_starred_at_every_offset(before: str) -> None:
    """Basic authentication makes such text. Few of the secret's own bits are left at its ends."""
    encoded = base64.b64encode(f"{before}{SECRET}###".encode()).decode()
    masked = Masker([SECRET]).text(encoded)
    assert masked.count("*") >= len(SECRET.encode()) * 4 // 3 - 4
    left = base64.b64decode(masked.replace("*", "A"))
    assert SECRET[:3].encode() not in left
    assert SECRET[-3:].encode() not in left


@pytest.mark.parametrize("value", [SECRET, QUOTED, "k3y" * 40])
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\n    ", "\\n", "\\r\\n"])
def test_base64_and_hex_are_starred_at_every_offset_wherever_their_lines_break(
    value: str, line_break: str
) -> None:
    """`base64 FILE`, MIME, PEM, `xxd -p` and strings of JSON print documents in this way."""
    masker = Masker([value])
    for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b16encode):
        for offset in range(80):
            document = "#" * offset + value + "#" * 70
            text = encode(document.encode()).decode()
            for width in (1, 5, 19, 60, 64, 76):
                lines = [text[at : at + width] for at in range(0, len(text), width)]
                masked = masker.text(line_break.join(lines))
                shown = re.sub(r"[\s\\]|(?<=\\)[rn]", "", masked)
                _says_nothing_of(shown, text, value, offset)


def _says_nothing_of(shown: str, text: str, value: str, offset: int) -> None:
    """Check that at most two of the value's own characters are left at each end."""
    bits = 4 if text == text.upper() else 6
    first = -(-offset * 8 // bits)
    last = (offset + len(value.encode())) * 8 // bits
    assert shown.count("*") >= last - first, (shown, offset)
    inner = text[first:last]
    assert inner not in shown
    assert not [at for at in range(len(inner) - 7) if inner[at : at + 8] in shown]


@pytest.mark.parametrize("value", [SECRET, QUOTED])
def test_base64_in_pieces_is_starred_however_it_is_cut(value: str) -> None:
    """A cut at a line break shows fewer than four characters; the rest is masked."""
    document = "some user:" + value + " and so on, for quite a while" * 3
    text = base64.encodebytes(document.encode())
    for cut in range(len(text)):
        stream = Masker([value]).stream()
        masked = stream.feed(text[:cut]) + stream.feed(text[cut:]) + stream.rest()
        assert len(masked) == len(text)
        assert masked.count(b"*") >= len(value) * 4 // 3 - 4 - 3
        whole = Masker([value]).whole(text)
        assert all(
            a == b or text[at] == a for at, (a, b) in enumerate(zip(masked, whole, strict=True))
        )


def test_what_a_line_break_follows_is_not_delayed_for_a_few_characters() -> None:
    """Otherwise, the last line of live output would wait for the next one."""
    stream = Masker([SECRET]).stream()
    line = b"a line ends like base64: " + base64.b64encode(SECRET.encode())[:3] + b"\n"
    assert stream.feed(line) == line
    stream.feed(base64.b64encode(SECRET.encode())[3:])
    assert set(stream.rest() or b"*") == {ord("*")}


def test_what_shells_print_of_a_value_is_starred() -> None:
    """A real shell prints the trace of `set -x`, and `printf %q`."""
    for value in (SECRET, QUOTED):
        printed = subprocess.run(
            ["bash", "-c", 'set -x; : "$V"; set +x; printf "%q\n" "$V" >&2'],
            env={"V": value, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            check=True,
            timeout=10,
        ).stderr.decode()
        masked = Masker([value]).text(printed)
        assert len(re.findall(r"\*{20,}", masked)) == 2, printed


def test_the_forms_of_a_secret_are_few() -> None:
    """This holds however many lines it has: the number of forms decides memory and time."""
    lines = "\n".join(f"{number:08}" for number in range(910))
    assert len(lines.encode()) < 8192
    assert len(written(lines) | encoded(lines)) < 300
    assert len(encoded(SECRET)) < 10
    assert len(written("a" * 40)) == 1


def test_lines_of_a_long_secret_are_starred_one_by_one() -> None:
    """Examples are a key that is logged line by line, and base64 that a tool has wrapped."""
    masker = Masker([KEY])
    for line in KEY.splitlines():
        assert set(masker.text(f"{line}")) == {"*"}
    broken = subprocess.run(
        ["base64"], input=KEY.encode(), capture_output=True, check=True, timeout=10
    ).stdout.decode()
    assert len(broken.splitlines()) > 1
    assert set(masker.text(broken)) == {"*", "\n"}


def test_other_bytes_pass_as_they_are() -> None:
    """Text, binary data, and data that only resembles a secret."""
    masker = Masker([SECRET])
    for data in (b"p4ss/w+r", os.urandom(100_000), SECRET.upper().encode(), b""):
        assert masker.whole(data) == data


def test_without_secrets_nothing_is_looked_for() -> None:
    """An empty value is not a secret."""
    for masker in (Masker([]), Masker([""])):
        assert not masker
        stream = masker.stream()
        assert stream.feed(b"all of it") + stream.rest() == b"all of it"


def test_secrets_that_overlap_are_both_starred() -> None:
    """They are found in the original text, not in what is left of it."""
    assert Masker(["abcdefgh", "efghijkl"]).text("<abcdefghijkl>") == "<************>"


def test_a_secret_in_pieces_is_starred_however_it_is_cut() -> None:
    """The stream has the same result as the whole text."""
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
    """Only what may be the beginning of a secret is held back."""
    stream = Masker([SECRET]).stream()
    assert stream.feed(b"progress: 10%\n") == b"progress: 10%\n"
    assert stream.feed(b"token p4ss") == b"token "
    assert stream.feed(b"ion\n") == b"p4ssion\n"


def test_a_secret_that_the_end_cuts_off_is_starred() -> None:
    """Output ends at its limit, which may be in the middle of a secret."""
    stream = Masker([SECRET]).stream()
    assert stream.feed(b"<" + SECRET.encode()[:10]) + stream.rest() == b"<" + b"*" * 10
    stream = Masker([SECRET]).stream()
    assert stream.feed(b"up") + stream.rest() == b"up"


WORST = ["\n".join(f"{value}{number:07}" for number in range(910)) for value in "abc"]


def test_the_worst_secrets_cost_little_for_each_byte() -> None:
    """Byte by byte and in bulk. A mask that searches each form by itself takes 12 ms a byte."""
    stream = Masker(WORST).stream()
    began = time.process_time()
    for _ in range(500):
        stream.feed(b"x")
    assert (time.process_time() - began) / 500 < 1e-3
    began = time.process_time()
    stream.feed(os.urandom(2**20))
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("values", "output"),
    [
        (["a" * 4000 + "b" + "a" * 4000], b"a" * 2**20),
        (["ab" * 4000 + "b"], b"ab" * 2**19),
        (["a" * each + "b" for each in range(8, 250)], (b"a" * 30 + b"c") * 2**15),
        (["abcdefgh" + f"{each:05}" for each in range(2000)], b"abcdefgh99999xx" * 2**16),
        (["MDEyMzQ1Njc4OTAxMjM0NTY3ODkw" * 200], b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkw " * 2**15),
        (["k3y" * 2000], base64.b64encode(b"k3y" * 1999) + b"\n" * 2**20),
    ],
    ids=["one letter", "two letters", "nested", "one head", "base64", "breaks"],
)
def test_hostile_secrets_and_output_cost_time_that_is_linear(
    values: list[str], output: bytes
) -> None:
    """They match nearly everywhere: a mebibyte takes less than a second, in large pieces."""
    stream = Masker(values).stream()
    output = output[: 2**20]
    began = time.process_time()
    for at in range(0, len(output), 2**16):
        stream.feed(output[at : at + 2**16])
    assert time.process_time() - began < 1.0
