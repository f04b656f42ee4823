"""Grades a note by its text alone: which style it shows, and whether it holds the facts of the request.

Written apart from `envs.personal`, whose users find by a reading of their own what to correct: this file shares no code
and no words with them, so that a fault of theirs cannot hide in the figures. Regular expressions, the standard library.

A note is an opening line or none, a body (one sentence, or a heading with a list, or table rows), an ending line or
none. Whatever else stands in a note makes it no note: its form is None then, and so is what cannot be told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_OPENING = {
    "formal": re.compile(r"Certainly\.|With pleasure\."),
    "friendly": re.compile(r"Sure thing!|Here you go!"),
}
_ENDING = {"regards": re.compile(r"Kind regards"), "cheers": re.compile(r"Cheers")}
_SENTENCE = re.compile(r"The (?P<thing>\w+) has (?P<facts>[^.|:]+)\.")
_HEADING = re.compile(r"The (?P<thing>\w+):")
_ITEM = re.compile(r"- (?P<name>\w+): (?P<value>[^:|]+)")
_ROW = re.compile(r"\| (?P<name>\w+) \| (?P<value>[^:|]+) \|")
_CLAUSE = re.compile(r"(?P<name>\w+) (?P<value>\d.*)")

_SI, _US = r"(?P<si>\d+ (?:kg|cm|mm|m|l))", r"(?P<us>\d+ (?:lb|in|ft|gal))"
_VALUES = {
    "metric": re.compile(_SI),
    "imperial": re.compile(_US),
    "both": re.compile(rf"{_SI} \({_US}\)"),
}
_ASKED = re.compile(r"(?P<name>\w+) (?P<si>\d+ \w+) or (?P<us>\d+ \w+)")
_ASKED_THING = re.compile(r"\bthe (?P<thing>\w+)(?::| like\?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What a note shows."""

    form: str | None
    """sentence, list, table; None = no note."""
    tone: str | None
    """formal, friendly, dry (no opening)."""
    units: str | None
    """metric, imperial, both; None where the facts differ in it."""
    ending: str | None
    """regards, cheers, none."""
    facts: bool
    """Whether all facts of the request stand in it, no others, and about the right thing."""

    def met(self, preferences: Mapping[str, str]) -> dict[str, bool]:
        """By axis whether the note has the wanted value."""
        return {axis: getattr(self, axis) == value for axis, value in preferences.items()}


def grade(request: str, note: str) -> Grade:
    """Grades the note that answers a request."""
    lines = note.strip().split("\n")
    tone = next((name for name, text in _OPENING.items() if text.fullmatch(lines[0])), "dry")
    ending = next((name for name, text in _ENDING.items() if text.fullmatch(lines[-1])), "none")
    body = lines[tone != "dry" : len(lines) - (ending != "none")]
    form, thing, stated = _body(body)
    if form is None:
        # An edge is told from the body, so without one only edges that are there can be told.
        return Grade(
            form=None,
            tone=None if tone == "dry" else tone,
            units=None,
            ending=None if ending == "none" else ending,
            facts=False,
        )
    found = {name: _value(value) for name, value in stated}
    kinds = {kind for kind, _, _ in found.values()}
    return Grade(
        form=form,
        tone=tone,
        units=kinds.pop() if len(kinds) == 1 else None,
        ending=ending,
        facts=_are_right(request, thing, found) and len(found) == len(stated),
    )


_Value = tuple[str | None, str | None, str | None]
"""In which units, the metric value, the imperial one."""


def _body(lines: list[str]) -> tuple[str | None, str | None, list[tuple[str, str]]]:
    """Form, thing (a table names none) and the names and values that are stated."""
    if len(lines) == 1 and (sentence := _SENTENCE.fullmatch(lines[0])):
        clauses = [_CLAUSE.fullmatch(part) for part in sentence["facts"].split(" and ")]
        if all(clauses):
            return "sentence", sentence["thing"], [(c["name"], c["value"]) for c in clauses if c]
    rows = [_ROW.fullmatch(line) for line in lines]
    if lines and all(rows):
        return "table", None, [(row["name"], row["value"]) for row in rows if row]
    heading = _HEADING.fullmatch(lines[0]) if lines else None
    items = [_ITEM.fullmatch(line) for line in lines[1:]]
    if heading and items and all(items):
        return "list", heading["thing"], [(item["name"], item["value"]) for item in items if item]
    return None, None, []


def _value(text: str) -> _Value:
    for kind, pattern in _VALUES.items():
        if found := pattern.fullmatch(text):
            values = found.groupdict()
            return kind, values.get("si"), values.get("us")
    return None, None, None


def _are_right(request: str, thing: str | None, found: Mapping[str, _Value]) -> bool:
    asked = {match["name"]: (match["si"], match["us"]) for match in _ASKED.finditer(request)}
    about = _ASKED_THING.search(request)
    if not asked or about is None or asked.keys() != found.keys() or thing not in (None, about["thing"]):
        return False
    return all(
        kind is not None and si in (None, asked[name][0]) and us in (None, asked[name][1])
        for name, (kind, si, us) in found.items()
    )
