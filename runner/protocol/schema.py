"""A generation of the protocol as one document: how frames are laid out, and JSON Schemas.

`python -m runner.protocol.schema` writes the newest generation's into `generations/`.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.protocol import frames, greeting, living_commands
from runner.protocol.codec import json_schema
from runner.protocol.commands import COMMANDS, INVOCATION
from runner.protocol.events import EVENTS
from runner.protocol.living import OVERHEAD, WINDOW
from runner.protocol.living_commands import LIVING_COMMANDS
from runner.protocol.living_events import LIVING_EVENTS

GENERATION = 2
FOLDER = Path(__file__).parent / "generations"
_CARRIES = {
    b"C": "a command or an event, as JSON in UTF-8",
    b"D": "a piece of a file: an input file, the program or its stdin, names, an artifact",
    b"O": "a piece of the program's stdout",
    b"E": "a piece of the program's stderr",
    b"W": "what is added to this stream's window: 4 bytes, unsigned, big-endian",
}
_STREAMS = (
    "Stream 0 is the sandbox itself: ping and load, and their answers. Each prepare opens the next "
    "stream, beginning with 1, which belongs to that program: everything else is on it. The "
    "supervisor speaks on the stream of the command that it obeys."
)


def document() -> dict[str, Any]:
    """Return the generation that the types of this package describe."""
    return {
        "title": f"Generation {GENERATION} of the protocol between a node and a supervisor",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "generation": GENERATION,
        "greeting": {
            "description": _prose(greeting.__doc__),
            "header": _header(greeting.HEADER_FIELDS),
            "kinds": {
                greeting.KIND.decode(): {
                    "shortest": 1,
                    "longest": greeting.LONGEST,
                    "carries": "JSON in UTF-8",
                }
            },
            "supervisor": greeting.FIRST_WORDS.schema(),
            "node": greeting.ANSWERS.schema(),
        },
        "frame": {
            "description": _prose(frames.__doc__),
            "header": _header(frames.HEADER_FIELDS),
            "kinds": {
                kind.decode(): {"shortest": 1, "longest": longest, "carries": _CARRIES[kind]}
                for kind, longest in frames.LONGEST.items()
            },
            "streams": _STREAMS,
        },
        "commands": COMMANDS.schema(),
        "events": EVENTS.schema(),
        "program": json_schema(INVOCATION),
        "living": {
            "description": _prose(living_commands.__doc__),
            "window": WINDOW,
            "overhead": OVERHEAD,
            "commands": LIVING_COMMANDS.schema(),
            "events": LIVING_EVENTS.schema(),
        },
    }


def _header(fields: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "field": name,
            "bytes": struct.calcsize(f">{code}"),
            "type": "one ASCII letter" if code == "c" else "unsigned, big-endian",
        }
        for name, code in fields.items()
    ]


def _prose(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


def written() -> str:
    """Return the document as its file holds it."""
    return json.dumps(document(), indent=2) + "\n"


if __name__ == "__main__":
    (FOLDER / f"{GENERATION}.json").write_text(written())
