"""The pages that people read: their blocks of code, their headings and their links.

The word behind the language of a block says how a test runs it; readers do not see it:

    sh           runs as it stands, against a deployment (tests/e2e/test_pages.py)
    sh NAME      a step of installing, backing up or restoring (tests/e2e/test_operations_docs.py)
    sh example   holds what only the reader knows, or would change the host: not run
"""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "sdk").rglob("*.md")])
EXAMPLE = "example"
_BLOCK = re.compile(r"^( *)```([^\n`]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(.*)$", re.MULTILINE)
_PATH = re.compile(
    r"`((?:benchmarks|deploy|docs|profiles|runner|sandbox_images|scripts|sdk|tests)/[^`\s]*?)(?:::\w+)?`"
)
_LINK = re.compile(r"\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str, page: Path | None = None) -> Iterator[Block]:
    """Yield the blocks of one language, or of none, of one page or of all."""
    for each in PAGES if page is None else [page]:
        text = each.read_text()
        for found in _BLOCK.finditer(text):
            words = found[2].split()
            if words[:1] == ([language] if language else []):
                line = text.count("\n", 0, found.start()) + 1
                mark = " ".join(words[1:])
                path = str(each.relative_to(ROOT))
                yield Block(path, line, language, mark, textwrap.dedent(found[3]))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    made: Counter[str] = Counter()
    found = set()
    for title in _HEADING.findall(_prose(page)):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        found.add(f"{slug}-{made[slug]}" if made[slug] else slug)
        made[slug] += 1
    return found


def links(page: Path) -> list[str]:
    """Return the targets of a page's links that stay within the project."""
    return [each for each in _LINK.findall(_prose(page)) if not re.match(r"[a-z]+:", each)]


def paths(page: Path) -> set[str]:
    """Return the paths of the project that a page names as code."""
    return set(_PATH.findall(page.read_text()))


def _prose(page: Path) -> str:
    return re.sub(r"`[^`\n]*\]\([^`\n]*`", "", _BLOCK.sub("", page.read_text()))
