"""Commands that pass on a command line of the user's own, word by word."""

import shlex
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperOption

END_OF_OPTIONS = "--"


class PassesOn(TyperCommand):
    """A command whose last argument is passed on to a program.

    Our options may stand anywhere before the first word that is passed on. From there on, every
    word belongs to the program: in `exec ID python3 -c CODE`, `-c` is python3's.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Mark where the passed-on words begin, and parse."""
        ours_left = sum(isinstance(each, TyperArgument) for each in self.params) - 1
        at = 0
        while at < len(args) and args[at] != END_OF_OPTIONS:
            word = args[at]
            if word.startswith("-") and word != "-":
                unknown, takes_next = self._read(word, set(ctx.help_option_names))
                if unknown and ours_left == 0:
                    whole = [*ctx.command_path.split(), *args[:at], END_OF_OPTIONS, *args[at:]]
                    ctx.fail(
                        f"{ctx.command_path} has no option {unknown}. To pass it on to the "
                        f"program, put -- before it: {shlex.join(whole)}"
                    )
                at += takes_next
            elif ours_left == 0:
                args = [*args[:at], END_OF_OPTIONS, *args[at:]]
                break
            else:
                ours_left -= 1
            at += 1
        return super().parse_args(ctx, args)

    def _read(self, word: str, known: set[str]) -> tuple[str | None, bool]:
        """Return the first option in a word that is not ours, and whether its value comes next."""
        options = [each for each in self.params if isinstance(each, TyperOption)]
        known |= {name for each in options for name in (*each.opts, *each.secondary_opts)}
        valued = {name for each in options if not each.is_flag for name in each.opts}
        if word.startswith("--"):
            name = word.partition("=")[0]
            return (None if name in known else name), word in valued
        # Several options of one letter may share a word; a value may follow in it: -de A=B, -eA=B.
        for at, letter in enumerate(word[1:], start=2):
            if f"-{letter}" not in known:
                return f"-{letter}", False
            if f"-{letter}" in valued:
                return None, at == len(word)
        return None, False
