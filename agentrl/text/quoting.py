"""Words of somebody who is not trusted, as they stand in a prompt: in quotation marks, and with whose they are."""

from __future__ import annotations

import re

TOOL = "The tool said"
JUDGE = "The judge said"
ATTEMPTS = "The attempts showed"
SOMEBODY = "Somebody said"

_MARKS = re.compile(r'["“”„‟«»＂\\]')
"""What a reader may take for the end of a quotation."""
_ESCAPED = re.compile(rf"\\({_MARKS.pattern})")
_QUOTED = re.compile(rf'^(?:{TOOL}|{JUDGE}|{ATTEMPTS}|{SOMEBODY}): "(?P<text>.*)"$', re.DOTALL)


def quoted(text: str, speaker: str) -> str:
    """`SPEAKER: "TEXT"`. A quotation mark within, of whatever form, stands behind a backslash, as in JSON: none ends
    the quotation early, and `unquoted` gives the text back. Line breaks stand as they are: escaped, they made the
    model that ships obey fewer hints."""
    return f'{speaker}: "{_MARKS.sub(_escaped, text.strip())}"'


def unquoted(text: str) -> str:
    """What was quoted, without the marks and the speaker; a text that is no such quotation as it is."""
    found = _QUOTED.match(text.strip())
    return _ESCAPED.sub(r"\1", found["text"]) if found else text


def _escaped(mark: re.Match[str]) -> str:
    return "\\" + mark[0]
