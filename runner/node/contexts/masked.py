"""Stars secrets in what a run shows.

Text is masked piece by piece, as it comes. JSON is taken apart first: in its text, a secret may be
written in a way in which nobody would look for it, such as with characters escaped twice.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from runner.base.masking import INLINE, Masker
from runner.base.masking import Stream as Mask
from runner.base.tasks import uninterrupted
from runner.words.execution import JSON, Stream
from runner.words.json import RepeatedKey, read_json

MOST_ELEMENTS = 100_000
"""How many values and keys a JSON text may have, about. Each costs far more than its bytes."""
HOP_S = 100e-6
"""Seconds of the event loop, on a slow core, for letting a thread mask something."""
_CHAR_S = 20e-9
"""The fewest seconds that a character of JSON takes."""
_SEPARATOR = "\n"
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class OutputMask:
    """Masks both outputs of a run."""

    def __init__(self, masker: Masker, charge: Callable[[float], None]) -> None:
        self._charge = charge
        self._masks: dict[Stream, Mask] = {each: masker.stream() for each in Stream}

    async def take(self, stream: Stream, data: bytes) -> bytes:
        """Return what is certain so far."""
        return await fed(self._masks[stream], data, self._charge)

    def rest(self) -> Iterator[tuple[Stream, bytes]]:
        """Yield what was held back."""
        for stream, mask in self._masks.items():
            if data := mask.rest():
                yield stream, data


async def fed(mask: Mask, data: bytes, charge: Callable[[float], None]) -> bytes:
    """Feed a mask, and charge for the thread that a long piece needs."""
    if mask.needs_thread(data):
        charge(HOP_S)
    return await mask.feed_aside(data)


class JsonMasking:
    """One thread, in which a node masks the JSON of all contexts.

    The threads that mask text are left to text, so whoever says much JSON delays only JSON.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "context-json")

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def turns(self, charge: Callable[[float], None]) -> "JsonTurns":
        """Return one sandbox's use of it; `charge` charges the sandbox, in seconds."""
        return JsonTurns(self._thread, charge)


class JsonTurns:
    """One sandbox's use of the thread: one text after another, so that sandboxes take turns."""

    def __init__(self, thread: ThreadPoolExecutor, charge: Callable[[float], None]) -> None:
        self._thread = thread
        self._charge = charge
        self._turn = asyncio.Lock()

    async def masked(self, text: str, masker: Masker) -> str | None:
        """Return what `masked_json` does, and charge the sandbox for it.

        The thread holds the interpreter's lock, and so the event loop.
        """
        if len(text) <= INLINE:
            whole, seconds = masked_json(text, masker)
            self._charge(seconds)
            return whole
        ahead = _CHAR_S * len(text)
        self._charge(HOP_S + ahead)
        async with self._turn:
            work = asyncio.get_running_loop().run_in_executor(
                self._thread, masked_json, text, masker
            )
            whole, seconds = await uninterrupted(_result(work))
        self._charge(max(0.0, seconds - ahead))
        return whole


async def _result(
    work: "asyncio.Future[tuple[str | None, float]]",
) -> tuple[str | None, float]:
    return await work


def masked_json(text: str, masker: Masker) -> tuple[str | None, float]:
    """Return a JSON text, in ASCII, with every secret in its strings, keys and numbers starred.

    None if it is no JSON (RFC 8259, so no NaN), has too many elements or is nested too deeply.
    Second, return how many seconds of processor time that took.
    """
    began = time.thread_time()
    try:
        whole = None if _has_too_many_elements(text) else _masked(text, masker)
    except (RepeatedKey, ValueError, RecursionError):
        whole = None
    return whole, time.thread_time() - began


def _has_too_many_elements(text: str) -> bool:
    """Count what precedes elements, outside of strings only if there seem to be too many."""
    return _elements(text) > MOST_ELEMENTS and _elements(_STRING.sub("", text)) > MOST_ELEMENTS


def _elements(text: str) -> int:
    return sum(map(text.count, ",:[{"))


def _masked(text: str, masker: Masker) -> str:
    value: JSON = read_json(text)
    if masker:
        texts: list[str] = []
        _collect(value, texts)
        leaves = [each.encode("utf-8", "surrogatepass") for each in texts]
        # Together, so that one look is enough. Stars are as long as what they replace.
        whole = masker.whole(_SEPARATOR.encode().join(leaves))
        starred = []
        at = 0
        for leaf in leaves:
            starred.append(whole[at : at + len(leaf)].decode("utf-8", "replace"))
            at += len(leaf) + len(_SEPARATOR)
        value = _with(value, iter(starred))
    return json.dumps(value, allow_nan=False)


def _collect(value: JSON, texts: list[str]) -> None:
    """Add the text of each key and of each plain value, in order."""
    if isinstance(value, dict):
        for key, each in value.items():
            texts.append(key)
            _collect(each, texts)
    elif isinstance(value, list):
        for each in value:
            _collect(each, texts)
    else:
        texts.append(_text(value))


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _with(value: JSON, leaves: Iterator[str]) -> JSON:
    """Return the same value with these texts; what is starred becomes a string."""
    if isinstance(value, dict):
        return {next(leaves): _with(each, leaves) for each in value.values()}
    if isinstance(value, list):
        return [_with(each, leaves) for each in value]
    leaf = next(leaves)
    return value if leaf == _text(value) else leaf
