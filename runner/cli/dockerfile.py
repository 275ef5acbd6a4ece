"""A Dockerfile as the steps of a template: what it can say there, and nothing in silence."""

import base64
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.words.errors import SetupError

NAME = "Dockerfile"
IGNORED = ".dockerignore"
_LINE = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)
_PAIR = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


@dataclass(slots=True)
class BuildFile:
    """The content of a Dockerfile: its base, and the steps as `POST /v1/templates` takes them."""

    base: str | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)


def read(folder: Path) -> BuildFile:
    """Return what the folder's Dockerfile says. Raises SetupError that names the line."""
    path = folder / NAME
    if (folder / IGNORED).exists():
        raise SetupError(f"{folder / IGNORED} is not supported: COPY what is needed by its name")
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise SetupError(f"there is no {path}: name a folder that has a {NAME}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} cannot be read: {error}") from error
    found = BuildFile()
    for number, line in _lines(text):
        try:
            _take(found, folder, line)
        # A link in a loop is a RuntimeError until Python 3.13.
        except (ValueError, OSError, RuntimeError) as error:
            raise SetupError(f"{path}, line {number}: {error}") from error
    if found.base is None:
        raise SetupError(f"{path} has no FROM, which names the image below")
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each instruction, with lines that end in a backslash joined, and where it begins."""
    begun, at = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not begun and not line.strip()):
            continue
        at = at or number
        begun += line
        if line.endswith("\\"):
            begun = begun[:-1]
            continue
        yield at, begun
        begun, at = "", 0
    if begun:
        yield at, begun


def _take(found: BuildFile, folder: Path, line: str) -> None:
    matched = _LINE.fullmatch(line)
    if matched is None:
        raise ValueError(f"{line.strip()!r} is no instruction")
    word, rest = matched[1].upper(), matched[2].strip()
    if (word == "FROM") is (found.base is not None):
        raise ValueError("the first instruction is FROM, and there is one")
    if "$" in rest and word != "RUN":
        raise ValueError(f"variables are expanded in RUN only, and {word} has one")
    match word:
        case "FROM":
            found.base = rest
        case "RUN":
            found.steps.append({"run": _command(rest)})
        case "COPY":
            found.steps += _copies(folder, rest)
        case "ENV" | "ARG":
            found.steps.append({word.lower(): _pairs(rest)})
        case "WORKDIR" | "USER":
            found.steps.append({word.lower(): rest})
        case _:
            raise ValueError(
                f"{word} is not supported; a template has FROM, RUN, COPY, ENV, ARG, WORKDIR, USER"
            )


def _command(rest: str) -> str:
    if rest.startswith("--"):
        raise ValueError(f"RUN has no option {rest.split(maxsplit=1)[0]} here")
    if rest.startswith("["):
        return shlex.join(_words(rest))
    return rest


def _words(rest: str) -> list[str]:
    words = json.loads(rest)
    if not all(isinstance(each, str) for each in words):
        raise ValueError(f"{rest!r} is not a list of words")
    return list(words)


def _pairs(rest: str) -> dict[str, str]:
    words = shlex.split(rest)
    if not words or not all(_PAIR.match(each) for each in words):
        raise ValueError(f"{rest!r} is not NAME=value")
    return {name: value for name, _, value in (each.partition("=") for each in words)}


def _copies(folder: Path, rest: str) -> Iterator[dict[str, Any]]:
    """Yield a step for each file. What a folder holds goes below the target, as Docker does it."""
    words = _words(rest) if rest.startswith("[") else shlex.split(rest)
    if any(each.startswith("--") for each in words):
        raise ValueError("COPY has no options here")
    *sources, target = words
    if not sources:
        raise ValueError("COPY needs a source and a target")
    for source in sources:
        # As for Docker, a path that begins at the root begins at the folder.
        pattern = source.strip("/")
        found = sorted(folder.glob(pattern)) if pattern not in {"", "."} else [folder]
        if not found:
            raise ValueError(f"there is no {source!r} in {folder}")
        many = len(sources) > 1 or len(found) > 1
        for each in found:
            yield from _copied(folder, each, target, below=many or target.endswith(("/", ".")))


def _copied(folder: Path, source: Path, target: str, *, below: bool) -> Iterator[dict[str, Any]]:
    if not source.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{source} is not in {folder}")
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and path != folder / NAME:
                yield _copy(folder, path, f"{target.rstrip('/')}/{path.relative_to(source)}")
        return
    yield _copy(folder, source, f"{target.rstrip('/')}/{source.name}" if below else target)


def _copy(folder: Path, path: Path, target: str) -> dict[str, Any]:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} is a link out of {folder}")
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder")
    content = base64.b64encode(path.read_bytes()).decode()
    executable = bool(path.stat().st_mode & 0o100)
    return {"copy": {"to": target, "base64": content, "executable": executable}}
