"""The SDKs that are tried, and their versions."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tests.support.e2b_sdks.cases import CASES

Form: TypeAlias = Literal["sync", "async", "node"]
SCRIPT = Path(__file__).with_name("sdk.mjs")


VERSIONS = ("2.20.*", "2.31.0", "2.35.0", "2.48.0", "2.52.*", "newest")
"""Of `e2b` in Python, oldest first: from crewai-tools (2.20) over openai-agents (2.31.0), verifiers
(2.35), the pydantic harness (2.48) and harbor (2.52) to today's."""
SINCE = {
    "command_stdin_ends": "2.31.0",
    "network_rules_are_changed": "2.31.0",
    "metadata_of_files_are_refused": "2.31.0",
    "forked": "2.35.0",
    "image_of_a_new_version_that_is_unknown": "2.48.0",
    "listed_by_template": "2.48.0",
    "listed_in_either_order": "2.48.0",
    "secrets_are_missing": "2.48.0",
    "workload_identity_is_refused": "2.48.0",
    "files_are_copied_into_a_template": "2.52.*",
    "command_takes_a_stream_of_input": "newest",
    "terminal_takes_a_stream_of_input": "newest",
}
"""The first of these versions that has what a case is about; all have what is not here."""
STANDS_FOR = 5
"""Every fifth case of a version stands for the others where `make test` tries some of them."""


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

    def left_to_matrix(self, case: str) -> bool:
        """Return whether only `make matrix` tries a case of it.

        The newest is tried whole in its plain form and in JavaScript. Its asynchronous classes send
        the same requests, and so does the oldest: of both, some cases stand for the others.
        """
        if self.form == "node" or self.whole:
            return False
        between = self.package == "e2b" and self.version in VERSIONS[1:-1]
        if between or (self.form == "async" and not self.newest):
            return True
        return self.cases.index(case) % STANDS_FOR != 0 and not self.lacks(case)

    @property
    def whole(self) -> bool:
        """Whether it also tries the cases that one version is enough for."""
        return self.newest and self.form == "sync"

    @property
    def cases(self) -> tuple[str, ...]:
        """The names of its cases."""
        if self.form == "node":
            return script_cases(self.package)
        tried = CASES[self.package.replace("-", "_")].of_version(whole=self.whole)
        return tuple(each.name for each in tried)

    def lacks(self, case: str) -> bool:
        """Return whether this version does not have what a case is about."""
        if self.package != "e2b" or self.form == "node":
            return False
        return VERSIONS.index(self.version) < VERSIONS.index(SINCE.get(case, VERSIONS[0]))


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
    *(each for version in reversed(VERSIONS[:-1]) for each in _python("e2b", version)),
    *_python("e2b-code-interpreter", "2.9.*", also="e2b==2.48.0"),
)
"""From 2.9.0 on, the code interpreter honours `E2B_SANDBOX_URL`; 2.9 permits an `e2b` that it does
not work with, and has one of its time here."""
