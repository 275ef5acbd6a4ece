"""Code contexts: what `run_code` gives, and their life."""

from typing import Any

from tests.support.e2b_sdks.case import Cases
from tests.support.e2b_sdks.world import World

CASES = Cases()


@CASES.case()
async def code_has_a_value_and_output(w: World) -> None:
    ran = await w(w.box.run_code("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7"))
    assert ran.text == "42", ran
    assert ("".join(ran.logs.stdout), "".join(ran.logs.stderr)) == ("out\n", "err\n"), ran
    assert ran.error is None
    (main,) = ran.results
    assert main.is_main_result
    nothing = await w(w.box.run_code("x = 1"))
    assert (nothing.text, nothing.results) == (None, [])


@CASES.case()
async def code_keeps_its_variables(w: World) -> None:
    first = await w(w.box.run_code("kept = 41"))
    second = await w(w.box.run_code("kept + 1"))
    assert second.text == "42"
    assert second.execution_count == first.execution_count + 1


@CASES.case()
async def code_that_fails(w: World) -> None:
    ran = await w(w.box.run_code("def f():\n    return 1 / 0\nf()"))
    assert (ran.error.name, ran.error.value) == ("ZeroDivisionError", "division by zero"), ran
    assert "return 1 / 0" in ran.error.traceback, ran.error.traceback
    assert (await w(w.box.run_code("this is no Python"))).error.name == "SyntaxError"


@CASES.case()
async def code_streams_what_happens(w: World) -> None:
    """It goes on only because its first line was seen while it ran."""
    seen: list[tuple[str, Any]] = []
    await w(w.box.commands.run("rm -f go"))

    def out(message: Any) -> Any:
        seen.append(("stdout", message.line))
        assert message.timestamp > 0
        return w.box.files.write("go", "")

    code = (
        "import os, sys, time\nprint('ready', flush=True)\n"
        "while not os.path.exists('/home/user/go'): time.sleep(0.05)\n"
        "print('aside', file=sys.stderr)\n'a value'"
    )
    ran = await w(
        w.box.run_code(
            code,
            on_stdout=out,
            on_stderr=lambda message: seen.append(("stderr", message.line)),
            on_result=lambda result: seen.append(("result", result.text)),
            timeout=120,
        )
    )
    assert [each for each in seen if each[1].strip()] == [
        ("stdout", "ready\n"), ("stderr", "aside\n"), ("result", "a value"),
    ], seen  # fmt: skip
    assert ran.text == "a value"
    failures: list[Any] = []
    await w(w.box.run_code("raise KeyError('x')", on_error=failures.append))
    assert [each.name for each in failures] == ["KeyError"]


@CASES.case()
async def code_with_environment(w: World) -> None:
    look = "import os; os.environ.get('GIVEN')"
    assert (await w(w.box.run_code(look, envs={"GIVEN": "it's"}))).text == '"it\'s"'
    assert (await w(w.box.run_code(look))).text is None


@CASES.case()
async def code_runs_where_commands_run(w: World) -> None:
    ran = await w(w.box.run_code("import os; os.getcwd()"))
    assert ran.text == "/home/user", ran
    assert (await w(w.box.run_code("!echo $HOME"))).logs.stdout == ["/home/user\n"]


@CASES.case()
async def code_that_takes_too_long_is_interrupted(w: World) -> None:
    """The client hangs up; the context takes the next code at once, with its variables."""
    await w(w.box.run_code("kept = 'still here'"))
    await w.raises("TimeoutException", lambda: w.box.run_code("while True: pass", timeout=1))
    assert (await w(w.box.run_code("kept", timeout=120))).text == "still here"


@CASES.case()
async def code_in_other_languages(w: World) -> None:
    script = await w(
        w.box.run_code("const n = 41; console.log('hi'); n + 1", language="javascript")
    )
    assert (script.text, "".join(script.logs.stdout)) == ("42", "hi\n"), script
    short = await w(w.box.run_code("n + 2", language="js"))
    assert short.text == "43", short
    shell = await w(w.box.run_code('made=5; echo "$made"', language="bash"))
    assert "".join(shell.logs.stdout) == "5\n", shell
    assert "".join((await w(w.box.run_code("echo $made", language="bash"))).logs.stdout) == "5\n"


@CASES.case()
async def code_in_languages_that_are_missing_is_refused(w: World) -> None:
    for language in ("r", "java", "typescript", "cobol"):
        said = await w.raises(
            "SandboxException", lambda language=language: w.box.run_code("1", language=language)
        )
        assert language in str(said), said
        assert "python" in str(said), said
    await w.raises("SandboxException", lambda: w.box.create_code_context(language="java"))


