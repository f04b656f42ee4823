"""Words of somebody who is not trusted, as they stand in a prompt: in quotation marks, and with whose they are."""

from __future__ import annotations

import re

TOOL = "The tool said"
JUDGE = "The judge said"
ATTEMPTS = "The attempts showed"

_QUOTED = re.compile(rf'^(?:{TOOL}|{JUDGE}|{ATTEMPTS}): "(?P<text>.*)"$', re.DOTALL)


def quoted(text: str, speaker: str) -> str:
    """`SPEAKER: "TEXT"`. Double quotation marks within become single ones: none ends the quotation early."""
    return f'{speaker}: "{text.strip().replace(chr(34), chr(39))}"'


def unquoted(text: str) -> str:
    """What was quoted, without the marks and the speaker; a text that is no such quotation as it is."""
    found = _QUOTED.match(text.strip())
    return found["text"] if found else text
