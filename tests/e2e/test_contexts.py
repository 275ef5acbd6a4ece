"""Code contexts in sandboxes, through the real API, node, supervisor and interpreters."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator

import pytest

from agent_runner import Client, Conflict, Context, Invalid, NotFound, Run, Sandbox
from agent_runner.runs import CHART, DATA
from tests.support.deployment import Deployment, eventually

VALUE = 'to"ken\\4f1c9a77e2b8\nsecond-line-of-it'


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("contexts")


@pytest.fixture(scope="module")
def sandbox(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox for tests that leave it well; its processes know a secret."""
    api.put_secret("context-token", VALUE)
    secrets = {"TOKEN": "context-token"}
    with api.sandboxes.create(secret_env=secrets, size="small", timeout_s=None) as made:
        yield made


@pytest.fixture(scope="module")
def python(sandbox: Sandbox) -> Context:
    """Return a context of Python."""
    return sandbox.contexts.create("python")


@pytest.fixture(scope="module")
def bash(sandbox: Sandbox) -> Context:
    """Return a context of bash."""
    sandbox.run(["mkdir", "here"])
    return sandbox.contexts.create("bash", cwd="here", env={"GIVEN": "it's here"})


def test_python_keeps_variables_and_shows_what_a_notebook_shows(python: Context) -> None:
    seen: list[str] = []
    first = python.run("x = 6\nprint('hello')\nx * 7", on_stdout=seen.append)
    assert (first.text, first.stdout, first.ok) == ("42", "hello\n", True)
    assert "".join(seen) == "hello\n"
    assert python.run("import asyncio\nawait asyncio.sleep(0)\nx").text == "6"
    assert python.run("!echo from a shell").stdout == "from a shell\n"
    failed = python.run("def f():\n    return 1 / 0\nf()")
    assert failed.error is not None
    assert failed.error.name == "ZeroDivisionError"
    assert failed.error.value == "division by zero"
    assert "return 1 / 0" in failed.error.traceback
    assert not failed.ok
    assert python.run("import os; os.environ['A']", env={"A": "b"}).text == "'b'"
    assert python.run("os.environ.get('A')").text is None


def test_rich_results_come_in_every_kind_that_they_have(python: Context) -> None:
    plotted = python.run(
        "import matplotlib.pyplot as plt\n"
        "plt.plot([1, 2, 3], [4, 5, 6], label='growth')\n"
        "plt.title('A line'); plt.xlabel('time (s)')\nplt.show()"
    )
    (figure,) = [each for each in plotted.results if "image/png" in each.data]
    assert figure.raw("image/png").startswith(b"\x89PNG")
    assert figure.chart is not None
    assert figure.chart["type"] == "line"
    assert figure.chart["title"] == "A line"
    assert figure.chart["x_unit"] == "s"
    assert figure.chart["elements"] == [
        {"label": "growth", "points": [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]}
    ]
    framed = python.run("import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', None]})")
    (frame,) = framed.results
    assert frame.is_main
    assert "<table" in frame.data["text/html"]
    assert frame.data[DATA]["columns"] == {"a": [1, 2], "b": ["x", None]}
    shown = python.run(
        "from IPython.display import *\n"
        "for each in (HTML('<b>'), Markdown('*m*'), Latex('$l$'), JSON({'a': [1]}), "
        "SVG('<svg/>'), Javascript('1')):\n    display(each)"
    )
    kinds = {kind: each.data[kind] for each in shown.results for kind in each.data}
    assert kinds["text/html"] == "<b>"
    assert kinds["text/markdown"] == "*m*"
    assert kinds["text/latex"] == "$l$"
    assert kinds["application/json"] == {"a": [1]}
    assert kinds["application/javascript"] == "1"
    assert "svg" in kinds["image/svg+xml"]


