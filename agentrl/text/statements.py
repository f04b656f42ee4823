"""What a clause tells: a fault, an offer, a list of names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from agentrl.text.clauses import Token
from agentrl.text.dangers import is_danger
from agentrl.text.injection_words import DESTROY

_FAULT = re.compile(
    r"""(?ix)
    \b(?: already | ambiguous | attempt\w* | bad | badly | beyond | busy | cannot | closed | conflict\w* |
        corrupt\w* | denied | deprecated | disallowed | discontinued | duplicated? | empty | ended |
        exceed\w* | exclusive | expected | expired | failed | fails | failure | forbidden | full |
        illegal | incompatible | incomplete | inconsistent | incorrect | insufficient | invalid
        | lacks? | malformed | mismatch\w* | missing | misspelled | needs? | neither | never | no |
        non-\w+ | not | nothing | offline | omitting | only | outside | past | refus\w+ | reject\w* |
        required | requires | taken | too | trying | un(?!lock)\w+ed | un\w+able | unable | unbound |
        unclosed | undeclared | undefined | unexpected | unknown | unmatched | unreachable |
        unrecogni[sz]ed | unresolved | unsupported | unterminated | unused | violat\w+ | wrong | zero |
        out\ of | can\ only | timed\ out
    )\b | n't\b
    """
)
_OFFERS: Final = frozenset((
    "use", "try", "run", "see", "call", "type", "choose", "enter", "prefer", "mean", "meant", "need", "needs", "has",
    "is", "available", "allowed", "expected", "name", "command", "argument", "as", "called", "consider", "instead",
    "replaced", "renamed", "moved", "now", "asks", "works", "exists", "only", "such", "but", "provide", "specify",
    "add", "pass", "set", "place", "same",
))  # fmt: skip
_LEADS: Final = frozenset((
    "use", "try", "run", "mean", "is", "need", "has", "by", "for", "only", "but", "with", "allowed", "here",
    "and", ",", "instead",
))  # fmt: skip
"""What stands before a name that is offered."""
_FOLLOWS: Final = frozenset(("is", "can", "does", "works"))
"""What stands behind a name that is offered first."""
_FRAME: Final = _LEADS | _FOLLOWS | {
    "please", "of", "this", "that", "it", "its", "the", "now", "right", "new", "name", "command", "to",
    "did", "you", "not", "same", "be", "used", "in", "place", "asks", "policy", "machine", "shell", "task",
    "hint", "maybe", "available", ":", "been", "replaced", "renamed", "moved", "a", "was", "removed", "from",
}  # fmt: skip
"""Of what an offer is made that says no more than a name."""
_SIGNS: Final = frozenset((",", "or", "and", "either"))
_LEAST_LIST: Final = 3
_LONGEST_LIST: Final = 60


def said(clause: Sequence[Token]) -> str:
    """The words of a clause."""
    return " ".join(token.text for token in clause)


def tells_fault(clause: Sequence[Token]) -> bool:
    """Whether a clause tells plainly of a failure."""
    return _FAULT.search(said(clause)) is not None


def offers(clause: Sequence[Token]) -> bool:
    """Whether a clause may offer something."""
    return any(token.text in _OFFERS for token in clause)


def offers_name(clause: Sequence[Token]) -> bool:
    """Whether a clause offers one name at most, beside words and flags of the action, and says no more: nobody can tell
    a false one by its words."""
    names = [
        n
        for n, token in enumerate(clause)
        if token.kind != "own" and token.text not in _FRAME and token.text[0] != "-"
    ]
    if not names:
        return any(token.kind != "word" for token in clause)
    if len(names) > 1 or not offers(clause) or clause[names[0]].text in DESTROY:
        return False
    before = clause[names[0] - 1].text if names[0] else ""
    after = clause[names[0] + 1].text if names[0] + 1 < len(clause) else ""
    return before in _LEADS or (before in ("", "but", "only") and after in _FOLLOWS)


def names_alone(clause: Sequence[Token]) -> bool:
    """Whether a clause is a list of three names or more, each of one word, of which few are known to destroy."""
    names = [token for token in clause if token.text not in _SIGNS]
    if not _LEAST_LIST <= len(names) <= _LONGEST_LIST:
        return False
    pairs = zip([Token(",", "word"), *clause], clause, strict=False)
    return (
        all(before.text in _SIGNS or token.text in _SIGNS for before, token in pairs)
        and all(token.text[0] not in "/~$" and "=" not in token.text for token in names)
        and _LEAST_LIST * sum(is_danger(token) for token in names) <= len(names)
    )
