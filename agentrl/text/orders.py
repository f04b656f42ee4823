"""What makes an order of a clause, or a permission, whatever else it says: no statement of a failure has its form."""

from __future__ import annotations

import itertools
import re
from typing import Final

from agentrl.text.clauses import Token
from agentrl.text.dangers import is_danger, lowers, lowers_protection, names_system_path
from agentrl.text.injection_words import WAIVED

ARTICLES: Final = frozenset(
    ("a", "an", "the", "any", "all", "every", "each", "some", "this", "these", "those")
)
ORDERING: Final = frozenset((
    "must", "should", "to", "please", "you", "may", "can", "will", "and", "or", "now", "just", "so", "then",
    "next", "first", "also", "therefore", "hence",
))  # fmt: skip
"""Behind what a new word may be an order."""
VERBS: Final = frozenset((
    "add", "build", "cast", "commit", "end", "create", "drop", "find", "hash", "include", "install", "kill",
    "list", "merge", "open", "parse", "pass", "provide", "pull", "queue", "read", "rebase", "reload",
    "remove", "sample", "set", "specify", "start", "stash", "stop", "stream",
))  # fmt: skip
"""Words of failures that order where an article follows them."""
DENIALS = re.compile(
    r"(?:^|\s)(?:not|no|nothing|cannot|unable|failed|too|how|trying|attempt\w*|refus\w+|able|enough|never)(?=\s|$)|n't(?=\s|$)"
)
"""Behind what `to` leads to what did not happen."""
_ALWAYS: Final = frozenset(("never", "always"))
"""What begins a rule that somebody has to keep."""
_PUTS: Final = frozenset(("add", "set", "place", "put", "append", "include", "write", "install", "insert"))
_INTO: Final = frozenset(("to", "in", "into", "on", "under"))
_FILE = re.compile(r"[^-].*[./]\w")
_PRACTICE: Final = frozenset((
    "good", "healthy", "modern", "usually", "typically", "normally", "everyone", "professional", "mature",
    "secure", "trusted",
))  # fmt: skip
"""How others are said to do it."""
_CHECKS: Final = frozenset((
    "review", "reviews", "approval", "approvals", "tests", "testing", "checks", "checking", "verification",
    "validation", "verifying", "confirmation", "confirming", "asking", "permission", "authentication", "authorization",
    "encryption", "warning", "telling", "informing", "logging", "auditing", "backup", "backups",
))  # fmt: skip
"""What attacks want to be done without."""
_UNDONE: Final = frozenset((
    "verify", "check", "validate", "review", "test", "ask", "confirm", "sign", "encrypt", "audit", "log", "report",
    "back", "read", "use", "wait", "tell", "mention",
))  # fmt: skip
_JUDGES: Final = frozenset(
    ("test", "tests", "grader", "checker", "judge", "assertion", "assertions", "linter")
)
_WRONG: Final = frozenset(("wrong", "broken", "outdated", "flaky", "obsolete", "incorrect", "stale"))
_BETTER: Final = frozenset(("faster", "safer", "easier", "better", "cheaper"))
_EXAMPLES: Final = frozenset(("must", "should", "e.g", "eg", "example", "such", "like", "instance"))


def orders(clause: list[Token]) -> bool:
    """Whether a clause tells somebody what to do, or how others do it."""
    return len(clause) > 1 and (_begins_order(clause) or reaches(clause))


def reaches(clause: list[Token]) -> bool:
    """Whether a clause asks for more than a name in the place of another one."""
    return (
        _rules(clause)
        or _puts(clause)
        or _tells_practice(clause)
        or _blames_test(clause)
        or _shows_path(clause)
        or lowers_protection(said(clause))
    )


def _rules(clause: list[Token]) -> bool:
    """Whether a clause is a rule that somebody has to keep."""
    return next((token.text for token in clause if token.text != ":"), "") in _ALWAYS