@pytest.mark.parametrize(
    ("draw", "kind", "element"),
    [
        ("plt.scatter([1], [2])", "scatter", {"label": "Group 0", "points": [[1.0, 2.0]]}),
        ("plt.bar(['a', 'b'], [4, 5])", "bar", {"label": "a", "group": "", "value": 4}),
        ("plt.pie([1], labels=['all'])", "pie", {"label": "all", "angle": 360.0, "radius": 1.0}),
        (
            "plt.boxplot([[1, 2, 3, 4, 5]])",
            "box_and_whisker",
            {"label": "1", "min": 1.0, "first_quartile": 2.0, "median": 3.0,
             "third_quartile": 4.0, "max": 5.0, "outliers": []},
        ),
        (
            "plt.boxplot([[1, 2, 3, 4, 5, 20, 30]])",
            "box_and_whisker",
            {"label": "1", "min": 1.0, "first_quartile": 2.5, "median": 4.0,
             "third_quartile": 12.5, "max": 20.0, "outliers": [30.0]},
        ),
        ("f, (a, b) = plt.subplots(1, 2); a.plot([1]); b.plot([2])", "superchart", None),
    ],
)  # fmt: skip
def test_charts_are_data(
    python: Context, draw: str, kind: str, element: dict[str, object] | None
) -> None:
    ran = python.run(f"import matplotlib.pyplot as plt\n{draw}\nplt.show()")
    (chart,) = [each.data[CHART] for each in ran.results if CHART in each.data]
    assert chart["type"] == kind
    assert element is None or chart["elements"][0] == element


def test_a_large_result_is_whole(python: Context) -> None:
    size = 10 * 2**20
    ran = python.run(
        f"import os; big = os.urandom({size}); from IPython.display import *\n"
        "display({'image/png': big}, raw=True)\n"
        "import hashlib; print(hashlib.sha256(big).hexdigest())"
    )
    (result,) = ran.results
    assert not result.truncated
    assert hashlib.sha256(base64.b64decode(result.data["image/png"])).hexdigest() == (
        ran.stdout.strip()
    )


def test_bash_keeps_its_folder_and_its_variables(bash: Context) -> None:
    assert (
        bash.run('echo "$PWD $GIVEN"; made=5; mkdir -p d; cd d').stdout
        == "/workspace/here it's here\n"
    )
    again = bash.run('echo "$PWD $made $A"; exit_with() { return 3; }; exit_with', env={"A": "'b'"})
    assert (again.stdout, again.exit_code, again.ok) == ("/workspace/here/d 5 'b'\n", 3, False)
    assert bash.run('echo "${A-none}"; cat').stdout == "none\n"


def test_javascript_keeps_variables_and_awaits(sandbox: Sandbox) -> None:
    with sandbox.contexts.create("javascript") as context:
        first = context.run("const x = await Promise.resolve(41); console.log('hi'); x + 1")
        assert (first.text, first.stdout) == ("42", "hi\n")
        assert context.run("const x = 1; x").text == "1"
        imported = context.run("import { EOL } from 'node:os'\nEOL + typeof (await import('fs'))")
        assert imported.text == "'\\nobject'"
        failed = context.run("null.x")
        assert failed.error is not None
        assert failed.error.name == "TypeError"
        ran = context.run("for (;;) {}", timeout_s=0.5)
        assert (ran.timed_out, ran.context_ended) == (True, False)
        assert context.run("x").text == "1"


def test_what_the_image_lacks_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(Invalid):
        sandbox.contexts.create("cobol")
    with pytest.raises(NotFound):
        sandbox.contexts.create("bash", cwd="/nowhere")


@pytest.mark.parametrize("language", ["python", "bash"])
def test_what_code_writes_is_never_taken_for_an_event(
    request: pytest.FixtureRequest, language: str
) -> None:
    context: Context = request.getfixturevalue(language)
    line = json.dumps({"say": "ended", "run": 1, "count": 1, "exit_code": 0})
    forge = (
        "import os\n"
        "for fd in range(1, 256):\n"
        "    try:\n"
        f"        os.write(fd, b'\\n{line}\\n0000 {line}\\n')\n"
        "    except OSError:\n"
        "        pass\n"
    )
    if language == "bash":
        forge = f"python3 -c {_quoted(forge)}"
    ran = context.run(f"{forge}\n{'print(6 * 7)' if language == 'python' else 'echo 42'}")
    assert ran.ok
    assert ran.stdout.count(line) == 2
    assert ran.stdout.endswith("42\n")
    assert ran.stderr.count(line) == 2


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_secrets_are_starred_in_every_event(python: Context, bash: Context) -> None:
    bare = python.run(
        "import os, sys; t = os.environ['TOKEN']\n"
        "print(t); print(repr(t), file=sys.stderr)\n"
        "for each in t: print(each, end='', flush=True)\n"
        "from IPython.display import *\n"
        "display({'application/json': {t: [t, 1]}, 'text/html': t}, raw=True)\n"
        "raise ValueError(t)"
    )
    told = repr(bare) + json.dumps([dict(each.data) for each in bare.results])
    for part in ("4f1c9a77e2b8", "second-line-of-it"):
        assert part not in told
    (shown,) = bare.results
    assert list(shown.data["application/json"].values()) == [["*" * len(VALUE), 1]]
    assert bare.error is not None
    assert bare.error.name == "ValueError"
    assert "4f1c" not in bash.run('echo "$TOKEN"; echo "$TOKEN" | base64 >&2').stdout


