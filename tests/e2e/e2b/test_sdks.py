"""E2B's unmodified SDKs against a real deployment: each case through each version.

The newest versions are tried whole in their plain form and in JavaScript. Some cases of their
asynchronous form and of the oldest versions are tried, too. All else is marked `matrix`.

Needs an index of Python packages and a registry of npm packages: those that this host's pip and npm
are set to. Three variables of the environment are all that the SDKs are told.
"""

from collections.abc import Iterator

import pytest

from tests.support.e2b_sdks.facts import deployed
from tests.support.e2b_sdks.matrix import Matrix, matrix
from tests.support.e2b_sdks.targets import TARGETS, Target

# The first test of a target waits for its whole program.
pytestmark = pytest.mark.timeout(1000)


@pytest.fixture(scope="module")
def ran(
    image: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Matrix]:
    """Return the selected cases' programs, which run beside each other, in one deployment."""
    chosen: dict[Target, list[str]] = {}
    for item in request.session.items:
        if item.path == request.path and isinstance(item, pytest.Function):
            target, case = (item.callspec.params[name] for name in ("target", "case"))
            assert isinstance(target, Target)
            chosen.setdefault(target, []).append(str(case))
    with deployed() as facts, matrix(tmp_path_factory.mktemp("e2b"), facts, chosen) as running:
        yield running


@pytest.mark.parametrize(
    ("target", "case"),
    [
        pytest.param(
            target,
            case,
            id=f"{target.name}: {case}",
            marks=[pytest.mark.matrix] if target.left_to_matrix(case) else [],
        )
        for target in TARGETS
        for case in target.cases
    ],
)
def test_sdk(ran: Matrix, target: Target, case: str) -> None:
    """A version lacks just what the page says that it lacks."""
    row = ran.row(target, case)
    assert row.outcome == ("lacks" if target.lacks(case) else "works"), row.detail
