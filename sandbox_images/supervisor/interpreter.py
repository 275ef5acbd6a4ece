"""A Python program in the interpreter that is here already, forked, instead of a new one.

To the program it is a new one: its own `__main__`, arguments, environment, streams, signals and
random numbers; what cannot be had so, because an interpreter decides it when it starts, is left to
a new one (`suits`). The modules of the image's list are imported already.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import itertools
import os
import signal
import sys
import time
from types import CodeType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Mapping
    from typing import Any, NoReturn, TextIO

FOLDER = os.path.dirname(os.path.abspath(__file__))
LIST = os.path.join(FOLDER, "preload.txt")
OURS = frozenset(name[:-3] for name in os.listdir(FOLDER) if name.endswith(".py")) - {"__main__"}
"""The supervisor's modules, which no program is to find."""
AT_START = ("PYTHON", "LD_", "LC_", "LANG", "GLIBC_", "MALLOC_", "HOME", "OPENSSL_")
"""Variables that take effect when an interpreter starts, by what their names begin with."""
AT_IMPORT = ("OPENBLAS_", "OMP_", "MKL_", "NUMEXPR_", "MPL", "NPY_", "PANDAS_", "TZ")
"""Variables that a module of a list may look at when it is imported."""
STDERR = 2
UNFLUSHED = 120
"""The exit code of an interpreter whose output could not be written at its end."""
EITHER_WAY = frozenset({"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"})


class Script:
    """A program to run here: its file's name with its arguments, and its environment."""

    def __init__(self, argv: list[str], env: Mapping[str, str]) -> None:
        self.argv = argv
        self.env = env


def load() -> list[str]:
    """Import the image's list, and keep it out of the collector's way; return what failed."""
    failed = []
    with open(LIST) as names:
        for name in names.read().split():
            try:
                __import__(name)
            except ImportError:
                failed.append(name)
    if len(os.listdir("/proc/self/task")) > 1:
        # A fork takes one thread along: what the others hold would be held for ever.
        raise RuntimeError("a module of the list started a thread")
    gc.collect()
    gc.freeze()
    return failed


def suits(env: Mapping[str, str]) -> bool:
    """Return whether a program with this environment, in this folder, may run here."""
    if any(name.startswith(AT_START + AT_IMPORT) for name in env.keys() - EITHER_WAY):
        return False
    # Modules of the program's own that are named as one that is loaded: they would not be found.
    loaded = sys.modules.keys() - OURS
    if any(name.removesuffix(".py").partition(".cpython")[0] in loaded for name in os.listdir(".")):
        return False
    return not os.path.isdir(sys.modules["site"].USER_SITE)


def rehearse() -> None:
    """Do for nothing what a run does, ahead of it; nothing of it stays but what that makes ready.

    PID 1 does so once: what an interpreter makes for the first program that it compiles is there
    then for all, which took a third of each one's time. Each fork does: what it touches first is
    copied for it then.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for mode in ("r", "w"):
        _stream(null, mode, sys.stdout, unbuffered=mode == "w").flush()
    os.close(null)
    exec(compile("len('')", LIST, "exec", dont_inherit=True), {})  # noqa: S102 - as in a run
    _reseed()
    suits({})
    gc.collect()


def run(script: Script) -> NoReturn:
    """Run it to its end, and end this process as an interpreter does."""
    os.environ.update(script.env)
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _open_streams(unbuffered=bool(os.environ.get("PYTHONUNBUFFERED")))
    _reseed()
    for name in OURS & sys.modules.keys():
        del sys.modules[name]
    sys.path_importer_cache.pop(FOLDER, None)
    folder = os.getcwd()
    sys.path[0] = folder
    sys.argv = script.argv[1:]
    sys.orig_argv = list(script.argv)
    path = os.path.join(folder, script.argv[1])
    try:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        # What is no program is told best by who is asked to run it from a file.
        start_anew(script.argv, os.environ)
    namespace = _new_main(path)
    last = next(reversed(sys.modules))
    status = _execute(code, namespace)
    _end(status, folder, last)


def start_anew(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become another program (execve(2))."""
    # Python ignores these two for itself, and an ignored signal stays so across exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell is the point


