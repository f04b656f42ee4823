"""Phrases that programs use everywhere, each as a shorter one, before a clause is judged.

- "you must give" is "specify", and "needs to be" is "must be".
- A list of names to choose from is one name: nobody is told to take all of them.
- What an offer is for ("use --x to keep the file") says no more where it names nothing and wants nothing.
"""

from __future__ import annotations

from typing import Final

from agentrl.text.clauses import Token
from agentrl.text.dangers import is_danger
from agentrl.text.injection_words import ASSETS, CLAIMS, DEEDS, OFFERS, PEOPLE

_DUTY: Final = frozenset(("must", "should", "have", "need"))
_GIVING: Final = frozenset(
    ("give", "supply", "specify", "provide", "choose", "select", "pick", "enter", "pass")
)
_ASKING: Final = frozenset(("did", "do", "perhaps", "maybe", "have"))
_FORGETTING: Final = frozenset(("forget", "forgot", "forgotten", "need", "want", "wanted", "mean"))
_DOING: Final = frozenset((
    "declare", "predeclare", "load", "import", "include", "close", "call", "define", "add", "pass", "quote", "escape",
    "use", "initialize", "await", "cast", "specify", "#include",
))  # fmt: skip
"""What may have been forgotten of a name."""
_NEEDING: Final = frozenset(("needs", "need", "has", "have"))
_BEFORE_LIST: Final = frozenset((
    "from", "of", "be", "are", "values", "either", "in", "formats", "options", "choices", "types", "names", "between",
    "the", "one", ":",
))  # fmt: skip
_SIGNS: Final = frozenset((",", "or", "and", ":", "either"))
_LEAST_LIST: Final = 3
_LONGEST_LIST: Final = 60
_FOR: Final = frozenset(("to", "for", "before", "when", "if"))
_LONGEST_PURPOSE: Final = 9
_MOST_NEW: Final = 3
_JOINS: Final = frozenset(
    (",", "and", "then", "everything", "all", "every", "any", "it", "them", "without", "no", "never")
)
"""What a purpose would go on with, or reach far with."""
_ONE: Final = Token("one", "known")


def plainer(clause: list[Token]) -> list[Token]:
    """A clause in fewer words, which says what an honest one would."""
    if len(clause) < _LEAST_LIST:
        return clause
    return _without_purpose(_with_one_name(_without_duty(clause)))


def names_alone(clause: list[Token]) -> bool:
    """Whether a clause is a list of three names or more, each of one word, of which few are known to destroy."""
    names = [token for token in clause if token.text not in _SIGNS]
    if not _LEAST_LIST <= len(names) <= _LONGEST_LIST:
        return False
    pairs = zip([Token(",", "known"), *clause], clause, strict=False)
    return (
        all(before.text in _SIGNS or token.text in _SIGNS for before, token in pairs)
        and all(
            token.kind != "foreign" and token.text[0] not in "/~$" and "=" not in token.text
            for token in names
        )
        and _LEAST_LIST * sum(is_danger(token) for token in names) <= len(names)
    )


def _without_duty(clause: list[Token]) -> list[Token]:
    """The clause without the one whose duty it is."""
    words = [token.text for token in clause]
    n = 1 if words[:1] == [":"] else 0
    for end in (n + 2, n + 3):
        is_asked = words[n : n + 1] == ["you"] and words[n + 1 : n + 2] and words[n + 1] in _DUTY
        if is_asked and words[end : end + 1] and words[end] in _GIVING and words[n + 2 : end] in ([], ["to"]):
            rest = clause[end + 1 :]
            return [Token("specify", "known"), *([_ONE] if _is_purpose(rest) else rest)]
    if words[n : n + 1] and words[n] in _ASKING and "you" in words[n : n + 2]:
        end = words.index("you", n) + 4
        if (
            len(words) > end
            and words[end - 3] in _FORGETTING
            and words[end - 2] == "to"
            and words[end - 1] in _DOING
        ):
            return [Token("mean", "known"), *clause[end:]]
    for n, token in enumerate(clause[:-2]):
        if token.text in _NEEDING and words[n + 1 : n + 3] == ["to", "be"]:
            return [*clause[:n], Token("must", "known"), *clause[n + 2 :]]
    return clause


def _with_one_name(clause: list[Token]) -> list[Token]:
    """The clause with one name for the list that ends it."""
    for n, token in enumerate(clause[:-1]):
        if token.text in _BEFORE_LIST and clause[n + 1].text not in _BEFORE_LIST:
            end = _end_of_list(clause, n + 1)
            return [*clause[: n + 1], _ONE, *clause[end:]] if names_alone(clause[n + 1 : end]) else clause
    return clause


def _end_of_list(clause: list[Token], n: int) -> int:
    """Where the names and signs end that begin here, each name behind a sign."""
    is_name = False
    while n < len(clause) and (not is_name or clause[n].text in _SIGNS):
        is_name = clause[n].text not in _SIGNS
        n += 1
    return n


def _without_purpose(clause: list[Token]) -> list[Token]:
    """The clause without what its offer is for."""
    words = [token.text for token in clause]
    if words[0] == "to" and "," in words:
        end = words.index(",")
        if words[end + 1 : end + 2] and words[end + 1] in OFFERS and _is_purpose(clause[1:end]):
            return clause[end + 1 :]
    named = next((n for n, token in enumerate(clause) if n and token.kind in ("own", "code")), len(clause))
    if OFFERS.isdisjoint(words[:named]):
        return clause
    for n in range(named + 1, len(clause)):
        if words[n] in _FOR and (words[n] != "if" or words[n + 1 : n + 2] == ["you"]):
            return clause[:n] if _is_purpose(clause[n + 1 :]) else clause
    return clause


def _is_purpose(clause: list[Token]) -> bool:
    """Whether words say what something is for, and want nothing that attacks are after."""
    if not 0 < len(clause) <= _LONGEST_PURPOSE:
        return False
    return (
        sum(token.kind == "new" for token in clause) <= _MOST_NEW
        and sum(token.text in DEEDS and token.kind != "own" for token in clause) <= 1
        and all(
            token.kind in ("own", "known", "new")
            and token.text not in _JOINS
            and not is_danger(token)
            and (token.kind == "own" or token.text not in ASSETS | CLAIMS | (PEOPLE - {"you"}))
            for token in clause
        )
    )
