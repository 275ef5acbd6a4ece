"""A file of authorities that cannot be used is told in one line, with the setting and why."""

import ssl
from base64 import b64encode
from pathlib import Path

import pytest

from runner.network.roots import read_roots
from runner.words.errors import SetupError

BEGIN, END = "-----BEGIN CERTIFICATE-----\n", "\n-----END CERTIFICATE-----\n"
WRONG = {
    "no certificate": "hello\n",
    "base64 of anything": b64encode(bytes(3000)).decode(),
    "nothing": "",
    "a certificate of anything": BEGIN + b64encode(bytes(300)).decode() + END,
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_certificate_is_told(name: str, tmp_path: Path) -> None:
    file = tmp_path / "roots.pem"
    file.write_text(WRONG[name])
    with pytest.raises(SetupError) as wrong:
        read_roots(file)
    told = wrong.value.detail
    assert told.startswith(f"RUNNER_EGRESS_ROOTS: {file} ")
    assert "None" not in told
    assert "\n" not in told


@pytest.mark.parametrize(("place", "why"), [("missing", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_told(place: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=why):
        read_roots(tmp_path / place)


def test_the_systems_bundle_is_taken() -> None:
    bundle = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    assert bundle.stat().st_size > 100_000
    assert read_roots(bundle) == bundle.read_text()
