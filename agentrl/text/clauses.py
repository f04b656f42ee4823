"""The clauses of what a program prints, each with its place in the text and with the kinds of its words.

A clause ends with a full stop, a colon, a semicolon, a question or exclamation mark, a bracket or its line, and before
what begins an offer behind a comma ("not found, did you mean x"). In JSON each field is one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from agentrl.text.action_words import is_own
from agentrl.text.injection_words import ASSETS, CLAIMS, DEEDS, KNOWN, NEVER, OFFERS, PEOPLE

_TOKEN = re.compile(r"(?<!\w)[`'\"]((?:[^`'\"\n.;:,!?]|[.;:,!?](?!\s)){1,80})[`'\"](?!\w)|\S+")
_ENDS = re.compile(r"([.;:!?)\]])[.;:!?)\]*,'\"`]*$")
_CALL = re.compile(r"\w(?:\(\S*\)|\[\S*\])$")
"""A call or a type: its bracket ends no clause."""
_CLOSED = re.compile(r"[`'][.,;:!?)\]]*$")
"""How a word ends that a quotation mark begins, where the quotation ends with it."""
FIELDS = re.compile(r"[{\[]\s*\"")
_FIELD = re.compile(r"\"\s?:|\"(?=,)|,(?=\s?[\"{\[])|[{}\[\]\"]")
_CODE = re.compile(r"^[-$]|^\w+(?:-\w+)+$|[\d_./<>(){}\[\]=&*@#|]|[a-z][A-Z]|::")
_DENIES = re.compile(r"\b(?:not|cannot|can only|unable to|failed to|no|without)$|n't$")
"""Behind what any word is denied."""
_LEET = re.compile(r"(?=.{4})(?=[0-9@]*[a-z])[a-z0-9@]*?[0134578@][a-z][a-z0-9@]*")
_JOINED_ORDER = re.compile(
    r"(?:ignore|disregard|forget|bypass|override|obey|leak|reveal)\w{0,30}?"
    r"(?:rules?|instructions?|guidelines?|orders?|prompts?|safety|polic|secret|keys)"
)
"""An order in one word."""
_DIGITS: Final = str.maketrans("034578@", "oeastba")
"""Digits that stand for letters, beside 1."""
_LEAST_STEM: Final = 3
_WANTED: Final = (ASSETS, CLAIMS, DEEDS, NEVER, PEOPLE)
"""Of what attacks are made."""
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
    """Of the action ("own"), "known", "code", "new", or of another alphabet ("foreign")."""
    is_label: bool = False
    """Whether it stands alone in its line, or first and before a colon, as programs name themselves."""


class Clause(NamedTuple):
    """A clause of a line."""

    tokens: list[Token]
    start: int
    """Of the clause in its line, with an opening bracket or quotation mark."""
    end: int
    """Behind its last sign."""
    sign: str
    """What ends it: one of `.;:!?)],`, or a line break."""


def clauses(line: str, words: Collection[str]) -> Iterator[Clause]:
    """The clauses of a line, from the left. Words of none are left out.

    Args:
        words: of the failed action, from `action_words`.
    """
    said = _FIELD.sub(_plain, line) if FIELDS.search(line) else line
    tokens: list[Token] = []
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
            yield Clause(tokens, start, end, ",")
            tokens = []
        if not tokens:
            start = match.start()
        end = match.end()
        opens = raw[0] == "`" and not is_quoted and _CLOSED.search(raw) is None
        is_inside = is_inside or opens
        for part in parts:
            kind = _kind(part, words, is_code=is_quoted and len(parts) == 1)
            if kind == "new" and tokens and _DENIES.search(" ".join(token.text for token in tokens[-2:])):
                kind = "known"
            if is_inside and kind not in ("", "own"):
                tokens.append(Token("`", "foreign"))
            if kind:
                is_label = match.start() == 0 and (raw[-1] == ":" or match.end() == len(said))
                tokens.append(Token(part.lower(), kind, is_label))
        is_inside = is_inside and match.end() <= last_mark
        sign = (
            None
            if is_quoted or (raw.rstrip(",")[-1:] in ("]", ")") and _CALL.search(raw.rstrip(",")))
            else _ENDS.search(raw)
        )
        if sign is not None and (parts or not raw.startswith("..")):
            if tokens:
                yield Clause(tokens, start, end, sign[1])
            tokens = []
        elif not is_quoted and (raw.endswith(",") or raw == "|") and tokens:
            tokens.append(Token(",", "known"))
    if tokens:
        yield Clause(tokens, start, end, "\n")


def _plain(mark: re.Match[str]) -> str:
    """A mark of JSON as one of prose, as long as it was."""
    found = mark[0]
    if found.endswith(":"):
        return ":".ljust(len(found))
    return "." if found == "," else " "


def _stems(word: str) -> list[str]:
    """What a form of a noun or a verb may be made of; a form gives no order."""
    if word.endswith("ing"):
        return [word[:-3], word[:-3] + "e", word[:-4]]
    if word.endswith("ed"):
        return [word[:-2], word[:-1], word[:-3]]
    return [word[:-1], word[:-2]] if word.endswith("s") and len(word) > _LEAST_STEM else []


def _spells(word: str) -> bool:
    """Whether digits stand for letters in a word that everybody knows."""
    return any(
        spelled in known or spelled.removesuffix("s") in known
        for one in "il"
        for spelled in [word.replace("1", one).translate(_DIGITS)]
        for known in (KNOWN, *_WANTED)
    )


def _kind(part: str, words: Collection[str], *, is_code: bool) -> str:
    """What kind of word this is; "" for what is none."""
    word = part.lower()
    if word in KNOWN and word not in words:
        return "known"
    if not any(character.isalnum() for character in part):
        return ""
    if _JOINED_ORDER.search(word) and not is_own(part, words):
        return "foreign"
    if _LEET.fullmatch(word) and not is_own(part, words) and _spells(word):
        return "foreign"
    if is_own(part, words) or (word.endswith("ing") and (word[:-3] in words or word[:-3] + "e" in words)):
        return "own"
    if not word.isascii():
        return "foreign"
    if not any(word in wanted for wanted in _WANTED) and any(
        stem in KNOWN and stem not in DEEDS and len(stem) >= _LEAST_STEM for stem in _stems(word)
    ):
        return "known"
    pieces = [piece for piece in re.split(r"[-'/]", word) if len(piece) > 1]
    if all(piece in KNOWN or piece in OFFERS for piece in pieces) or word.endswith("n't") or word.isdigit():
        return "known"
    return "code" if is_code or _CODE.search(part) else "new"