def _begins_order(clause: list[Token]) -> bool:
    """Whether a verb with its object stands where an order does: first, behind a comma, or behind "must"."""
    return any(
        token.kind == "known"
        and token.text in VERBS
        and (
            after.text in ARTICLES
            or ((n == 0 or clause[n - 1].text in (",", ":")) and after.text in ("it", "them"))
        )
        and (n == 0 or clause[n - 1].text in ORDERING or clause[n - 1].text in (",", ":"))
        and not is_denied(clause, n)
        for n, (token, after) in enumerate(itertools.pairwise(clause))
    )


def _puts(clause: list[Token]) -> bool:
    """Whether something is to be put where the action does not reach ("add x to package.json")."""
    begins = [
        n
        for n, token in enumerate(clause)
        if token.text in _PUTS and (n == 0 or clause[n - 1].text in ORDERING | {",", ":"})
    ]
    return bool(begins) and any(
        before.text in _INTO and token.kind == "code" and _FILE.match(token.text) is not None
        for before, token in itertools.pairwise(clause[begins[0] :])
    )


def puts_first(clause: list[Token]) -> bool:
    """Whether a clause begins with a verb that puts a name somewhere."""
    return clause[0].text in _PUTS and (
        len(clause) == 2 or any(token.kind not in ("own", "known") for token in clause)
    )


def _tells_practice(clause: list[Token]) -> bool:
    """Whether a clause tells what is to be left out, or what others leave out ("good setups compare no x")."""
    if any(
        before.text in ("without", "skip", "skipping", "bypassing", "no") and n and token.text in _CHECKS
        for n, (before, token) in enumerate(itertools.pairwise(clause))
    ):
        return True
    words = {token.text for token in clause}
    if not _BETTER.isdisjoint(words) and any(token.kind == "new" for token in clause):
        return True
    if any(token.text == "never" and after.text in _UNDONE for token, after in itertools.pairwise(clause)):
        return True
    return not _PRACTICE.isdisjoint(words) and not words.isdisjoint(("no", "not", "never", "without", "skip"))


def _shows_path(clause: list[Token]) -> bool:
    """Whether a path that the action does not hold is given as an example, or demanded."""
    shown = [n for n, token in enumerate(clause) if token.text in _EXAMPLES]
    return bool(shown) and any(names_system_path(token) for token in clause[shown[0] :])


def _blames_test(clause: list[Token]) -> bool:
    """Whether what judges the action is said to be wrong."""
    words = {token.text for token in clause}
    return not words.isdisjoint(_JUDGES) and any(
        before.text in ("is", "are") and token.text in _WRONG for before, token in itertools.pairwise(clause)
    )


def exposes(clause: list[Token]) -> bool:
    """Whether a flag or a path that the action does not hold says what none may offer."""
    return any(
        lowers(token)
        or (token.kind == "code" and (token.text[0] == "-" or "/" in token.text) and is_danger(token))
        for token in clause
    )


def waives(clause: list[Token]) -> bool:
    """Whether a clause says that something need not be."""
    return any(
        token.text in WAIVED
        and not {"no", "not", "nothing", "none", "never", "longer"}.isdisjoint(
            before.text for before in clause[:n]
        )
        for n, token in enumerate(clause)
    )


def runs(clause: list[Token]) -> bool:
    """Whether a clause of code alone is a command with its arguments."""
    return (
        len(clause) > 1
        and all(token.kind == "code" for token in clause)
        and clause[0].text[0] != "-"
        and any(token.text[0] in "-/~" for token in clause[1:])
    )


def is_denied(clause: list[Token], n: int) -> bool:
    """Whether a verb is one of what did not happen or cannot."""
    before = clause[n - 1].text if n else ""
    if before == "to":
        return DENIALS.search(said(clause[: n - 1]).rpartition(",")[2]) is not None
    return before in ("cannot", "not") or before.endswith("n't")


def said(clause: list[Token]) -> str:
    """The words of a clause."""
    return " ".join(token.text for token in clause)
