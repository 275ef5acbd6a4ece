"""Files come back unchanged; anything but a plain file is refused by name, and not followed."""

import time

import pytest

from runner.sandbox.drive import use
from runner.words.errors import SandboxFault
from runner.words.execution import InputFile, Program
from tests.support.hostile_names import ODD, PLAIN
from tests.support.sandboxes import MB, Bench


async def test_files_come_back_with_their_paths_and_bytes(bench: Bench) -> None:
    """This includes nested folders, empty files, spaces and letters of any language."""
    ran = await bench.bash(
        "mkdir -p a/b; printf 'x' > 'a/b/with space'; : > empty; echo é > 'grüße.txt'; "
        "head -c 300000 /dev/zero > big"
    )
    assert ran.files == {
        "a/b/with space": b"x",
        "empty": b"",
        "grüße.txt": "é\n".encode(),
        "big": bytes(300_000),
    }
    assert ran.collected.refused == ()


async def test_only_changed_input_files_are_artifacts(bench: Bench) -> None:
    """Unchanged inputs do not come back; changed ones do, even if their size is the same."""
    ran = await bench.bash(
        "printf b > changed; cat same > /dev/null",
        files=[InputFile("same", b"a"), InputFile("changed", b"a")],
    )
    assert ran.files == {"changed": b"b"}


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("", {}),
        ("printf '#' > main.sh", {"main.sh": b"#"}),
        ("sed -i s/sed/SED/ main.sh", {"main.sh": b"SED -i s/sed/SED/ main.sh\nexit"}),
        ("mv main.sh x; printf '#' > x", {"x": b"#"}),
        ("rm main.sh; printf '#' > x", {"x": b"#"}),
        ("mkdir d; printf '#' > d/x", {"d/x": b"#"}),
        ("printf '#' > /tmp/x", {}),
        ("chmod 0 .", {}),
    ],
)
async def test_what_a_run_changed_comes_back_also_when_another_follows(
    bench: Bench, code: str, files: dict[str, bytes]
) -> None:
    """If only the program's own text is there, PID 1 has to know whether it was changed."""
    async with bench.sandbox() as sandbox:
        ran = await use(
            sandbox,
            Program(("bash", "main.sh"), {}),
            bench.limits.bounds,
            files=[InputFile("main.sh", f"{code}\nexit".encode())],
            again=True,
        )
        assert await sandbox.clean() == []
    assert ran.files == files


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("ln -s /etc/passwd f", "f: not_a_regular_file"),
        ("ln -s /etc d", "d: not_a_regular_file"),
        ("echo x > f; ln f g", "f: hard_link"),
        ("mkfifo f", "f: not_a_regular_file"),
        (
            "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'",
            "s: not_a_regular_file",
        ),
        ("echo x > f; chmod 0 f", "f: unreadable"),
        ("echo x > $'a\\nb'", "a\N{REPLACEMENT CHARACTER}b: control_characters_in_name"),
        ("echo x > $'\\e[2J'", "\N{REPLACEMENT CHARACTER}[2J: control_characters_in_name"),
        ("echo x > $'a\\u0085b'", "a\N{REPLACEMENT CHARACTER}b: control_characters_in_name"),
    ],
    ids=lambda value: value.split(":")[-1].strip() if ":" in value else None,
)
async def test_what_is_not_a_plain_file_is_refused(bench: Bench, code: str, refused: str) -> None:
    """Links, pipes, sockets, closed files and names with control characters do not come back."""
    ran = await bench.bash(code, disk_mb=16)
    assert ran.files == {}
    assert refused in ran.collected.refused


async def test_files_keep_their_names(bench: Bench) -> None:
    """They keep them byte for byte, in both directions."""
    # Each in a folder of its own: one of them is a file's name and another one's folder.
    names = {f"{n}/{name}": name.encode() for n, name in enumerate([*ODD.values(), *PLAIN])}
    placed = [InputFile(f"in/{path}", content) for path, content in names.items()]
    ran = await bench.python(
        "import shutil; shutil.copytree('in', 'out')", files=placed, max_files=200
    )
    assert ran.files == {f"out/{path}": content for path, content in names.items()}
    assert ran.collected.refused == ()


