"""Replaces secrets by stars."""

from collections.abc import Iterable
from dataclasses import dataclass

from runner.base.masking.finder import Finder, Span
from runner.base.masking.forms import compact, encoded, positions, written
from runner.base.tasks import aside
from runner.words.text import character_end, character_start

MIN_CUT = 4
"""If the end of the output cuts a value off, its beginning is masked from this many bytes on."""
INLINE = 1024
"""Texts longer than this are masked in a thread, so that they do not hold up the event loop."""
_BREAKS_PER_BYTE, _BREAKS = 4, 1024
"""How far apart line breaks may tear base64 and hex."""
_WHITE = b" \t\r\n\v\f"
_STARS = bytes(each if each in _WHITE else ord("*") for each in range(256))


@dataclass(frozen=True, slots=True)
class _Found:
    written: list[Span]
    encoded: list[Span]
    begun: int
    """A place in the output that may be the beginning of a secret."""
    brief: bool
    """Whether this is so short, and followed by white space, that it may be shown."""


class Masker:
    """The secrets to mask in everything that one run leaves.

    Making one takes up to some ten milliseconds for the worst values, so do it in a thread.
    """

    def __init__(self, values: Iterable[str]) -> None:
        values = [*values]
        self._written = Finder(form for value in values for form in written(value))
        self._encoded = Finder(form for value in values for form in encoded(value))
        longest = max(self._written.longest, self._encoded.longest)
        self.reach = _BREAKS_PER_BYTE * longest + _BREAKS
        """How many bytes a secret may take up."""

    def __bool__(self) -> bool:
        return bool(self._written)

    def text(self, text: str) -> str:
        """Return the text with each secret masked."""
        return self.whole(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def beginning(self, text: str) -> str:
        """Return the same of a text whose end was cut off, with it perhaps that of a secret."""
        stream = self.stream()
        hidden = stream.feed(text.encode("utf-8", "surrogatepass")) + stream.rest()
        return hidden.decode("utf-8", "surrogatepass")

    async def text_aside(self, text: str) -> str:
        """Return the same as `text`, without holding up the event loop."""
        raw = text.encode("utf-8", "surrogatepass")
        hidden = await aside(self.whole, raw, inline=INLINE)
        return hidden.decode("utf-8", "surrogatepass")

    def whole(self, data: bytes) -> bytes:
        """Return the bytes with each secret masked; no more bytes follow them."""
        if not self:
            return data
        hidden = bytearray(data)
        star(hidden, self.find(data))
        return bytes(hidden)

    def stream(self) -> "Stream":
        """Return a mask for bytes that come in pieces."""
        return Stream(self)

    def find(self, text: bytes) -> _Found:
        """Return where secrets are in the text, and where one may begin: whole characters."""
        written, begun = self._written.find(text)
        # Where comparing would take too long, a masked part may begin and end anywhere.
        spans = [(character_start(text, start), character_end(text, end)) for start, end in written]
        begun = character_start(text, begun)
        short, kept = compact(text)
        inner, inner_begun = self._encoded.find(short)
        if not inner and inner_begun == len(short):
            return _Found(spans, [], begun, brief=False)
        places = positions(kept)
        torn = [(places[start], places[end - 1] + 1) for start, end in inner]
        first = places[inner_begun] if inner_begun < len(short) else begun
        brief = first < begun == len(text) != places[-1] + 1 and len(short) - inner_begun < MIN_CUT
        return _Found(spans, torn, min(first, begun), brief)


class Stream:
    """Masks bytes that come in pieces, including a secret that is spread over several of them.

    Only what may be the beginning of a secret is held back; other output is not delayed.
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = b""
        self._stars = b""
        """How the beginning of `_held` will be shown: it belongs to a secret that was found."""
        self._shown = 0
        """How much of `_held` was already returned."""

    def needs_thread(self, data: bytes) -> bool:
        """Return whether `feed_aside` has a thread mask this."""
        return bool(self._masker) and len(self._held) + len(data) > INLINE

    async def feed_aside(self, data: bytes) -> bytes:
        """Return the same as `feed`, without holding up the event loop."""
        if not self._masker:
            return data
        return await aside(self.feed, data, inline=INLINE - len(self._held))

    def feed(self, data: bytes) -> bytes:
        """Return the output that is certain so far."""
        if not self._masker:
            return data
        raw = self._held + data
        found = self._masker.find(raw)
        cut = max(found.begun, character_start(raw, max(0, len(raw) - self._masker.reach)))
        hidden = bytearray(raw)
        hidden[: len(self._stars)] = self._stars
        star(hidden, found)
        across = (end for start, end in (*found.written, *found.encoded) if start < cut < end)
        known = max(cut, len(self._stars), *across)
        shown = max(self._shown, len(raw) if found.brief else cut)
        certain = bytes(hidden[self._shown : shown])
        self._held, self._stars, self._shown = raw[cut:], bytes(hidden[cut:known]), shown - cut
        return certain

    def rest(self) -> bytes:
        """Return the output that was held back, with stars for a secret that was cut off."""
        raw, shown, starred = self._held, self._shown, self._stars
        self._held, self._stars, self._shown = b"", b"", 0
        return raw[shown:] if len(raw) < MIN_CUT and not starred else b"*" * (len(raw) - shown)


def starred(data: bytes) -> bytes:
    """Return stars in the place of all of it; white space stays."""
    return data.translate(_STARS)


def star(hidden: bytearray, found: _Found) -> None:
    """Replace what was found by stars; white space that breaks an encoding stays."""
    for start, end in found.encoded:
        hidden[start:end] = hidden[start:end].translate(_STARS)
    for start, end in found.written:
        hidden[start:end] = b"*" * (end - start)
