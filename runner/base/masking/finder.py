"""Finds many forms in a text, in time linear in the text, whatever the text and the forms are."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from operator import itemgetter

from ahocorasick_rs import BytesAhoCorasick

_HEAD = 8
_HEADS_AT_ONCE = 1024
"""Making an automaton holds the interpreter's lock: about 2 ms for this many heads."""
_SCANNED_AT_ONCE = 8 * 1024
"""Listing matches holds it, too: about 2 ms if a head begins at every byte of this many."""
_CROWD = 512
"""If more heads than this begin in one scanned piece, the whole piece counts as found: half of it
is heads then, and comparing each of them would take too long."""
_COMPARED_FIRST, _COMPARED_PER_BYTE = 1000, 0.25

Span = tuple[int, int]


class Finder:
    """Finds forms; `bool` tells whether there are any."""

    def __init__(self, forms: Iterable[bytes]) -> None:
        by_head = defaultdict(list)
        # Among forms with the same head, the longest first.
        for form in sorted(set(forms), key=lambda each: (-len(each), each)):
            by_head[form[:_HEAD]].append(form)
        self._begins = {head[:end] for head in by_head for end in range(1, len(head))}
        self.longest = max((len(each[0]) for each in by_head.values()), default=0)
        heads = sorted(by_head)
        self._automata = [
            (BytesAhoCorasick(some), [by_head[head] for head in some])
            for at in range(0, len(heads), _HEADS_AT_ONCE)
            for some in [heads[at : at + _HEADS_AT_ONCE]]
        ]

    def __bool__(self) -> bool:
        return bool(self._automata)

    def find(self, text: bytes) -> tuple[list[Span], int]:
        """Return where forms are, and where one begins that the end of the text may have cut off.

        Spans are in order and do not touch. If no form begins at the end, that is the text's
        length.
        """
        size = len(text)
        spans: list[Span] = []
        covered, begun = 0, size
        comparisons = int(_COMPARED_FIRST + _COMPARED_PER_BYTE * size)
        for at, forms in self._beginnings(text):
            if at + len(forms[0]) <= covered:
                continue
            for form in forms:
                end = at + len(form)
                comparisons -= 1
                if end > size:
                    if begun == size and (comparisons < 0 or text.endswith(form[: size - at])):
                        begun = at
                elif comparisons < 0 or text.startswith(form, at):
                    if at <= covered and spans:
                        spans[-1] = (spans[-1][0], max(covered, end))
                    else:
                        spans.append((at, end))
                    covered = spans[-1][1]
                    break
        for at in range(max(0, size - _HEAD + 1), begun):
            if text[at:] in self._begins:
                return spans, at
        return spans, begun

    def _beginnings(self, text: bytes) -> Iterator[tuple[int, list[bytes]]]:
        """Yield in order each place where the head of a form is, and the forms with that head."""
        view = memoryview(text)
        for first in range(0, len(text), _SCANNED_AT_ONCE):
            window = view[first : first + _SCANNED_AT_ONCE + _HEAD - 1]
            found = [
                (first + start, forms)
                for automaton, by_head in self._automata
                for start, forms in _standing(automaton, by_head, window)
                if start < _SCANNED_AT_ONCE
            ]
            # Sort by place only; they are mostly in order already.
            found.sort(key=itemgetter(0))
            yield from found


def _standing(
    automaton: BytesAhoCorasick, by_head: list[list[bytes]], window: memoryview
) -> list[tuple[int, list[bytes]]]:
    apart = automaton.find_matches_as_indexes(window)
    if len(apart) > _CROWD:
        return [(0, [bytes(window)])]
    every = apart and automaton.find_matches_as_indexes(window, overlapping=True)
    return [(start, by_head[head]) for head, start, _ in every]