@CASES.case("Sandbox.list_code_contexts", "Sandbox.restart_code_context")
async def contexts(w: World) -> None:
    """Made, used, listed, restarted and removed, by themselves and by their ids."""
    box = w.box
    await w(box.commands.run("mkdir -p /tmp/elsewhere"))
    python = await w(box.create_code_context(cwd="/tmp/elsewhere"))
    script = await w(box.create_code_context(language="javascript"))
    assert (python.language, python.cwd) == ("python", "/tmp/elsewhere"), python
    assert script.language == "javascript", script
    here = await w(box.run_code("import os; own = 1; os.getcwd()", context=python))
    assert here.text == "/tmp/elsewhere", here
    assert (await w(box.run_code("'own' in globals()"))).text == "False"
    assert (await w(box.run_code("1 + 1", context=script))).text == "2"
    listed = {each.id: each for each in await w(box.list_code_contexts())}
    assert {python.id, script.id} <= set(listed), listed
    assert listed[python.id].cwd == "/tmp/elsewhere"
    await w(box.restart_code_context(python))
    assert (await w(box.run_code("'own' in globals()", context=python))).text == "False"
    await w(box.remove_code_context(python))
    await w(box.remove_code_context(script.id))
    left = {each.id for each in await w(box.list_code_contexts())}
    assert not {python.id, script.id} & left, left
    await w.raises("NotFoundException", lambda: box.run_code("1", context=python))


@CASES.case("Sandbox.list_code_contexts", "Sandbox.restart_code_context")
async def contexts_that_are_missing(w: World) -> None:
    box = w.box
    for unknown in ("no-such-context", "123456", "-1"):
        await w.raises("NotFoundException", lambda each=unknown: box.restart_code_context(each))
        await w.raises("NotFoundException", lambda each=unknown: box.remove_code_context(each))
    await w.raises("SandboxException", lambda: box.create_code_context(cwd="/no/such/folder"))


@CASES.case()
async def code_that_ends_its_interpreter(w: World) -> None:
    """It is told as an error; the next code has a fresh interpreter."""
    ran = await w(w.box.run_code("import os; os._exit(3)"))
    assert ran.error is not None, ran
    assert (await w(w.box.run_code("1 + 1"))).text == "2"


@CASES.case()
async def code_in_a_sandbox_that_ended(w: World) -> None:
    async with w.own() as box:
        await w(box.kill())
        await w.raises("TimeoutException", lambda: box.run_code("1"))


@CASES.case()
async def results_in_every_kind(w: World) -> None:
    ran = await w(
        w.box.run_code(
            "from IPython.display import *\n"
            "for each in (HTML('<b>'), Markdown('*m*'), Latex('$l$'), JSON({'a': [1]}), "
            "SVG('<svg/>'), Javascript('1')):\n    display(each)\n"
            "display({'image/jpeg': 'anBlZw==', 'application/pdf': 'cGRm', "
            "'application/vnd.other': 'else'}, raw=True)"
        )
    )
    assert ran.error is None, ran.error
    kinds: dict[str, Any] = {}
    for each in ran.results:
        assert not each.is_main_result
        also = each.extra or {}
        kinds.update(also)
        kinds.update({kind: each[kind] for kind in each.formats() if kind not in {"text", *also}})
    svg = kinds.pop("svg")
    assert svg.startswith("<svg"), svg
    assert kinds == {
        "html": "<b>", "markdown": "*m*", "latex": "$l$", "json": {"a": [1]}, "javascript": "1",
        "jpeg": "anBlZw==", "pdf": "cGRm", "application/vnd.other": "else",
    }, kinds  # fmt: skip


@CASES.case()
async def results_of_a_table(w: World) -> None:
    ran = await w(
        w.box.run_code("import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})")
    )
    (table,) = ran.results
    assert "<table" in ran.to_json()
    assert table.is_main_result
    assert "<table" in table.html
    assert table.data == {"a": [1, 2], "b": ["x", "y"]}, table.data


@CASES.case()
async def results_that_are_large(w: World) -> None:
    size = 4 * 2**20
    ran = await w(
        w.box.run_code(
            "from IPython.display import display\n"
            f"display({{'image/png': b'p' * {size}}}, raw=True)",
            timeout=120,
        )
    )
    (picture,) = ran.results
    assert len(picture.png) == (size + 2) // 3 * 4
