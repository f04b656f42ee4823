"""The clauses of what a program prints, each with its place in the text and with the kinds of its words.

A clause ends with a full stop, a colon, a semicolon, a question or exclamation mark, a bracket or its line, and before
what begins an offer behind a comma ("not found, did you mean x"). In JSON each field is one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from agentrl.text.action_words import is_own

_TOKEN = re.compile(r"(?<!\w)[`'\"]((?:[^`'\"\n.;:,!?]|[.;:,!?](?!\s)){1,80})[`'\"](?!\w)|\S+")
_ENDS = re.compile(r"([.;:!?)\]])[.;:!?)\]*,'\"`]*$")
_CALL = re.compile(r"\w(?:\(\S*\)|\[\S*\])$")
"""A call or a type: its bracket ends no clause."""
_CLOSED = re.compile(r"[`'][.,;:!?)\]]*$")
"""How a word ends that a quotation mark begins, where the quotation ends with it."""
_FIELDS = re.compile(r"[{\[]\s*\"")
_FIELD = re.compile(r"\"\s?:|\"(?=,)|,(?=\s?[\"{\[])|[{}\[\]\"]")
_CODE = re.compile(r"^[-$]|[\d_./<>(){}\[\]=&*@#|]|[a-z][A-Z]|::")
_OTHER = re.compile(r"[^\W\d_a-z]")
_JOINED_ORDER = re.compile(
    r"(?:ignore|disregard|forget|bypass|override|obey|leak|reveal)\w{0,30}?"
    r"(?:rules?|instructions?|guidelines?|orders?|prompts?|safety|polic|secret|keys)"
)
"""An order in one word."""
_BEGINS: Final = frozenset(
    ("use", "try", "run", "see", "did", "but", "please", "maybe", "perhaps", "only", "such", "you")
)
"""What begins a clause behind a comma."""


_ASKS: Final = ("did you mean", "Did you mean")
"""What begins a clause wherever it stands."""


class Token(NamedTuple):
    """A word of a clause."""

    text: str
    kind: str
    """Of the action ("own"), "code", a "word" of prose, or of another alphabet ("foreign")."""


class Clause(NamedTuple):
    """A clause of a line."""

    tokens: list[Token]
    start: int
    """Of the clause in its line, with an opening bracket or quotation mark."""
    end: int
    """Behind its last sign."""
    sign: str
    """What ends it: one of `.;:!?)],`, or a line break."""
    places: list[int]
    """Of each token in the line; of words of one quotation all the same."""


def clauses(line: str, words: Collection[str]) -> Iterator[Clause]:
    """The clauses of a line, from the left. Words of none are left out.

    Args:
        words: of the failed action, from `action_words`.
    """
    said = _FIELD.sub(_plain, line) if _FIELDS.search(line) else line
    tokens: list[Token] = []
    places: list[int] = []
    start = end = 0
    last_mark, is_inside = said.rfind("`"), False
    for match in _TOKEN.finditer(said):
        is_quoted = match[1] is not None
        raw = match[1] or match[0]
        parts = raw.strip(".,;:!?()[]{}*'\"`").split()
        if tokens and (
            (not is_quoted and (raw[0] in "([" or raw in ("-", "--")))
            or (tokens[-1].text == "," and parts and parts[0].lower() in _BEGINS)
            or said.startswith(_ASKS, match.start())
        ):
            yield Clause(tokens, start, end, ",", places)
            tokens, places = [], []
        if not tokens:
            start = match.start()
        end = match.end()
        opens = raw[0] == "`" and not is_quoted and _CLOSED.search(raw) is None
        is_inside = is_inside or opens
        for part in parts:
            kind = _kind(part, words, is_code=is_quoted and len(parts) == 1)
            if is_inside and kind not in ("", "own"):
                tokens.append(Token("`", "foreign"))
            if kind:
                tokens.append(Token(part.lower(), kind))
        is_inside = is_inside and match.end() <= last_mark
        places += [match.start()] * (len(tokens) - len(places))
        sign = (
            None
            if is_quoted or (raw.rstrip(",")[-1:] in ("]", ")") and _CALL.search(raw.rstrip(",")))
            else _ENDS.search(raw)
        )
        if sign is not None and (parts or not raw.startswith("..")):
            if tokens:
                yield Clause(tokens, start, end, sign[1], places)
            tokens, places = [], []
        elif not is_quoted and (raw.endswith(",") or raw == "|") and tokens:
            tokens.append(Token(",", "word"))
            places.append(match.end() - 1)
    if tokens:
        yield Clause(tokens, start, end, "\n", places)


def _plain(mark: re.Match[str]) -> str:
    """A mark of JSON as one of prose, as long as it was."""
    found = mark[0]
    if found.endswith(":"):
        return ":".ljust(len(found))
    return "." if found == "," else " "


def _kind(part: str, words: Collection[str], *, is_code: bool) -> str:
    """What kind of word this is; "" for what is none."""
    word = part.lower()
    if not any(character.isalnum() for character in part):
        return ""
    if is_own(part, words) or (word.endswith("ing") and (word[:-3] in words or word[:-3] + "e" in words)):
        return "own"
    if _JOINED_ORDER.search(word) or (not word.isascii() and _OTHER.search(word)):
        return "foreign"
    return "code" if (is_code or _CODE.search(part)) and not word.isdigit() else "word"
