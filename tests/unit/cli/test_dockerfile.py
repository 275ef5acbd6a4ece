"""A Dockerfile becomes the steps of a template, or is refused with its line."""

import base64
import os
from pathlib import Path

import pytest

from runner.cli.dockerfile import read
from runner.words.errors import SetupError


def steps(folder: Path, text: str) -> list[dict[str, object]]:
    """Return the steps of a Dockerfile that begins with FROM."""
    (folder / "Dockerfile").write_text(f"FROM python\n{text}")
    return read(folder).steps


def copied(to: str, content: str, *, executable: bool = False) -> dict[str, object]:
    """Return the step that writes a file."""
    encoded = base64.b64encode(content.encode()).decode()
    return {"copy": {"to": to, "base64": encoded, "executable": executable}}


def test_a_folder_without_a_dockerfile_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"^there is no .*/Dockerfile: name a folder that has a"):
        read(tmp_path)


def test_each_instruction_is_a_step(tmp_path: Path) -> None:
    text = (
        "# a comment\n\nRUN one && \\\n# in between\n  two\nENV A=1 B='2 3'\nARG C=4\n"
        'WORKDIR /srv\nuser agent\nRUN ["echo", "a b"]\n'
    )
    assert steps(tmp_path, text) == [
        {"run": "one &&   two"},
        {"env": {"A": "1", "B": "2 3"}},
        {"arg": {"C": "4"}},
        {"workdir": "/srv"},
        {"user": "agent"},
        {"run": "echo 'a b'"},
    ]
    assert read(tmp_path).base == "python"


def test_files_and_folders_are_copied_as_docker_does_it(tmp_path: Path) -> None:
    """The content of a folder goes below the target; several files need a folder as target."""
    (tmp_path / "app" / "sub").mkdir(parents=True)
    (tmp_path / "app" / "a.py").write_text("a")
    (tmp_path / "app" / "sub" / "b").write_text("b")
    (tmp_path / "run.sh").write_text("r")
    (tmp_path / "run.sh").chmod(0o755)
    run = copied("/bin/run", "r", executable=True)
    assert steps(tmp_path, "COPY run.sh /bin/run\n") == [run]
    assert steps(tmp_path, "COPY run.sh /bin/\n") == [copied("/bin/run.sh", "r", executable=True)]
    assert steps(tmp_path, "COPY /run.sh /bin/run\n") == [run]
    inside = [copied("/srv/a.py", "a"), copied("/srv/sub/b", "b")]
    assert steps(tmp_path, "COPY app /srv\n") == inside
    assert steps(tmp_path, "COPY app/*.py run.sh /srv\n") == [
        copied("/srv/a.py", "a"), copied("/srv/run.sh", "r", executable=True)
    ]  # fmt: skip
    assert len(steps(tmp_path, "COPY . /srv\n")) == 3, "without the Dockerfile"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("RUN true\nADD x /x\n", "line 3: ADD is not supported"),
        ("CMD true\n", "CMD is not supported"),
        ("RUN --mount=type=cache true\n", "RUN has no option --mount=type=cache"),
        ("COPY --from=other a b\n", "COPY has no options"),
        ("COPY missing /x\n", "there is no 'missing'"),
        ("COPY ../outside /x\n", "is not in"),
        ("COPY link /x\n", "is not in"),
        ("COPY /etc/passwd /x\n", "there is no '/etc/passwd'"),
        ("COPY loop /x\n", "loop"),
        ("COPY pipe /x\n", "is neither a file nor a folder"),
        ('COPY ["a", 1]\n', "is not a list of words"),
        ('RUN ["a", 1]\n', "is not a list of words"),
        ("ENV PATH=/x:$PATH\n", "variables are expanded in RUN only"),
        ("ENV A 1\n", "is not NAME=value"),
        ("FROM other\n", "the first instruction is FROM, and there is one"),
        ("nonsense\n", "'nonsense' is no instruction"),
    ],
)
def test_what_a_template_cannot_have_is_refused(tmp_path: Path, text: str, why: str) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (tmp_path / "outside").write_text("secret")
    (folder / "link").symlink_to("../outside")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    with pytest.raises(SetupError) as refused:
        steps(folder, text)
    assert why in refused.value.detail


@pytest.mark.parametrize("text", ["", "RUN true\n"])
def test_a_file_without_from_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    with pytest.raises(SetupError, match="FROM"):
        read(tmp_path)


def test_what_would_be_ignored_in_silence_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("x\n")
    with pytest.raises(SetupError, match="not supported"):
        steps(tmp_path, "")
