"""Whether users asked for something, and did not forbid it: "never add noqa" names what nobody wants."""

from __future__ import annotations

import re

_CLAUSE_END = re.compile(
    r"[.;!?](?=\s|$)|\n|,\s*(?=(?:but|so|then|just|instead|rather|simply|please)\b)|\bbut\b"
)
"""Where a denial ends. Other commas may stand in a list of what is denied."""
_DENIES = re.compile(
    r"(?i)\b(?:not|never|no(?!,)|nor|neither|without|avoid|stop|cannot|dont)\b(?! (?:forget|hesitate|worry))"
    r"|n['’]t\b(?! (?:forget|hesitate|worry))"
)
_FORBIDS = re.compile(
    r"(?i)\b(?:forbidden|banned|prohibited|disallowed)\b|(?:\bnot|\bnever|n['’]t) (?:be )?"
    r"(?:allowed|permitted|acceptable|accepted|used|wanted|an option|okay|ok)\b"
)


def requested(pattern: re.Pattern[str], said: str) -> bool:
    """Whether a pattern stands in what users said, in a clause that does not deny it.

    Args:
        said: what they said so far, of which the caller bounds the length.
    """
    return any(
        not _DENIES.search(clause[: found.start()]) and not _FORBIDS.search(clause)
        for clause in _CLAUSE_END.split(said)
        for found in pattern.finditer(clause)
    )
