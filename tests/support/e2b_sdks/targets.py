"""The SDKs that are tried, and their versions."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tests.support.e2b_sdks.cases import CASES

Form: TypeAlias = Literal["sync", "async", "node"]
SCRIPT = Path(__file__).with_name("sdk.mjs")


@dataclass(frozen=True)
class Target:
    """An SDK in one version and one form. The `newest` must have everything."""

    package: str
    requirement: str
    version: str
    form: Form
    newest: bool = False

    @property
    def name(self) -> str:
        """Its name in reports."""
        return f"{self.package} {self.version} {self.form}"

    @property
    def cases(self) -> tuple[str, ...]:
        """The names of its cases."""
        if self.form == "node":
            return script_cases(self.package)
        return tuple(CASES[self.package.replace("-", "_")])


def script_cases(package: str) -> tuple[str, ...]:
    """Return the names of a package's cases in JavaScript, which are methods of one object."""
    text = SCRIPT.read_text()
    of_package = rf'^  "{re.escape(package)}": \{{$(.*?)^  \}},$'
    (body,) = re.findall(of_package, text, re.MULTILINE | re.DOTALL)
    return tuple(re.findall(r"^    async (\w+)\(", body, re.MULTILINE))


def _python(package: str, version: str, *, also: str = "") -> tuple[Target, Target]:
    newest = version == "newest"
    requirement = package if newest else f"{package}=={version}"
    asked = f"{requirement} {also}".strip()
    return (
        Target(package, asked, version, "sync", newest),
        Target(package, asked, version, "async", newest),
    )


TARGETS: tuple[Target, ...] = (
    *_python("e2b", "newest"),
    *_python("e2b-code-interpreter", "newest"),
    Target("e2b", "e2b", "newest", "node", newest=True),
    Target("@e2b/code-interpreter", "@e2b/code-interpreter", "newest", "node", newest=True),
    *_python("e2b", "2.52.*"),
    *_python("e2b", "2.48.0"),
    *_python("e2b", "2.35.0"),
    *_python("e2b", "2.31.0"),
    *_python("e2b", "2.20.*"),
    *_python("e2b-code-interpreter", "2.9.*", also="e2b==2.48.0"),
)
"""From crewai-tools (2.20) over openai-agents (2.31.0), verifiers (2.35), the pydantic harness
(2.48) and harbor (2.52) to today's. From 2.9.0 on, the code interpreter honours
`E2B_SANDBOX_URL`; 2.9 permits an `e2b` that it does not work with, and has one of its time here."""
