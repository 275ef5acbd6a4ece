"""A program in the interpreter that was there already cannot tell it from a new one.

Each program runs both ways, in one sandbox that is cleaned in between: output, exit code and signal
must be the same, byte for byte.
"""

import re

import pytest

from runner.sandbox.drive import ProgramRun, use
from runner.sandbox.guest.channel import Closed
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import SandboxOrder
from runner.words.execution import InputFile, Program
from runner.words.sandbox import SandboxSpec
from tests.support.sandboxes import Bench

ALIKE: dict[str, str | bytes] = {
    "its world": """
import os, sys, signal, gc, threading, warnings
print(__name__, __file__, __builtins__, __doc__, __package__, __spec__, __cached__, __annotations__)
print(type(__loader__), __loader__.name, __loader__.path, sorted(globals()))
print(sys.argv, sys.orig_argv, sys.path, sys.executable, sys.prefix, sys.meta_path)
print({k: getattr(sys.flags, k) for k in dir(sys.flags) if k[0] != '_' and k != 'unbuffered'})
print(sorted(os.environ.items()), os.getcwd(), oct(os.umask(0)))
print([(n, signal.getsignal(n)) for n in sorted(signal.valid_signals())])
print(sorted(os.listdir('/proc/self/fd')), os.getpgrp() == os.getpid() == os.getsid(0))
print(gc.isenabled(), gc.get_threshold(), threading.enumerate(), threading.current_thread())
print(sys.getrecursionlimit(), sys.getswitchinterval(), warnings.filters, sys.warnoptions)
print(open('/proc/self/oom_score_adj').read(), os.nice(0), os.getppid())
print([line for line in open('/proc/self/status') if line.split(':')[0] in
       {'Uid', 'Gid', 'Groups', 'NoNewPrivs', 'Seccomp', 'CapEff', 'CapBnd', 'SigBlk', 'SigIgn'}])
""",
    "its streams": """
import sys, io
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.name, stream.mode, stream.encoding, stream.errors, stream.newlines,
          stream.line_buffering, stream.write_through, stream.fileno(), stream.isatty(),
          type(stream.buffer), getattr(stream.buffer, 'raw', stream.buffer).name)
print(sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__)
sys.stdout.buffer.write(b'\\xff\\n')
print('\\udcff')
""",
    "input": "print(input('name? ') + input()); import sys; print(sys.stdin.read()); input()",
    "a traceback": """
def inner(n):
    return 1 / n

def outer():
    try:
        inner(0)
    except ZeroDivisionError as error:
        raise RuntimeError('it went wrong') from error

outer()
""",
    "its stack": """
import faulthandler, inspect, logging, sys, traceback, warnings
print(sys._getframe().f_back)
try: sys._getframe(1)
except ValueError as error: print(error)
print([(each.filename, each.lineno, each.function) for each in inspect.stack()])
print(traceback.extract_stack(), [each.f_back for each in sys._current_frames().values()])
traceback.print_stack()
for level in range(1, 5): warnings.warn(f'level {level}', stacklevel=level)
faulthandler.dump_traceback()
logging.basicConfig(format='%(pathname)s %(funcName)s %(lineno)d')
for level in range(1, 4): logging.warning('', stacklevel=level)
""",
    "the stack of its hooks": """
import atexit, sys, threading, traceback
def told(*_): print(traceback.extract_stack(), sys.exc_info()[0])
class Stream:
    def write(self, text): told()
    def flush(self): told()
threading.excepthook = sys.excepthook = sys.unraisablehook = told
thread = threading.Thread(target=lambda: 1 / 0, name='t')
thread.start(); thread.join()
atexit.register(told)
sys.stderr = Stream()
raise ValueError('x')
""",
    "the stack of its finalisers": """
import os, sys
class Loud:
    def __del__(self, frame=sys._getframe, write=os.write): write(1, repr(frame().f_back).encode())
public, _private, cycle = Loud(), Loud(), Loud()
cycle.itself = cycle
""",
    "the stack where a message is written": """
import sys, traceback
class Stream:
    def write(self, text): sys.__stdout__.write(f'{traceback.extract_stack()} {text}')
    def flush(self): sys.__stdout__.write(f'{traceback.extract_stack()}')
sys.stderr = Stream()
sys.exit('message')
""",
    "an excepthook that fails": """
import sys
def hook(*_): {}['missing']
sys.excepthook = hook
raise ValueError('original')
""",
    "a context variable at the end": """
import atexit, contextvars
here = contextvars.ContextVar('here', default=0)
here.set(1)
atexit.register(lambda: print(here.get()))
print(len(contextvars.copy_context()))
""",
    "its modules": """
import sys
print(list(vars(sys.modules['__main__'])))
files = {name: getattr(each, '__file__', None) or '' for name, each in sys.modules.items()}
print([name for name, file in files.items() if 'supervisor' in file or 'greenlet' in file])
import greenlet
print(greenlet.greenlet(lambda text: text + '!').switch('works'))
""",
    "a syntax error": "print(1)\nprint(2\n",
    "no utf-8": b"print('\xff')\n",
    "another encoding": b"# -*- coding: latin-1 -*-\nprint('\xe9')\n",
    "an exception in a library's frame": "import json\njson.loads('{')\n",
    "an excepthook": """
import sys
def hook(kind, value, trace):
    print('hook', kind, value, trace.tb_lineno, trace.tb_next)
sys.excepthook = hook
raise ValueError('x')
""",
    "an excepthook that leaves": """
import sys
sys.excepthook = lambda *_: sys.exit(9)
raise ValueError('x')
""",
    "exit code": "import sys; sys.exit(7)",
    "exit code beyond a byte": "import sys; sys.exit(300)",
    "negative exit code": "import sys; sys.exit(-1)",
    "exit with a message": "import sys; print('before'); sys.exit('the message')",
    "exit with an object": "import sys; sys.exit(['a', 1])",
    "exit of nothing": "exit()",
    "quick exit": "import os; print('kept' if False else ''); os._exit(5)",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "an abort": "import os; os.abort()",
    "a keyboard interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "a keyboard interrupt raised": """
import atexit
atexit.register(print, 'bye')
raise KeyboardInterrupt
""",
    "atexit": """
import atexit, sys
atexit.register(print, 'last')
atexit.register(print, 'first')
sys.exit(3)
""",
    "an error at exit": """
import atexit
def fail(): raise ValueError('at exit')
atexit.register(fail)
""",
    "what is flushed and let go at the end": """
class Loud:
    def __init__(self, name): self.name = name
    def __del__(self): print('gone', self.name)
_private, public = Loud('private'), Loud('public')
cycle = Loud('cycle'); cycle.me = cycle
import helper
helper.kept = Loud('in a module')
open('/workspace/kept.txt', 'w').write('not flushed by the program')
kept = open('/workspace/open.txt', 'w'); kept.write('nor this')
""",
    "threads": """
import threading, time
def late():
    time.sleep(0.05); print('late')
threading.Thread(target=late).start()
def fails(): raise ValueError('in a thread')
threading.Thread(target=fails, name='t').start()
""",
    "concurrent.futures": """
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
def twice(n): return 2 * n
if __name__ == '__main__':
    with ThreadPoolExecutor() as pool: print(list(pool.map(twice, range(4))))
    with ProcessPoolExecutor(2) as pool: print(list(pool.map(twice, range(4))))
""",
    "multiprocessing": """
import multiprocessing
def work(n, queue): queue.put((n, __name__))
if __name__ == '__main__':
    for method in ('fork', 'spawn'):
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        children = [context.Process(target=work, args=(n, queue)) for n in range(2)]
        for child in children: child.start()
        for child in children: child.join()
        print(method, sorted(queue.get() for _ in children), [c.exitcode for c in children])
""",
    "subprocess": """
import subprocess, sys
print(subprocess.run(['sh', '-c', 'echo out; echo err >&2; exit 4'], capture_output=True))
print(subprocess.run([sys.executable, '-c', 'import sys; print(sys.path[1:], sys.flags)']))
""",
    "a fork": """
import os, sys
if os.fork() == 0: print('child'); sys.exit(3)
print(os.waitstatus_to_exitcode(os.wait()[1]))
""",
    "asyncio": """
import asyncio
async def main():
    process = await asyncio.create_subprocess_exec('echo', 'hello')
    print(await process.wait(), await asyncio.to_thread(lambda: 5))
asyncio.run(main())
""",
    "modules of its own": """
import helper, random, json.tool
print(helper.__file__, helper.VALUE, random.__file__)
""",
    "pickles of its own classes": """
import pickle
class Own: pass
print(type(pickle.loads(pickle.dumps(Own()))))
""",
    "a broken pipe": """
import os
r, w = os.pipe(); os.close(r)
try: os.write(w, b'x')
except BrokenPipeError as error: print(error)
""",
    "a closed stdout": "import sys; sys.stdout.close()",
    "a full stdout": "import sys; sys.stdout = open('/dev/full', 'w'); print('lost')",
    "inspection": """
import inspect, traceback, sys
def here(): return [frame.function for frame in inspect.stack() if frame.filename == __file__]
print(here(), inspect.getsource(here))
""",
    "time zone by its own hand": """
import os, time
os.environ['TZ'] = 'Asia/Tokyo'; time.tzset(); print(time.tzname)
""",
    "warnings": "import warnings; warnings.warn('careful'); import asyncore",
    "logging": "import logging; logging.warning('careful'); logging.info('not shown')",
}
HELPER = InputFile("helper.py", b"VALUE = 5\n")
ENVIRONMENTS: tuple[dict[str, str], ...] = ({"PYTHONUNBUFFERED": "1", "A": "b"}, {})


def text(output: bytes) -> str:
    """Return output without addresses in memory, which differ from one run to the next."""
    return re.sub("0x[0-9a-f]+|started [0-9]+", "0x…", output.decode("latin-1"))


async def run(
    bench: Bench,
    sandbox: Sandbox,
    code: str | bytes,
    *files: InputFile,
    interpret: bool = True,
    env: dict[str, str] | None = None,
) -> ProgramRun:
    """Run a program in this sandbox, which is clean before and after."""
    program = Program(
        ("python3", "main.py"), env or {}, b"Ada\nLovelace\nrest\n", interpret=interpret
    )
    content = code if isinstance(code, bytes) else code.encode()
    placed = (InputFile("main.py", content), *files)
    ran = await use(sandbox, program, bench.limits.bounds, files=placed, again=True)
    await sandbox.clean()
    return ran


@pytest.mark.parametrize("name", ALIKE)
async def test_a_program_behaves_as_in_a_new_interpreter(bench: Bench, name: str) -> None:
    """Output, exit code, signal and files are the same, whether output is buffered or not."""
    async with bench.sandbox() as sandbox:
        for env in ENVIRONMENTS:
            new = await run(bench, sandbox, ALIKE[name], HELPER, interpret=False, env=env)
            loaded = await run(bench, sandbox, ALIKE[name], HELPER, env=env)
            assert text(loaded.stdout).splitlines() == text(new.stdout).splitlines()
            assert text(loaded.stderr).splitlines() == text(new.stderr).splitlines()
            assert (loaded.ending.exit_code, loaded.ending.signal, loaded.files) == (
                new.ending.exit_code,
                new.ending.signal,
                new.files,
            )


FORKED = "print('/opt/supervisor' in open('/proc/self/cmdline').read())"


@pytest.mark.parametrize(
    ("env", "files", "forked"),
    [
        ({"PYTHONUNBUFFERED": "1", "A": "b"}, ("helper.py", "data.csv"), True),
        ({"PYTHONHASHSEED": "0"}, (), False),
        ({"PYTHONPATH": "/workspace/lib"}, (), False),
        ({"LD_PRELOAD": ""}, (), False),
        ({"OMP_NUM_THREADS": "1"}, (), False),
        ({"TZ": "Asia/Tokyo"}, (), False),
        ({}, ("json.py",), False),
        ({}, ("json/__init__.py",), False),
        ({}, (".local/lib/python{}.{}/site-packages/own.py",), False),
    ],
)
async def test_what_an_interpreter_decides_at_its_start_takes_a_new_one(
    bench: Bench, env: dict[str, str], files: tuple[str, ...], *, forked: bool
) -> None:
    """Certain variables, and modules that loaded ones would hide, need one; all else is forked."""
    async with bench.sandbox() as sandbox:
        version = await run(bench, sandbox, "import sys; print(*sys.version_info[:2])")
        major, minor = version.stdout.decode().split()
        placed = [InputFile(name.format(major, minor), b"") for name in files]
        ran = await run(bench, sandbox, FORKED, *placed, env=env)
    assert ran.stdout.decode().strip() == str(forked)


async def test_no_two_forks_draw_the_same_random_numbers(bench: Bench, data_image: None) -> None:
    """This covers the standard library, numpy and OpenSSL, each loaded before the fork."""
    draw = """
import random, ssl, uuid, secrets
print(random.random()); print(ssl.RAND_bytes(8)); print(uuid.uuid4()); print(secrets.token_hex())
try:
    import numpy
    print(numpy.random.rand()); print(numpy.random.default_rng().random())
except MemoryError: pass
"""
    launcher, resources = bench.launcher, bench.limits.resources
    sandbox = await launcher.launch(SandboxOrder(SandboxSpec("data", resources)))
    try:
        assert await sandbox.load() == []
        drawn = [(await run(bench, sandbox, draw)).stdout.splitlines() for _ in range(2)]
        loaded = await run(
            bench, sandbox, "import sys; print({'numpy', 'pandas', 'matplotlib'} <= {*sys.modules})"
        )
    finally:
        await sandbox.destroy()
    assert [len(each) for each in drawn] == [6, 6]
    assert not set(drawn[0]) & set(drawn[1])
    assert loaded.stdout == b"True\n"


async def test_each_sandbox_has_a_hash_seed_of_its_own(bench: Bench) -> None:
    """Runs of one sandbox share it, as they share its interpreter; no two sandboxes do."""
    seen = []
    for _ in range(2):
        async with bench.sandbox() as sandbox:
            seen.append([(await run(bench, sandbox, "print(hash('a'))")).stdout for _ in "ab"])
    assert seen[0][0] == seen[0][1] != seen[1][0]


async def test_a_list_that_does_not_fit_into_the_memory_ends_the_sandbox(
    bench: Bench, data_image: None
) -> None:
    """Only its own sandbox ends; whoever starts sandboxes ahead then leaves the list out."""
    resources = bench.within(memory_mb=48).resources
    sandbox = await bench.launcher.launch(SandboxOrder(SandboxSpec("data", resources)))
    try:
        with pytest.raises(Closed):
            await sandbox.load()
    finally:
        await sandbox.destroy()
