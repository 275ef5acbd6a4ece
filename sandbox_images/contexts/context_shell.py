"""IPython's shell, which reports to the node what a notebook would show."""

from __future__ import annotations

import sys
from types import ModuleType

import context_charts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from python_reports import Reports

# IPython imports its terminal, which costs a third of the time and has no use here.
sys.modules["IPython.terminal.embed"] = embedding = ModuleType("IPython.terminal.embed")
embedding.embed = None  # type: ignore[attr-defined]

from IPython.core.displayhook import DisplayHook  # noqa: E402
from IPython.core.displaypub import DisplayPublisher  # noqa: E402
from IPython.core.formatters import BaseFormatter  # noqa: E402
from IPython.core.interactiveshell import InteractiveShell  # noqa: E402
from traitlets import ObjectName, Type, Unicode  # noqa: E402
from traitlets.config import Config  # noqa: E402

del sys.modules["IPython.terminal.embed"]

MOST_NAME = 256
MOST_VALUE = 16 * 1024
MOST_TRACE = 64 * 1024
MOST_DATA = 192 * 1024
"""About how many characters of a data frame's columns are reported."""
DATA = "application/vnd.runner.data+json"
CHART = "application/vnd.runner.chart+json"


def data_of(frame: Any) -> dict[str, Any]:
    """Return a data frame's columns, as far as they fit into a report."""
    most = max(1, MOST_DATA // (32 * max(1, len(frame.columns))))
    part = frame.head(most)
    columns = {str(name): part.iloc[:, n].tolist() for n, name in enumerate(part.columns)}
    return {"columns": columns, "rows": len(frame), "truncated": len(part) < len(frame)}


def chart_of(figure: Any) -> dict[str, Any] | None:
    """Return what a figure of matplotlib draws."""
    try:
        return context_charts.of(figure)
    except Exception:  # noqa: BLE001 - a figure of a kind that nobody thought of has no data
        return None


KINDS: dict[str, tuple[str, str, Callable[[Any], object]]] = {
    DATA: ("pandas.core.frame", "DataFrame", data_of),
    CHART: ("matplotlib.figure", "Figure", chart_of),
}
"""By kind of result, for which class a function makes it."""


class Hook(DisplayHook):  # type: ignore[misc]
    """Reports the value of code's last expression."""

    def __call__(self, result: object = None) -> None:
        """Take the value."""
        self.check_for_underscore()
        if result is None or self.quiet():
            return
        values, _ = self.compute_format_data(result)
        self.update_user_ns(result)
        self.fill_exec_result(result)
        self.shell.reports.result(values, main=True)


class Publisher(DisplayPublisher):  # type: ignore[misc]
    """Reports what code displays."""

    def publish(self, data: dict[str, Any], metadata: object = None, **_: object) -> None:
        """Take a value in its kinds."""
        del metadata
        self.shell.reports.result(data, main=False)

    def clear_output(self, wait: bool = False) -> None:  # noqa: FBT001, FBT002 - IPython's
        """Do nothing: what was reported cannot be taken back."""


class Kind(BaseFormatter):  # type: ignore[misc]
    """A kind of result of ours. What draws figures forgets the functions of other kinds."""

    format_type = Unicode()
    print_method = ObjectName("_repr_runner_")

    def __call__(self, value: object) -> object:
        """Return the value in this kind, or None."""
        module, name, function = KINDS[self.format_type]
        known = getattr(sys.modules.get(module), name, None)
        return function(value) if known is not None and isinstance(value, known) else None


class Shell(InteractiveShell):  # type: ignore[misc]
    """Reports what it shows."""

    displayhook_class = Type(Hook)
    display_pub_class = Type(Publisher)
    reports: Reports

    def _showtraceback(self, etype: Any, evalue: object, stb: list[str]) -> None:
        kind = etype if isinstance(etype, type) else type(etype)
        self.reports.say(
            "error",
            error=kind.__name__[:MOST_NAME],
            value=said(evalue)[:MOST_VALUE],
            traceback=self.InteractiveTB.stb2text(stb)[:MOST_TRACE],
        )

    def system(self, command: str) -> None:
        """Run a command of a shell: its output is ours."""
        self.reports.flush()
        self.system_raw(command)

    def enable_gui(self, gui: str | None = None) -> None:
        """Do nothing: there is no screen."""

    def ask_exit(self) -> None:
        """Go on: a context ends when its caller removes it."""


def make_shell(reports: Reports) -> Any:
    """Return IPython's shell, which reports its results and errors."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    config.InteractiveShell.xmode = "Context"
    config.InteractiveShell.cache_size = 0
    config.InteractiveShell.automagic = False
    config.Completer.use_jedi = False
    shell = Shell.instance(config=config)
    shell.reports = reports
    formatters = shell.display_formatter.formatters
    for mime in KINDS:
        formatters[mime] = Kind(parent=shell.display_formatter, format_type=mime)
    shell.display_formatter.active_types = list(formatters)
    return shell


def said(value: object) -> str:
    """Return the text of an exception, whose class may be the code's own."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - the code's own
        return "<no text>"
