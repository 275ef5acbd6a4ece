"""The example on a framework's page, as its suite runs it."""

from collections.abc import Mapping
from pathlib import Path

from tests.support.environments import ROOT
from tests.support.pages import blocks


def example(page: str, model: str, folder: Path) -> Mapping[str, str]:
    """Write the example of a page to a file; return the variable that tells a suite which.

    Where the page names a model, by `model`, the example has the suite's own, called MODEL.
    """
    code = next(
        each.text for each in blocks("python", ROOT / "docs/integrations" / page) if not each.mark
    )
    assert code.count(model) == 1, f"{page} does not name {model} once"
    path = folder / "example.py"
    path.write_text(code.replace(model, "MODEL"))
    return {"RUNNER_TEST_EXAMPLE": str(path)}
