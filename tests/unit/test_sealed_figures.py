"""The raw figures of a benchmark are signed: whoever changes one afterwards is found out."""

from pathlib import Path

import pytest

from benchmarks import sealed
from runner.base.signing import BadSignature, Signer


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    """Return a file of figures."""
    path = tmp_path / "performance.json"
    path.write_text('{"took": [0.1, 0.2]}\n')
    return path


def test_figures_that_were_changed_are_found(figures: Path, tmp_path: Path) -> None:
    signer = Signer.open(tmp_path / "host")
    sealed.seal(figures, signer, "abc")
    assert sealed.check(figures, signer.public_keys)["revision"] == "abc"
    figures.write_text(figures.read_text().replace("0.2", "0.1"))
    with pytest.raises(BadSignature, match="changed since"):
        sealed.check(figures, signer.public_keys)


def test_a_signature_by_somebody_else_is_none(figures: Path, tmp_path: Path) -> None:
    """Whoever changes the figures can sign them, but not with the host's key."""
    signer = Signer.open(tmp_path / "host")
    sealed.seal(figures, Signer.open(tmp_path / "elsewhere"), "abc")
    with pytest.raises(BadSignature, match="not trusted here"):
        sealed.check(figures, signer.public_keys)


def test_a_receipt_is_no_signature_of_figures(figures: Path, tmp_path: Path) -> None:
    """The same key signs receipts, whose content a tenant chooses in part."""
    signer = Signer.open(tmp_path / "host")
    sealed.seal(figures, signer, "abc")
    body = sealed.check(figures, signer.public_keys)
    sealed.beside(figures).write_text(signer.sign("runner.receipt.v1", body))
    with pytest.raises(BadSignature, match="not of type"):
        sealed.check(figures, signer.public_keys)
