"""Secrets' values, starred out of bytes that are to be stored.

Masking looks for the value and for what programs print of it by accident (`forms`): its lines,
base64 and hex of it wherever their lines break, and its percent-encoding, HTML and strings of
JSON, Python and shells. It is no wall against a program that means to give its secrets away: any
other encoding passes. Stars take as much room as what they hide, so sizes stay true.

A tenant chooses both the secrets and the output, so the cost is bounded for any of them. One
automaton (Aho-Corasick, `finder`) finds every place where the first bytes of a form stand, in time
linear in the text; the forms themselves are compared at these places only. Text in which forms
begin so often that comparing would take too long is starred at all of these places.

    masker  stars in the place of secrets
    finder  finds many forms in linear time
    forms   what programs print of a value
"""

from runner.base.masking.masker import Masker, Stream

__all__ = ["Masker", "Stream"]
