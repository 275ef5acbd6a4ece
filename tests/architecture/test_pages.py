"""Links on pages lead somewhere, and each block of commands says how it is tested."""

import re
from pathlib import Path

import pytest

from tests.support.pages import EXAMPLE, PAGES, ROOT, anchors, blocks, links, paths

COMMAND = r"^\$? ?(curl|docker|make|runner) "


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        known = target.suffix != ".md" or not anchor or anchor in anchors(target)
        if not (target.exists() and target.is_relative_to(ROOT) and known):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    assert [path for path in sorted(paths(page)) if not (ROOT / path).exists()] == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `title`, twice\n# A `title`, twice\n[a](gone.md) [b](#a-title) [c](#x)\n")
    assert anchors(page) == {"a-title-twice", "a-title-twice-1"}
    assert broken(page) == ["gone.md", "#a-title", "#x"]


def test_every_page_of_docs_can_be_reached_from_the_readme() -> None:
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen:
            continue
        seen.add(page)
        paths = [link.partition("#")[0] for link in links(page)]
        ahead += [(page.parent / path).resolve() for path in paths if path.endswith(".md")]
    assert [page for page in PAGES if page not in seen and "docs" in page.parts] == []


def test_the_list_of_decisions_has_them_all_by_their_titles() -> None:
    folder = ROOT / "docs/decisions"
    titles = {
        path.name: path.read_text().partition("\n")[0].partition(". ")[2]
        for path in folder.glob("0*.md")
    }
    listed = re.findall(
        r"^\| \[\d{4}\]\((\S+)\) \| (.*) \|$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert dict(listed) == titles


def test_every_block_of_commands_says_how_it_is_tested() -> None:
    """Named steps belong to a longer procedure, which tests/e2e/test_operations_docs.py runs."""
    marks = {each.mark for each in blocks("sh")}
    assert {"", EXAMPLE, "install", "back-up"} <= marks
    for other in ("bash", "console", "shell"):
        assert list(blocks(other)) == [], "say `sh`: that is what is run"
    plain = [each for each in blocks("") if re.search(COMMAND, each.text, re.MULTILINE)]
    assert plain == [], "say `sh`: that is what is run"
