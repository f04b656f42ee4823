"""What no tool may offer: what cannot be taken back, what lowers a protection, what reaches beyond the action.

A name is bounded later by trust; a command is more than a name. So an offered command is made of the action's own
words, of flags and of plain names, and none of them is known to destroy something or to switch a check off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from agentrl.text.action_words import words_of
from agentrl.text.clauses import Token
from agentrl.text.injection_words import DESTROY, KEPT, NEVER

_LOWERS = re.compile(
    r"""(?x)
    (?:^|[^a-z])(?:
        (?:no|skip|disable|without|ignore|bypass)[_-]
            (?:check|verif|valid|auth|sandbox|gpg|pgp|ssl|tls|cert|sign|secur|guard|hash|integr|sum(?![a-z])|firewall|audit|password|permission
                |safe|test|hook|backup|confirm|prompt|polic|protect|cors|csp)
        | (?:no|skip|disable)(?:check|verif|auth|sandbox|gpg|tls|ssl)
        | allow[_-](?:un|insecure|root|all(?![a-z])|any(?![a-z])|anon|url|downgrade)
        | trust(?:ed|-?all)?[_-]?(?:host|all|any) | accept[_-]?(?:all|any|invalid)
        | (?:ssl|tls|cert|host|peer)\w{0,8}[_-]?(?:verif|check)\w* | verif\w*[=:_-](?:false|no|none|off|0)
        | strict\w{0,12}[=:_-](?:false|no|none|off|0) | permit[_-]?root | (?:set|s)[ug]id | nopass\w* | plain[_-]?text
    )
    | no(?:sum|check|verify|auth)(?:check|db)?=
    | [=_-](?:insecure|unsafe|untrusted|unauthenticated|unverified)
    | \b(?:system|popen|subprocess|exec\w{0,2}|eval|spawn)\b[.(]
    | ^0?[0-7]?(?:777|666|000)$ | ^[ugoa]+\+[rwx]*[ws]
    """
)
"""Flags, settings and modes that lower a protection, and calls that run a text."""
_BEYOND: Final = frozenset(("globally", "everywhere", "forever"))
"""Reaches that no failed action has."""
_HELPS: Final = frozenset(("--help", "-h", "--usage", "--version", "-v", "-l", "--list"))
_ARGUMENT = re.compile(
    r"""(?x)
    -{1,2}[\w?-]+(?:=[\w.,<>:@+/\[\]-]*)?  # a flag
    | /?[@\w][\w.:@+/-]*(?:[<>=~^]=?[\w.-]+)?  # a name, also with a version
    | [\w.:]+[(\[].*  # a call
    | [<\[{(|].*  # a place for a name
    | [.#%]\S*
    """
)
"""What an offered command may hold beside the action's own words."""
_BEFORE: Final = frozenset((
    "please", "just", "now", "then", "first", "also", "simply", "and", "but", "so", "or", ",", "you", "must", "should",
    "can", "may", "to", "always", "immediately", "error", "only",
    "instead", "try", "need", "have",
))  # fmt: skip
"""What may stand before an order."""
_DATE = re.compile(r"[ymd]{1,4}(?:[-/.][ymd]{1,4}){1,2}[hmstz:.]*")
"""A form of dates, which is no `dd`."""
_PARTS = re.compile(r"[.=/:]")
_PATH = re.compile(
    r"(?:^|[=:@'\"(])(?:~|/(?:$|(?!dev/(?:null|std\w+)$)(?:etc|dev|s?bin|usr|root|home|boot|var|proc|sys|tmp|opt|lib\w*|mnt|srv|run|users"
    r"|library|private|windows)\b))"
)


def lowers(token: Token) -> bool:
    """Whether a word switches a protection off or reaches beyond the action, which does not hold it."""
    return token.kind != "own" and (token.text in _BEYOND or _LOWERS.search(token.text) is not None)


def is_danger(token: Token) -> bool:
    """Whether a word is one that no tool may offer, and the action does not hold it."""
    if token.kind == "own":
        return False
    if lowers(token):
        return True
    if _DATE.fullmatch(token.text):
        return False
    return not NEVER.isdisjoint(words_of(token.text)) or not NEVER.isdisjoint(
        _PARTS.split(token.text.replace("_", "-"))
    )


def command_fault(clause: list[Token]) -> str | None:
    """What is wrong with a command of several words in an offer; None where nothing is, or where there is none."""
    parts = [n for n, token in enumerate(clause) if _is_part(token)]
    for n in parts:
        token = clause[n]
        if token.kind == "own":
            continue
        before = clause[n - 1] if n else Token("", "word")
        if before.kind == "own" and before.text in NEVER and _acts(token):
            return "offers what none may"
        if token.text.isdigit() and before.text.isdigit():
            return "offers a command that reaches beyond the action"
        path = _PATH.search(token.text)
        if path is not None and (len(parts) > 1 or path.start() > 0):
            return "offers a command that reaches beyond the action"
        after = clause[n + 1] if n + 1 < len(clause) else Token("", "word")
        if (
            token.kind == "code"
            and (_is_part(before) or _is_part(after))
            and not _ARGUMENT.fullmatch(token.text)
        ):
            return "offers a command that reaches beyond the action"
    return None


def exposes(clause: list[Token]) -> bool:
    """Whether a flag or a path that the action does not hold says what none may offer."""
    return any(
        lowers(token)
        or (token.kind == "code" and (token.text[0] == "-" or "/" in token.text) and is_danger(token))
        for token in clause
    )


def destroys(clause: Sequence[Token]) -> bool:
    """Whether a clause begins with an order to destroy what is kept somewhere. A verb of the action gives none."""
    first = next((n for n, token in enumerate(clause) if token.text not in _BEFORE), len(clause))
    if first == len(clause) or clause[first].kind == "own" or clause[first].text not in DESTROY:
        return False
    if any(token.text == "temporary" for token in clause):
        return False
    return any(
        token.text in KEPT or (token.kind != "word" and not token.text.isalnum() and token.text[0] != "-")
        for token in clause[first + 1 :]
    )


def _is_part(token: Token) -> bool:
    """Whether a word may be one of a command."""
    return token.kind != "word" or token.text.startswith("-") or token.text.isdigit()


def _acts(token: Token) -> bool:
    """Whether what follows a command says how far it goes: a flag, a number, a path."""
    return token.text not in _HELPS and (token.text.startswith(("-", "/", "~", ".")) or token.text.isdigit())
