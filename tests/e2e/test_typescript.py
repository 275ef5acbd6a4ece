"""TypeScript runs wherever JavaScript does: executions, processes, and `runner run a.ts`."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent_runner import Client, Sandbox
from tests.e2e.test_command_line import runner
from tests.support.deployment import Deployment

TYPED = """
import { readFileSync } from "fs";
import { area, Colour, type Shape } from "./shapes";
import { area as again, Shape as Other } from "./shapes.js";
const { EOL } = require("os");
class Kept { constructor(private readonly value: number) {} get = (): number => this.value; }
const shape: Shape = { width: 2, height: 3 };
const later = await Promise.resolve(new Kept(7).get() satisfies number);
console.log(area(shape), again(shape as Other), Colour.Red, later, EOL.length);
console.log(readFileSync("in.txt", "utf8"));
"""
SHAPES = """
export interface Shape { width: number; height: number }
export enum Colour { Red = "red" }
export function area(of: Shape): number {
  if (of.width < 0) throw new RangeError("no width");
  return of.width * of.height;
}
"""


@pytest.fixture(scope="module")
def client(shared: Deployment) -> Client:
    return shared.client("typed")


@pytest.fixture(scope="module")
def sandbox(client: Client) -> Iterator[Sandbox]:
    with client.sandboxes.create(size="small") as made:
        yield made


@pytest.mark.parametrize("isolation", ["container", "gvisor"])
def test_a_program_of_several_files_runs(client: Client, isolation: str) -> None:
    """With types, enumerations, `await` at the top, and `import` beside `require`."""
    ran = client.run(
        code=TYPED,
        language="typescript",
        files={"shapes.ts": SHAPES, "in.txt": "given"},
        isolation=isolation,
    )
    assert ran.stdout is not None
    assert ran.stderr is not None
    assert (ran.stdout.text, ran.stderr.text) == ("6 6 red 7 1\ngiven\n", "")
    assert ran.state == "succeeded"


def test_the_smallest_size_is_enough(client: Client) -> None:
    ran = client.run(
        code="console.log(6 * 7 as number)",
        language="typescript",
        size="nano",
        limits={"timeout_s": 60},  # half a processor, on a host that may be busy
    )
    assert (ran.state, ran.stdout and ran.stdout.text) == ("succeeded", "42\n")


def test_a_traceback_names_the_lines_of_the_source(client: Client) -> None:
    """Not those of the JavaScript, and no file of ours."""
    code = "\n\nimport { area } from './shapes';\n\narea({ width: -1, height: 0 });\n"
    ran = client.run(code=code, language="typescript", files={"shapes.ts": SHAPES})
    assert ran.stderr is not None
    assert (ran.state, ran.exit_code) == ("failed", 1)
    assert "RangeError: no width\n    at area (/workspace/shapes.ts:5:" in ran.stderr.text
    assert "/workspace/main.ts:5:1" in ran.stderr.text
    assert "/opt/" not in ran.stderr.text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("const a = 1;\nconst x: number = ;", 'Unexpected ";"\n    at /workspace/main.ts:2:19'),
        ("import './nothing';", "Cannot find module '/workspace/nothing'"),
        ("await import('./broken.ts');", "/workspace/broken.ts:1:"),
    ],
)
def test_what_is_wrong_with_a_program_is_told_by_its_place(
    client: Client, code: str, said: str
) -> None:
    ran = client.run(code=code, language="typescript", files={"broken.ts": "let = ="})
    assert ran.stderr is not None
    assert (ran.state, ran.exit_code) == ("failed", 1)
    assert said in ran.stderr.text
    assert "/opt/" not in ran.stderr.text


def test_a_process_runs_code_and_files(sandbox: Sandbox) -> None:
    """`typescript` is a command as `node` is: with a file, with `-e`, and with code from a pipe."""
    sandbox.files.write("shapes.ts", SHAPES)
    code = "import { area } from './shapes'; console.log(area({ width: 3, height: 4 }))"
    sandbox.files.write("tool.ts", f"{code}; console.log(process.argv.slice(2).join(' '));")
    given = sandbox.run(code=code, language="typescript")
    assert (given.exit_code, given.stdout.text) == (0, "12\n")
    for line, said in (
        ("typescript tool.ts a b", "12\na b\n"),
        (f'typescript -e "{code}"', "12\n"),
        ("echo 'console.log(6 * 7 as number)' | typescript", "42\n"),
        ("cp tool.ts lib.cts && typescript -e 'import(\"./lib.cts\")' 2>&1 | tail -1", "\n"),
    ):
        ran = sandbox.run(line)
        assert (ran.exit_code, ran.stdout.text) == (0, said), ran.stderr.text
    wrong = sandbox.run("typescript -e 'const x: number = ;'")
    assert wrong.exit_code == 1
    assert 'Unexpected ";"' in wrong.stderr.text


def test_code_without_a_file_has_its_arguments_its_place_and_its_input(sandbox: Sandbox) -> None:
    """A file that is called as tracebacks call such code is another module."""
    sandbox.files.write("code.ts", "export const mine: string = 'mine';")
    code = (
        "import { mine } from './code'; import { readFileSync } from 'fs';\n"
        "console.log(mine, process.argv.slice(1).join(), readFileSync(0, 'utf8') as string);\n"
        "throw new Error('late');"
    )
    ran = sandbox.run(f'echo given | typescript -e "{code}" a -b')
    assert (ran.exit_code, ran.stdout.text) == (1, "mine a,-b given\n\n"), ran.stderr.text
    assert "/workspace/code.ts:3:7" in ran.stderr.text
    piped = sandbox.run(f"typescript - a -b <<'END'\n{code}\nEND")
    assert (piped.exit_code, piped.stdout.text) == (1, "mine a,-b \n"), piped.stderr.text


def test_runner_run_takes_a_file(shared: Deployment, tmp_path: Path) -> None:
    """With arguments and a second file, and without."""
    env: Mapping[str, str] = {"RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("typed")}
    program, shapes = tmp_path / "a.ts", tmp_path / "shapes.ts"
    program.write_text(
        "import { area } from './shapes';\n"
        "console.log(area({ width: 2, height: 2 }), process.argv.slice(2));"
    )
    shapes.write_text(SHAPES)
    bare = runner("run", "-f", str(shapes), str(program), env=env)
    assert (bare.returncode, bare.stdout) == (0, "4 []\n"), bare.stderr
    told = runner("run", "-f", str(shapes), str(program), "one", env=env)
    assert (told.returncode, told.stdout) == (0, "4 [ 'one' ]\n"), told.stderr
