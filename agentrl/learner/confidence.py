"""The confidence that a text states: found, and written anew in the form that it had."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STATED = re.compile(
    r"""(?ix) \bconfidence\b (?: \s+ (?:score|level) )? ["'*]* \s* (?: [:=] | is ) \s* ["'*]*
        (?P<number> \d+(?:\.\d+)? ) (?P<percent> \s*% )?"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """Characters [start, end) of a text, a number, and what stands in their place."""

    start: int
    end: int
    text: str


def stated(text: str, value: float) -> Stated | None:
    """The last confidence of a text, with `value` in its form: "80%" -> "63%", "0.8" -> "0.63", "80" -> "63".

    A number up to 1 without a percent sign is a share, a larger one a percentage.

    Args:
        text: in which "confidence" and a number stand, with ":", "=" or "is" between them.
        value: in [0, 1].
    """
    found = list(_STATED.finditer(text))
    if not found:
        return None
    last = found[-1]
    number = last["number"]
    is_share = not last["percent"] and float(number) <= 1
    new = f"{value:.2f}" if is_share else f"{100 * value:.0f}"
    return Stated(start=last.start("number"), end=last.end("number"), text=new)


def with_confidence(text: str, value: float) -> str:
    """The text with its last confidence replaced; itself where none is stated."""
    found = stated(text, value)
    return text if found is None else text[: found.start] + found.text + text[found.end :]
