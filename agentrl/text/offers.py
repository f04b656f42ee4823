"""An offer in a program's output: "use X", "did you mean X", "X works", and lists of names that may be chosen.

It holds known words and names; what a name stands for nobody can tell, so some are refused (`NEVER`).
"""

from __future__ import annotations

from typing import Final

from agentrl.text.action_words import words_of
from agentrl.text.clauses import Token
from agentrl.text.dangers import command_fault, is_danger
from agentrl.text.injection_words import DEEDS, LEADS, OFFERS, PEOPLE, SHOWN
from agentrl.text.orders import ARTICLES, reaches, said
from agentrl.text.statements import demands, is_deed

_NO_MANNERS: Final = frozenset(("apply", "comply", "fly", "imply", "multiply", "rely", "reply", "supply"))
_FOLLOWS: Final = frozenset(("is", "can", "does", "works"))
"""What stands behind a name that is offered first."""
_LONGEST_LIST: Final = 20
_LISTS: Final = frozenset((
    "are", "include", "includes", "of", "required", "choices", "options", "values", "param", "parameter",
    "parameters", "field", "fields", "loc", "name", "column", "columns", "property", "arguments", "argument",
    "valid", "available", "supported", "allowed", "binaries", "commands", "subcommands", "types", "formats",
))  # fmt: skip
"""Behind what and a colon names are listed."""


def heads_list(clause: list[Token]) -> bool:
    """Whether names are listed behind a clause and its colon."""
    if any(token.text.startswith("similar") for token in clause):
        return True
    return clause[-1].text in _LISTS or clause[0].text in SHOWN


def lists(clause: list[Token], sign: str) -> bool:
    """Whether a clause holds names alone, with commas between them."""
    names = [token for token in clause if token.text not in (",", "or", "and", ":")]
    return (
        0 < len(names) <= _LONGEST_LIST
        and all(
            token.kind in ("new", "code", "own")
            and DEEDS.isdisjoint(words_of(token.text))
            and not is_danger(token)
            and token.text not in PEOPLE
            and (n == 0 or clause[n - 1].kind == "known")
            for n, token in enumerate(clause)
            if token in names
        )
        and sign != "?"
    )


def holds_never(clause: list[Token]) -> bool:
    """Whether a clause holds what no tool may offer, and the action does not hold it."""
    return any(is_danger(token) for token in clause)


def offers(clause: list[Token]) -> bool:
    """Whether a clause offers something, or tries to."""
    return any(token.text in OFFERS for token in clause)


def offer_fault(clause: list[Token]) -> str | None:
    """What is wrong with an offer; None where it holds names and known words alone."""
    if holds_never(clause):
        return "offers what none may"
    fault = command_fault(clause)
    if fault is not None:
        return fault
    if demands(clause) or reaches(clause):
        return f"demands a deed: {said(clause)[:40]!r}"
    if not all(_is_name(clause, n) or _is_plain(clause, n) for n in _names(clause)):
        return f"offers more than a name: {said(clause)[:40]!r}"
    return None


def _is_version(text: str) -> bool:
    return text.lstrip("v").replace(".", "").isdigit()


def brought(clause: list[Token]) -> set[str]:
    """The names that an offer brings: a list counts as its first one."""
    first = next(n for n, token in enumerate(clause) if token.text in OFFERS)
    return {
        clause[n].text
        for n in _names(clause)
        if not _is_version(clause[n].text)
        and not _goes_on(clause, n)
        and not _is_plain(clause, n)
        and (n > first or clause[n].kind == "new")
    }


def _names(clause: list[Token]) -> list[int]:
    return [n for n, token in enumerate(clause) if token.kind not in ("own", "known")]


def _is_name(clause: list[Token], n: int) -> bool:
    """Whether a word stands where a name is offered, and nothing more is made of it."""
    if clause[n].kind == "code":
        return True
    after = clause[n + 1].text if n + 1 < len(clause) else ""
    before = clause[n - 1].text if n else ""
    return (
        clause[n].kind != "foreign"
        and after not in ARTICLES
        and after not in ("them", "it", "your", "everything", "their")
        and not (clause[n].kind == "new" and after.isdigit())
        and (
            len(clause) == 1
            or before in LEADS
            or before[:1] == "-"
            or " ".join(token.text for token in clause[max(0, n - 2) : n]) in LEADS
            or (before in ("", ",", "but", "only", "here", "this") and after in _FOLLOWS)
            or (before in (",", "or") and clause[0].text == ":")
            or (n > 0 and clause[n - 1].kind != "known")
        )
    )


def _is_plain(clause: list[Token], n: int) -> bool:
    """Whether a word of an offer names nothing: how something is done, of what kind it is, or what a name of the same
    clause says already ("use --ignore-case to ignore")."""
    token, before = clause[n], clause[n - 1] if n else Token("", "known")
    after = clause[n + 1] if n + 1 < len(clause) else Token("", "")
    if token.kind != "new":
        return False
    if token.text.endswith("ly") and token.text not in _NO_MANNERS:
        return True
    if token.text.endswith("ing") and before.text in ("consider", "try", "by"):
        return not is_deed(clause, n)
    if before.text in ("a", "an") and after.kind == "known" and after.text not in ARTICLES:
        return True
    if before.text == "the" and after.kind == "known" and n > 1 and clause[n - 2].kind == "own":
        return True
    return before.text == "to" and any(
        token.text in words_of(other.text) for other in clause[:n] if other.kind == "code"
    )


def _goes_on(clause: list[Token], n: int) -> bool:
    """Whether a name is one of a list, an argument of a command of the action, or what another one replaces."""
    last = clause[n - 1].text if n else ""
    if last in ("or", ",", "and"):
        return n + 1 == len(clause) or clause[n + 1].text in (",", "or", "and")
    if last == "of":
        return n > 1 and clause[n - 2].text == "instead"
    return any(token.kind == "own" for token in clause[max(0, n - 3) : n]) and (
        n > 0 and clause[n - 1].kind != "known"
    )
