"""Variables in what E2B's clients set: `$NAME` stands for a value, as in a Dockerfile."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.templates.steps import MOST_ENV, size_of

_VARIABLE = re.compile(
    r"\\(?P<escaped>\$)|\$(?:(?P<name>[A-Za-z_]\w*)|"
    r"\{(?P<braced>[A-Za-z_]\w*)(?::(?P<mark>[-+])(?P<word>[^}$]*))?\})",
    re.ASCII,
)


@dataclass(slots=True)
class Variables:
    """The variables that are set so far. A name that is not set stands for nothing."""

    values: dict[str, str] = field(repr=False)
    _set_bytes: int = 0
    """The size of all that steps have set, even if a later step has set it again."""

    def expanded(self, text: str) -> str:
        """Return the text with values in place of variables. Raises ValueError if it is too long.

        `${NAME:-word}` and `${NAME:+word}` mean what they mean in a Dockerfile. A backslash before
        a dollar makes it a dollar.
        https://docs.docker.com/reference/dockerfile/#environment-replacement
        """
        found = _VARIABLE.finditer(text)
        size = len(text) + sum(len(self._value(each)) - len(each[0]) for each in found)
        # Before it is made: a short text may name a long value many times.
        if size > MOST_ENV:
            raise ValueError(f"expanded, it has {size} characters; {MOST_ENV} are allowed")
        return _VARIABLE.sub(self._value, text)

    def set(self, given: Mapping[str, str]) -> dict[str, str]:
        """Set variables, and return what they hold. All of them see what was set before.

        Raises ValueError if all that was set takes more than `MOST_ENV` bytes.
        """
        made: dict[str, str] = {}
        for name, value in given.items():
            made[name] = self.expanded(value)
            self._set_bytes += size_of({name: made[name]})
            if self._set_bytes > MOST_ENV:
                raise ValueError(f"the variables of all steps may take {MOST_ENV} bytes together")
        self.values |= made
        return made

    def _value(self, found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        value = self.values.get(found["name"] or found["braced"], "")
        match found["mark"]:
            case "-":
                return value or found["word"]
            case "+":
                return found["word"] if value else ""
        return value
