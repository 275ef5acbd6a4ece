"""Writes a template's image in a process of its own, to which the node gives only the archive.

A tenant was root where the archive was packed, and may have packed half a million files. Reading
them takes Python minutes. If the node's own process did that, its other work would wait, and
hostile bytes would be read beside its secrets. The process ends when the node's ends.
"""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.base.settings import project_root
from runner.base.tasks import uninterrupted
from runner.sandbox.engine.layers import write_image, write_layer
from runner.sandbox.engine.template_image import BYTES_LABEL
from runner.words.errors import Invalid, LaunchFailed
from runner.words.sandbox import UnixAccount

LESS_URGENT = 10
"""What is added to its niceness: whoever uses a sandbox goes first."""


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """An image to write: from which archive, on which base, and what it is called."""

    archive: str
    image: str
    """The path of what is written, as `docker load` reads it."""
    most: int
    """How many bytes the archive's files may have, holes included."""
    user: str
    home: str
    moved: bool
    """Whether the home is another than that of the base."""
    base: Mapping[str, Any]
    """What Docker tells of the base."""
    tag: str
    labels: Mapping[str, str]


async def write_aside(order: ImageOrder) -> None:
    """Write the image. Raises Invalid if the archive holds what no template may, and OSError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Nothing of the node's environment, which may hold passwords.
        env={"PYTHONPATH": str(project_root()), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process was started without its pipes")
        # Stdin stays open: the process takes its end for the end of the node.
        process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        answer = await process.stdout.read()
    finally:
        if process.returncode is None:
            process.kill()
        await uninterrupted(process.wait())
    match json.loads(answer or b"null"):
        case {"refused": str(why), "field": str(field)}:
            raise Invalid(why, field)
        case {"errno": int(number), "why": str(why)}:
            raise OSError(number, why)
        case {"written": True}:
            return
    raise LaunchFailed("the process that writes templates' images ended before it had written one")


def write(order: ImageOrder) -> None:
    """Write the image. Raises Invalid and OSError."""
    path = Path(f"{order.image}.layer")
    account = UnixAccount(order.user, order.home)
    try:
        with Path(order.archive).open("rb") as source, path.open("w+b") as target:
            layer = write_layer(source, target, account, most=order.most, moved=order.moved)
        labels = {**order.labels, BYTES_LABEL: str(layer.size)}
        with Path(order.image).open("wb") as target:
            write_image(target, order.base, path, layer, tag=order.tag, labels=labels)
    finally:
        path.unlink(missing_ok=True)


def main() -> None:
    """Write what a line on stdin orders, and say on stdout what came of it."""
    os.nice(LESS_URGENT)
    order = ImageOrder(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_the_node, daemon=True).start()
    answer: dict[str, object] = {"written": True}
    try:
        write(order)
    except Invalid as error:
        answer = {"refused": error.detail, "field": error.field}
    except OSError as error:
        answer = {"errno": error.errno, "why": error.strerror}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    # The thread still reads.
    os._exit(0)


def _end_with_the_node() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
