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
from contextvars import Context
from types import CodeType, ModuleType, TracebackType

from greenlet import greenlet

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn, TextIO

FOLDER = os.path.dirname(os.path.abspath(__file__))
LIST = os.path.join(FOLDER, "preload.txt")
OURS = frozenset(name[:-3] for name in os.listdir(FOLDER) if name.endswith(".py")) - {"__main__"}
HIDDEN = OURS | {"greenlet", "greenlet._greenlet"}
"""The modules that a program must not find: the supervisor's own, and its library."""
AT_START = ("PYTHON", "LD_", "LC_", "LANG", "GLIBC_", "MALLOC_", "HOME", "OPENSSL_")
"""Variables that take effect when an interpreter starts, by what their names begin with."""
AT_IMPORT = ("OPENBLAS_", "OMP_", "MKL_", "NUMEXPR_", "MPL", "NPY_", "PANDAS_", "TZ")
"""Variables that a module of a list may look at when it is imported."""
_KEPT: list[ModuleType] = []
"""Hidden modules, which are not taken apart."""
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
    if not _is_python3(env.get("PATH") or os.environ.get("PATH", os.defpath)):
        return False
    # Modules of the program's own that are named as one that is loaded: they would not be found.
    # Looked up one by one: to go through all that are loaded would copy the memory they are in.
    names = (name.removesuffix(".py").partition(".cpython")[0] for name in os.listdir("."))
    if any(name in sys.modules and name not in HIDDEN for name in names):
        return False
    return not os.path.isdir(sys.modules["site"].USER_SITE)


def _is_python3(path: str) -> bool:
    """Return whether `python3` stands for this interpreter: a template may have another."""
    for folder in path.split(os.pathsep):
        with contextlib.suppress(OSError):
            return os.path.samefile(f"{folder}/python3", sys.executable)
    return False


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
    _alone(exec, Context()).switch(compile("len('')", LIST, "exec", dont_inherit=True), {})
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
    # Only hidden: to take them apart would copy the memory that they are in.
    _KEPT.extend(sys.modules.pop(name) for name in HIDDEN & sys.modules.keys())
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
    context = Context()
    status = _execute(code, namespace, context)
    _end(status, folder, last, context)


def start_anew(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become another program (execve(2))."""
    # Python ignores these two for itself, and an ignored signal stays so across exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell is the point


def _alone(work: Callable[..., Any], context: Context) -> greenlet:
    """Return what does the work, once it is switched to, without a frame of ours below it.

    So an interpreter runs a program, its hooks and its finalisers: a stack of its own has a bottom
    of its own, for `sys._getframe`, tracebacks, warnings and `faulthandler`.
    """
    alone = greenlet(work)
    alone.gr_context = context
    return alone


def _execute(code: CodeType, namespace: dict[str, Any], context: Context) -> int:
    """Run the program in its `__main__`; return its exit code, negative for a signal's number."""
    ended: BaseException | None = None
    try:
        _alone(exec, context).switch(code, namespace)
    except BaseException as error:  # noqa: BLE001 - reported as an interpreter reports it
        ended = error
    _flush_io(context)
    if ended is None:
        return 0
    if isinstance(ended, SystemExit):
        return _exit_code(ended.code, context)
    told = _told(ended)
    try:
        _alone(sys.excepthook, context).switch(*told)
    except SystemExit as instead:
        return _exit_code(instead.code, context)
    except BaseException as failure:  # noqa: BLE001 - as above (CPython, `_PyErr_PrintEx`)
        _say("Error in sys.excepthook:", context)
        _alone(sys.__excepthook__, context).switch(*_told(failure))
        _say("\nOriginal exception was:", context)
        _alone(sys.__excepthook__, context).switch(*told)
    return -signal.SIGINT if isinstance(ended, KeyboardInterrupt) else 1


def _told(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return what an exception is reported with, without the frame of ours that caught it."""
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    return type(error), error, error.__traceback__


def _say(text: object, context: Context) -> None:
    """Print to stderr, which may be an object of the program's."""
    _alone(print, context).switch(text, file=sys.stderr)


def _exit_code(given: object, context: Context) -> int:
    """Return what `sys.exit` with this value means; a text is a message."""
    if given is None:
        return 0
    if isinstance(given, int):
        return given & 0xFF
    _say(given, context)
    return 1


def _end(code: int, folder: str, last: str, context: Context) -> NoReturn:
    """Do what an interpreter does at its end (CPython, `Py_FinalizeEx`), for the program's part.

    Libraries are not taken apart: that would copy the memory of all that was loaded before.
    """
    if "threading" in sys.modules:
        _alone(sys.modules["threading"]._shutdown, context).switch()  # noqa: SLF001 - as the interpreter itself does
    _alone(atexit._run_exitfuncs, context).switch()  # noqa: SLF001 - as above
    flushed = _flush(sys.stdout, sys.stderr, context)
    _take_apart(vars(sys.modules["__main__"]), context)
    _alone(gc.collect, context).switch()
    if modules := [each for each in _imported_after(last) if _is_below(folder, each)]:
        for module in modules:
            _take_apart(vars(module), context)
        _alone(gc.collect, context).switch()
    flushed = _flush(sys.__stdout__, sys.__stderr__, context) and flushed
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if flushed else UNFLUSHED)


def _flush_io(context: Context) -> None:
    """Flush both outputs as an interpreter does when a program has ended (CPython, `flush_io`)."""
    for stream in (sys.stderr, sys.stdout):
        with contextlib.suppress(Exception):
            _alone(stream.flush, context).switch()


def _flush(out: TextIO | None, err: TextIO | None, context: Context) -> bool:
    """Flush both outputs; return whether stdout took it."""
    with contextlib.suppress(Exception):
        if err is not None:
            _alone(err.flush, context).switch()
    try:
        if out is not None and not out.closed:
            _alone(out.flush, context).switch()
    except Exception as error:  # noqa: BLE001 - a stream of the program's own may raise anything
        _say(f"Exception ignored in: {out!r}\n{type(error).__name__}: {error}", context)
        return False
    return True


def _imported_after(last: str) -> list[object]:
    """Return the modules that were imported later than that one, without a touch of the others."""
    names = itertools.takewhile(lambda name: name != last, reversed(sys.modules))
    return [sys.modules[name] for name in names][::-1]


def _is_below(folder: str, module: object) -> bool:
    file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
    return isinstance(file, str) and file.startswith(folder + os.sep)


def _take_apart(names: dict[str, Any], context: Context) -> None:
    """Let go of a module's values, the private ones first (CPython, `_PyModule_ClearDict`)."""
    private = [each for each in names if each[:1] == "_" and each[1:2] != "_"]
    _alone(names.update, context).switch(dict.fromkeys(private))
    public = [each for each in names if each != "__builtins__"]
    _alone(names.update, context).switch(dict.fromkeys(public))


def _new_main(path: str) -> dict[str, Any]:
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    module = ModuleType("__main__")
    module.__dict__.update(
        __annotations__={},
        __builtins__=sys.modules["builtins"],
        __file__=path,
        __cached__=None,
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