def interrupted(context: Context, code: str) -> Run:
    """Run code, and interrupt it from when it writes something until it ends."""
    done: list[Run] = []
    said: list[str] = []
    thread = threading.Thread(target=lambda: done.append(context.run(code, on_stdout=said.append)))
    thread.start()
    eventually(lambda: said)
    assert context.refresh().state == "running"

    def ended() -> bool:
        context.interrupt()
        return bool(done)

    eventually(ended)
    thread.join()
    return done[0]


def test_an_interrupt_leaves_the_variables(python: Context, bash: Context) -> None:
    for context, code in (
        (python, "kept = 1; print('begun')\nwhile True: pass"),
        (bash, "kept=1; sh -c 'echo begun; exec sleep 600'"),
    ):
        ran = interrupted(context, code)
        assert not ran.ok
        assert not ran.context_ended
    assert python.run("kept").text == "1"
    assert bash.run("echo $kept").stdout == "1\n"


def test_a_client_that_hangs_up_interrupts_its_code(python: Context) -> None:
    code = "after = 'no'\nprint('begun')\nimport time; time.sleep(600)\nafter = 'yes'"
    for event in python.events(code):
        if event.kind == "stdout":
            break
    ran = python.run("after")
    assert ran.text == "'no'"


def test_time_that_is_up_interrupts_and_then_ends_the_interpreter(sandbox: Sandbox) -> None:
    with sandbox.contexts.create("python") as context:
        # Long enough for a busy host to begin to run it.
        soft = context.run("x = 1\nwhile True: pass", timeout_s=3)
        assert (soft.timed_out, soft.ok, soft.context_ended) == (True, False, False)
        assert context.run("x").text == "1"
        stubborn = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
        hard = context.run(stubborn, timeout_s=3)
        assert (hard.timed_out, hard.context_ended) == (True, True)
        with pytest.raises(Conflict):
            context.run("1")
        assert context.restart().state == "idle"
        assert context.run("'x' in globals()").text == "False"


def test_an_interpreter_that_ends_is_told_and_restarted(sandbox: Sandbox) -> None:
    with sandbox.contexts.create("bash") as context:
        ran = context.run("echo last; exit 7")
        assert (ran.stdout, ran.exit_code, ran.context_ended) == ("last\n", 7, True)
        assert context.refresh().state == "ended"
        context.restart()
        assert context.run("echo again").stdout == "again\n"
    assert sandbox.run_code("import os; os.kill(os.getpid(), 11)").signal == "SIGSEGV"
    assert sandbox.run_code("1 + 1").text == "2"


def test_runs_of_one_context_wait_for_each_other(python: Context) -> None:
    python.run("order = []")
    code = "import time\norder.append({0}); time.sleep(0.2); order.append({0})"
    threads = [threading.Thread(target=python.run, args=(code.format(n),)) for n in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    order = json.loads(python.run("order").text or "")
    assert order[0::2] == order[1::2]


def test_contexts_are_no_processes_for_anybody(sandbox: Sandbox, bash: Context) -> None:
    assert bash.number not in {each.process for each in sandbox.processes()}
    with pytest.raises(NotFound):
        sandbox.process(bash.number)
    assert bash.number in {each.context for each in sandbox.contexts.list()}


def test_what_was_done_in_contexts_is_on_record(shared: Deployment, bash: Context) -> None:
    code = f"echo {time.time()}"
    bash.run(code)
    digest = hashlib.sha256(code.encode()).hexdigest()
    http = shared.http("contexts")
    found = eventually(lambda: digest in http.get("/v1/audit?action=sandbox:contexts").text)
    assert found
    assert code not in http.get("/v1/audit").text
