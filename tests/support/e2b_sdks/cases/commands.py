"""Commands and terminals."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from tests.support.e2b_sdks.case import Cases
from tests.support.e2b_sdks.world import World

CASES = Cases()
LARGE = 3_000_000
WITHIN_S = 60.0


@CASES.case()
async def command_in_the_foreground(w: World) -> None:
    done = await w(w.box.commands.run("echo out; echo err >&2"))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "out\n", "err\n"), done
    assert not done.error


@CASES.case("CommandExitException")
async def command_that_fails(w: World) -> None:
    failed = await w.raises(
        "CommandExitException", lambda: w.box.commands.run("echo said; echo why >&2; exit 3")
    )
    assert (failed.exit_code, failed.stdout, failed.stderr) == (3, "said\n", "why\n"), failed


@CASES.case()
async def command_streams_its_output(w: World) -> None:
    """It goes on only because its first line was seen while it ran."""
    box, heard = w.box, []
    await w(box.commands.run("rm -f go"))
    told = []

    def hear(text: str) -> Any:
        heard.append(text)
        if "ready" in text and w.sync:
            box.files.write("go", "")
        elif "ready" in text:
            told.append(asyncio.ensure_future(box.files.write("go", "")))

    waits = "echo ready; echo aside >&2; while [ ! -e go ]; do sleep 0.05; done; echo done"
    aside: list[str] = []
    done = await w(box.commands.run(waits, on_stdout=hear, on_stderr=aside.append, timeout=120))
    assert "".join(heard) == done.stdout == "ready\ndone\n", heard
    assert "".join(aside) == "aside\n", aside
    await asyncio.gather(*told)


@CASES.case()
async def command_with_environment_folder_and_user(w: World) -> None:
    done = await w(
        w.box.commands.run('echo "$PWD $GIVEN"', cwd="/tmp", envs={"GIVEN": "it's"}, user="user")
    )
    assert done.stdout == "/tmp it's\n", done
    home = await w(w.box.commands.run('echo "$(whoami) $HOME $PWD"'))
    assert home.stdout == "user /home/user /home/user\n", home


@CASES.case()
async def command_that_takes_too_long(w: World) -> None:
    await w.raises("TimeoutException", lambda: w.box.commands.run("exec sleep 4321", timeout=1))
    await gone(w, "sleep 4321")


@CASES.case()
async def command_with_much_output(w: World) -> None:
    done = await w(
        w.box.commands.run(f"python3 -c \"print('ä' * {LARGE // 2}, end='')\"", timeout=120)
    )
    assert len(done.stdout) == LARGE // 2
    assert set(done.stdout) == {"ä"}


@CASES.case()
async def command_in_the_background(w: World) -> None:
    handle = await w(w.box.commands.run("echo begun; sleep 1; echo over", background=True))
    listed = {each.pid: each for each in await w(w.box.commands.list())}
    assert handle.pid in listed, listed
    assert "sleep 1" in " ".join([listed[handle.pid].cmd, *listed[handle.pid].args])
    done = await w(handle.wait())
    assert done.stdout == "begun\nover\n", done
    assert handle.pid not in {each.pid for each in await w(w.box.commands.list())}


@CASES.case("commands.run:stdin")
async def command_reads_stdin(w: World) -> None:
    box = w.box
    handle = await w(box.commands.run("head -n 2", background=True, stdin=True))
    await w(box.commands.send_stdin(handle.pid, "one\n"))
    await w(box.commands.send_stdin(handle.pid, "two\n"))
    assert (await w(handle.wait())).stdout == "one\ntwo\n"


@CASES.case("commands.close_stdin", "CommandHandle.send_stdin")
async def command_stdin_ends(w: World) -> None:
    handle = await w(w.box.commands.run("cat; echo ended", background=True, stdin=True))
    await w(handle.send_stdin("all of it "))
    await w(handle.close_stdin())
    assert (await w(handle.wait())).stdout == "all of it ended\n"
    other = await w(w.box.commands.run("cat", background=True, stdin=True))
    await w(w.box.commands.close_stdin(other.pid))
    assert (await w(other.wait())).exit_code == 0


@CASES.case("commands.stream_input")
async def command_takes_a_stream_of_input(w: World) -> None:
    handle = await w(w.box.commands.run("cat", background=True, stdin=True))
    lines = [f"{number}\n" for number in range(20)]
    if w.sync:
        w.box.commands.stream_input(handle.pid, lines)
    else:
        async with w.box.commands.stream_input(handle.pid) as stream:
            for line in lines:
                await stream.send(line)
    await w(w.box.commands.close_stdin(handle.pid))
    assert (await w(handle.wait())).stdout == "".join(lines)


@CASES.case("CommandExitException")
async def command_is_killed(w: World) -> None:
    handle = await w(w.box.commands.run("exec sleep 4322", background=True))
    assert await w(handle.kill()) is True
    with suppress(w.sdk.SandboxException):
        await w(handle.wait())
        raise RuntimeError("a killed command ended well")
    await gone(w, "sleep 4322")
    assert await w(w.box.commands.kill(handle.pid)) is False


@CASES.case()
async def command_is_connected_to(w: World) -> None:
    box = w.box
    await w(box.commands.run("rm -f on"))
    waits = "while [ ! -e on ]; do sleep 0.05; done; echo late"
    first = await w(box.commands.run(waits, background=True))
    await w(first.disconnect())
    again = await w(box.commands.connect(first.pid))
    assert again.pid == first.pid
    await w(box.files.write("on", ""))
    assert (await w(again.wait())).stdout == "late\n"
    await w.raises("NotFoundException", lambda: box.commands.connect(first.pid + 100_000))


@CASES.case("PtySize")
async def terminal(w: World) -> None:
    """One that echoes, has a size and another size, takes input, and is killed."""
    box, size = w.box, w.sdk.PtySize
    seen: list[bytes] = []
    given: dict[str, Any] = {} if w.sync else {"on_data": seen.append}
    opened = await w(box.pty.create(size(rows=24, cols=80), envs={"PS1": "$ "}, **given))
    ask = b"stty size; echo is $((40 + 2))\n"
    await w(box.pty.send_stdin(opened.pid, ask))
    await saw(w, opened, seen, b"is 42")
    assert b"24 80" in b"".join(seen)
    await w(box.pty.resize(opened.pid, size(rows=50, cols=100)))
    await w(box.pty.send_stdin(opened.pid, b"stty size; echo was $((40 + 3))\n"))
    await saw(w, opened, seen, b"was 43")
    assert b"50 100" in b"".join(seen)
    assert opened.pid in {each.pid for each in await w(box.commands.list())}
    assert await w(box.pty.kill(opened.pid)) is True


@CASES.case("PtySize", "pty.connect")
async def terminal_is_connected_to(w: World) -> None:
    box = w.box
    seen: list[bytes] = []
    given: dict[str, Any] = {} if w.sync else {"on_data": seen.append}
    first = await w(box.pty.create(w.sdk.PtySize(rows=24, cols=80), **given))
    await w(first.disconnect())
    again = await w(box.pty.connect(first.pid, **given))
    await w(box.pty.send_stdin(first.pid, b"echo is $((40 + 2))\n"))
    await saw(w, again, seen, b"is 42")
    await w(box.pty.kill(first.pid))


@CASES.case("pty.stream_input")
async def terminal_takes_a_stream_of_input(w: World) -> None:
    box = w.box
    seen: list[bytes] = []
    given: dict[str, Any] = {} if w.sync else {"on_data": seen.append}
    opened = await w(box.pty.create(w.sdk.PtySize(rows=24, cols=80), **given))
    lines = [b"one=40\n", b"two=2\n", b"echo is $((one + two))\n"]
    if w.sync:
        box.pty.stream_input(opened.pid, lines)
    else:
        async with box.pty.stream_input(opened.pid) as stream:
            for line in lines:
                await stream.send(line)
    await saw(w, opened, seen, b"is 42")
    await w(box.pty.kill(opened.pid))


async def saw(w: World, handle: Any, seen: list[bytes], expected: bytes) -> None:
    """Read a terminal until it has shown something."""
    if w.sync:
        for _, _, data in handle:
            seen.append(data or b"")
            if expected in b"".join(seen):
                return
    deadline = time.monotonic() + WITHIN_S
    while expected not in b"".join(seen):
        assert time.monotonic() < deadline, b"".join(seen)
        await asyncio.sleep(0.02)


async def gone(w: World, command: str) -> None:
    """Wait until no process has this command."""
    deadline = time.monotonic() + WITHIN_S
    look = f"pgrep -f '^{command}' || true"
    while (await w(w.box.commands.run(look))).stdout:
        assert time.monotonic() < deadline, f"{command} still runs"
        await asyncio.sleep(0.1)