def _execute(code: CodeType, namespace: dict[str, Any]) -> int:
    """Run the program in its `__main__`; return its exit code, negative for a signal's number."""
    try:
        exec(code, namespace)  # noqa: S102 - a program is here to be run
    except SystemExit as error:
        return _exit_code(error.code)
    except BaseException as error:  # noqa: BLE001 - reported as an interpreter reports it
        # The frame of this function is none of the program's.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except SystemExit as instead:
            return _exit_code(instead.code)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _exit_code(given: object) -> int:
    """Return what `sys.exit` with this value means; a text is a message."""
    if given is None:
        return 0
    if isinstance(given, int):
        return given & 0xFF
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    print(given, file=sys.stderr)  # noqa: T201 - what `sys.exit` was given
    return 1


def _end(code: int, folder: str, last: str) -> NoReturn:
    """Do what an interpreter does at its end (CPython, `Py_FinalizeEx`), for the program's part.

    Libraries are not taken apart: that would copy the memory of all that was loaded before.
    """
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()  # noqa: SLF001 - as the interpreter itself does
    atexit._run_exitfuncs()  # noqa: SLF001 - as above
    flushed = _flush(sys.stdout, sys.stderr)
    _take_apart(vars(sys.modules["__main__"]))
    gc.collect()
    if modules := [each for each in _imported_after(last) if _is_below(folder, each)]:
        for module in modules:
            _take_apart(vars(module))
        gc.collect()
    flushed = _flush(sys.__stdout__, sys.__stderr__) and flushed
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if flushed else UNFLUSHED)


def _flush(out: TextIO | None, err: TextIO | None) -> bool:
    """Flush both outputs; return whether stdout took it."""
    with contextlib.suppress(Exception):
        if err is not None:
            err.flush()
    try:
        if out is not None and not out.closed:
            out.flush()
    except Exception as error:  # noqa: BLE001 - a stream of the program's own may raise anything
        said = f"Exception ignored in: {out!r}\n{type(error).__name__}: {error}"
        print(said, file=sys.stderr)  # noqa: T201 - where an interpreter says it
        return False
    return True


def _imported_after(last: str) -> list[object]:
    """Return the modules that were imported later than that one, without a touch of the others."""
    names = itertools.takewhile(lambda name: name != last, reversed(sys.modules))
    return [sys.modules[name] for name in names][::-1]


def _is_below(folder: str, module: object) -> bool:
    file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
    return isinstance(file, str) and file.startswith(folder + os.sep)


def _take_apart(names: dict[str, Any]) -> None:
    """Let go of a module's values, the private ones first (CPython, `_PyModule_ClearDict`)."""
    for name in [each for each in names if each[:1] == "_" and each[1:2] != "_"]:
        names[name] = None
    for name in [each for each in names if each != "__builtins__"]:
        names[name] = None


def _new_main(path: str) -> dict[str, Any]:
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    module = ModuleType("__main__")
    module.__dict__.update(
        __annotations__={},
        __builtins__=sys.modules["builtins"],
        __cached__=None,
        __file__=path,
        __loader__=loader,
    )
    sys.modules["__main__"] = module
    return module.__dict__


def _open_streams(*, unbuffered: bool) -> None:
    """Open the three streams as an interpreter does when it starts (CPython, `create_stdio`)."""
    sys.stdin = sys.__stdin__ = _stream(0, "r", sys.stdin, unbuffered=unbuffered)
    sys.stdout = sys.__stdout__ = _stream(1, "w", sys.stdout, unbuffered=unbuffered)
    sys.stderr = sys.__stderr__ = _stream(2, "w", sys.stderr, unbuffered=unbuffered)


def _stream(fd: int, mode: str, before: TextIO, *, unbuffered: bool) -> TextIO:
    raw_only = unbuffered and mode == "w"
    buffer = open(fd, mode + "b", buffering=0 if raw_only else -1, closefd=False)  # noqa: SIM115 - the program closes it
    getattr(buffer, "raw", buffer).name = before.name
    stream = io.TextIOWrapper(
        buffer,
        encoding=before.encoding,
        errors=before.errors,
        newline="\n",
        line_buffering=not unbuffered and (fd == STDERR or os.isatty(fd)),
        write_through=unbuffered,
    )
    stream.mode = mode
    return stream


def _reseed() -> None:
    """Give every generator of random numbers that is loaded a start of its own."""
    if "random" in sys.modules:
        sys.modules["random"].seed()
    if "ssl" in sys.modules:
        sys.modules["ssl"].RAND_add(os.urandom(32), 32.0)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
