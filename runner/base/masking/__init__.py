"""Masks secrets' values with stars in bytes that are to be stored.

Masking looks for the value itself and for what programs print of it by accident (`forms`): its
lines, its base64 and hex wherever their lines break, and how percent-encoding, HTML and strings of
JSON, Python and shells write it. It does not stop a program that means to give its secrets away,
because any other encoding passes. As many stars replace a value as it has bytes, so sizes stay
true.

A tenant chooses both the secrets and the output, so the cost must be bounded for all of them. One
automaton (Aho-Corasick, `finder`) finds every place where a form may begin, by its first bytes, in
time linear in the text. Complete forms are compared only at these places. If forms may begin at so
many places that comparing would take too long, all these places are masked.

    masker  replaces secrets by stars
    finder  finds many forms in linear time
    forms   what programs print of a value
"""

from runner.base.masking.masker import INLINE, Masker, Stream, starred

__all__ = ["INLINE", "Masker", "Stream", "starred"]