async def test_a_name_that_is_not_utf8_is_told_by_its_bytes(bench: Bench) -> None:
    """No text that reports names can hold such a byte; the file is kept."""
    ran = await bench.bash("mkdir $'d\\xe9'; echo x > $'d\\xe9/r\\xe9sum\\xe9.txt'")
    assert ran.files == {"d\\xe9/r\\xe9sum\\xe9.txt": b"x\n"}
    assert ran.collected.refused == ()


async def test_holes_are_zeros(bench: Bench) -> None:
    """For example, a database of `shelve` or a partly written mapped file has holes."""
    ran = await bench.python(
        "import shelve, numpy\n"
        "with shelve.open('cache') as cache:\n"
        "    for n in range(2000):\n        cache[str(n)] = n\n"
        "part = numpy.memmap('part', 'uint8', 'w+', shape=2**20)\npart[5000] = 7\npart.flush()\n",
        disk_mb=16,
        memory_mb=256,
    )
    assert ran.files["part"] == bytes(5000) + b"\7" + bytes(2**20 - 5001)
    assert any(name.startswith("cache") for name in ran.files)
    assert ran.collected.refused == ()


async def test_holes_count_as_the_bytes_that_are_sent(bench: Bench) -> None:
    """Each of many large files is reported as too large without being read."""
    code = (
        "sizes = {str(n): 16 * 2**20 for n in range(500)} | {'a': 600_000, 'b': 600_000, 'c': 1}\n"
        "for name, size in sizes.items():\n"
        "    with open(name, 'wb') as file: file.truncate(size)\n"
    )
    began = time.monotonic()
    ran = await bench.python(code, max_bytes=MB, disk_mb=16)
    assert sorted(ran.files) == ["b", "c"]
    assert ran.collected.refused_total == 501
    assert ran.files["b"] == bytes(600_000)
    assert all(each.endswith(": too_large") for each in ran.collected.refused)
    assert time.monotonic() - began < 30


async def test_a_deep_tree_is_refused_below_a_depth(bench: Bench) -> None:
    """It is five hundred folders deep: the search ends early and says so."""
    ran = await bench.python(
        "import os\nfor n in range(500):\n    os.mkdir('d'); os.chdir('d')\nopen('f', 'w').close()"
    )
    assert ran.files == {}
    assert ran.collected.refused_total == 1
    assert ran.collected.refused[0].endswith(": too_deep")


async def test_too_many_files_are_refused_and_counted(bench: Bench) -> None:
    """The newest come back; of the rest, fifty are named and all are counted."""
    ran = await bench.bash("for n in {100..299}; do echo $n > $n; done", max_files=10)
    assert sorted(ran.files) == [str(n) for n in range(290, 300)]
    assert ran.collected.refused_total == 190
    assert len(ran.collected.refused) == 50
    assert all(each.endswith(": too_many_files") for each in ran.collected.refused)


async def test_files_at_the_top_level_come_before_those_in_folders(bench: Bench) -> None:
    """This holds however late the others were written, and however many there are."""
    ran = await bench.bash(
        "echo 1 > result.csv; mkdir a; for n in {1..2000}; do echo > a/$n; done", max_files=3
    )
    assert "result.csv" in ran.files
    assert len(ran.files) == 3
    assert ran.collected.refused_total == 1998


async def test_named_files_alone_come_back_in_the_order_of_their_names(bench: Bench) -> None:
    """A pattern without a file is reported; files that nobody named are not."""
    code = "mkdir -p out/deep; for f in z.csv out/1 out/deep/2 other; do echo > $f; done; ln -s / x"
    names = ["z.csv", "out/**", "missing.csv"]
    ran = await bench.bash(code, names=names)
    assert sorted(ran.files) == ["out/1", "out/deep/2", "z.csv"]
    assert ran.collected.refused == ("missing.csv: not_found",)
    ran = await bench.bash(code, names=names, max_files=1)
    assert sorted(ran.files) == ["z.csv"]
    assert ran.collected.refused_total == 3
    ran = await bench.bash(code, names=["x", "z.csv"])
    assert sorted(ran.files) == ["z.csv"]
    assert ran.collected.refused == ("x: not_a_regular_file",)


async def test_a_named_file_that_is_missing_is_told_when_another_run_follows(bench: Bench) -> None:
    """PID 1 sees at once that nothing was left, but not what was requested."""
    async with bench.sandbox() as sandbox:
        ran = await use(
            sandbox,
            Program(("bash", "main.sh"), {}),
            bench.limits.bounds,
            files=[InputFile("main.sh", b"true")],
            names=["result.csv"],
            again=True,
        )
        assert await sandbox.clean() == []
    assert ran.collected.refused == ("result.csv: not_found",)


TOOLS = (
    "git init -q repository; mkdir -p .local/lib node_modules/m v/lib; echo > v/pyvenv.cfg; "
    "for f in .local/lib/a node_modules/m/index.js v/lib/b; do echo > $f; done; "
    "echo kept > repository/own; echo kept > own; "
)


async def test_what_tools_keep_for_themselves_is_left_out_and_told(bench: Bench) -> None:
    """Packages, repositories and environments get one line each, whatever they hold."""
    ran = await bench.bash(TOOLS, max_files=2)
    assert ran.files == {"own": b"kept\n", "repository/own": b"kept\n"}
    assert sorted(ran.collected.refused) == [
        ".local/: made_by_tools",
        "node_modules/: made_by_tools",
        "repository/.git/: made_by_tools",
        "v/: made_by_tools",
    ]


async def test_what_tools_keep_for_themselves_comes_back_by_its_name(bench: Bench) -> None:
    """A wildcard does not match its name, but does match below it."""
    ran = await bench.bash(TOOLS, names=["repository/.git/HEAD", "v/**", "**/*.js"])
    assert sorted(ran.files) == ["repository/.git/HEAD", "v/lib/b", "v/pyvenv.cfg"]
    assert ran.collected.refused == ("**/*.js: not_found",)


async def test_files_larger_than_what_is_left_are_refused(bench: Bench) -> None:
    """The limit is for all artifacts together."""
    ran = await bench.bash(
        "head -c 600000 /dev/zero > a; head -c 600000 /dev/zero > b; echo > c", max_bytes=MB
    )
    assert sorted(ran.files) == ["b", "c"]
    assert ran.collected.refused == ("a: too_large",)


async def test_a_workspace_that_the_program_closed_is_still_collected(bench: Bench) -> None:
    """A program's changes to its own folder lose neither its files nor the run."""
    ran = await bench.bash("echo kept > x; chmod 0 /workspace")
    assert (ran.ending.exit_code, ran.files) == (0, {"x": b"kept\n"})


async def test_files_elsewhere_are_no_artifacts(bench: Bench) -> None:
    """Only the workspace is searched."""
    ran = await bench.bash("echo x > /tmp/f; echo x > /dev/shm/f")
    assert ran.files == {}


async def test_an_input_file_does_not_go_through_a_link_or_over_a_file(bench: Bench) -> None:
    """An existing name is not overwritten, and a file is not used as a folder."""
    async with bench.sandbox() as sandbox:
        await sandbox.upload([InputFile("f", b"1")])
        with pytest.raises(SandboxFault, match="EEXIST"):
            await sandbox.upload([InputFile("f", b"2")])
        with pytest.raises(SandboxFault, match="ENOTDIR"):
            await sandbox.upload([InputFile("f/g", b"2")])


async def test_an_input_larger_than_the_disk_is_refused(bench: Bench) -> None:
    """The workspace's limit holds for inputs; the connection stays usable."""
    async with bench.sandbox(disk_mb=1) as sandbox:
        with pytest.raises(SandboxFault, match=r"EFBIG|ENOSPC"):
            await sandbox.upload([InputFile("f", bytes(2 * MB))])
        await sandbox.upload([InputFile("g", b"")])
