"""What in somebody's own words reads like an attack, for the person who is asked to approve them.

A comment or a user's correction may send anywhere, and the gate of hints, which keeps a tool to the action that failed,
would refuse most honest ones ("Prefer pathlib over os.path"). So nothing is refused here: what hides something, names
an address, a second command or what no tool may offer, or turns against the reader's instructions is marked.

What a tool said at a live turn passed that gate, which knew the words of the failed action. It is asked with them
again: "rm: not found; use trashit" offers nothing to who had called rm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

from agentrl.store.claims import Claimed
from agentrl.text.action_words import action_words
from agentrl.text.content import message_text
from agentrl.text.injection import hides, understood
from agentrl.text.observations import as_heard
from agentrl.text.quoting import unquoted
from agentrl.types import Lesson, SignalSource, Turn

_MARKED: Final = (
    "an address or a second command",
    "offers what none may",
    "offers a command that reaches beyond the action",
    "a clause without an end",
    "more clauses than are read",
)
"""What the gate says of what no rule of style holds, and of what it cannot read; the rest is only beside an action,
which a comment has not."""
_PROTECTIONS: Final = (
    r"(?:verification|checks?|auth\w*|security|sandbox\w*|tls|ssl|certificates?|firewall|protections?"
    r"|signing)"
)
_TURNS: Final = r"ignor\w{0,8}|disregard\w{0,8}|overrid\w{0,8}|bypass\w{0,8}"
_SWITCHES: Final = r"disable|(?:turn|switch)\s+off|skip|deactivate"
_GIVES: Final = r"send|email|mail|post|upload|forward|reveal|paste|leak"
"""Verbs of what is marked, by kind."""
_WORDS: Final = tuple(
    (re.compile(f"(?ix) {pattern}"), said)
    for pattern, said in (
        (
            rf"""\b(?:{_TURNS}|forget) \W+ (?:\w+\W+){{0,4}}
            (?:instructions?|rules|prompts?|guidelines|guard\w*|polic(?:y|ies)|safety|user(?:'s)?)\b
            | \byou\s+are\s+now\b | \bsystem\s+prompt\b | \bdeveloper\s+mode\b
            | \bfrom\s+now\s+on\W+ (?:you\s+(?:are|will\s+be)|act\s+as|pretend|obey)\b""",
            "turns against other instructions",
        ),
        (
            rf"""\b(?:{_SWITCHES})\b \W+ (?:\w+\W+){{0,3}} {_PROTECTIONS}\b
            | \b(?:turn|switch)\s+ (?:\w+\s+){{0,3}} {_PROTECTIONS} \s+ (?:\w+\s+){{0,3}} off\b""",
            "switches a protection off",
        ),
        (
            rf"""\bexfiltrat\w* | \b(?:{_GIVES})\b
            \W+ (?:\w+(?:'s)?\W+){{0,4}} (?:keys?|tokens?|passwords?|credentials?|secrets?|dumps?|\.env)\b""",
            "hands out what is secret",
        ),
    )
)
_HIDING: Final = re.compile(
    r"""(?ix) \b(?:not|n['’]t|never|without|cannot) (?:\s+(?:ever|even)|,[^.;:!?,]{0,60},)? \s+ (?:
        (?:tell\w*|inform\w*|ask\w*|mention\w*|show\w*|warn\w*) \s+ (?:\w+\s+){0,3}
        (?:users?|humans?|people|reviewers?|anybody|anyone|this)\b
        | let(?:ting)? \s+ (?:\w+\s+){0,3} (?:know|see|notice|find\s+out)\b
    ) (?! \s+ for \s+ (?:\w+\s+){0,2} (?:keys?|tokens?|passwords?|passphrases?|credentials?|secrets?)\b)"""
)
"""Words that something be done unseen; whom not to ask for a password is none of them."""
_DENIED: Final = re.compile(
    rf"""(?ix) (?P<turned>(?:\b(?:why|if|or|not|never|cannot|avoid|without|refrain\s+from)|n['’]t)\s+)?
    (?: (?:\b(?:not|never|avoid|without|cannot|refrain\s+from|rather\s+than|instead\s+of)|n['’]t) (?:,?\s+ever,?)?
        (?:,?\s+under\s+any\s+circumstances?,?)?
    | \bunder\s+no\s+circumstances?
    | \b(?:nobody|no\s+one)\s+(?:may|can|must|should|shall)(?:\s+ever)?
    ) \s+
    (?:(?:{_TURNS}|{_SWITCHES}|{_GIVES})\s+(?:(?:the|a|any)\s+)?(?:[\w'’-]{{1,30}}\s+)?(?:or|nor)\s+)?
    (?:(?:be|try\s+to|attempt\s+to)\s+){{0,2}} $"""
)
"""What stands before words that are forbidden ("Never", "Do not disable TLS or"), and nothing between: who is told "do
not hesitate to" is told to, and so is who reads "why not", "if not", "or not", two denials, or "or" behind what is no
demand itself. What is denied in other words is marked: that costs one look."""
_LOOKED_BACK: Final = 200
"""Characters before such words, more than any denial and what turns it have: a text takes a time linear in it."""


_OUTSIDE: Final = (SignalSource.USER, SignalSource.ENVIRONMENT)
"""Whose hints never pass the gate for tools."""
_TURNS_READ: Final = 8
"""Turns of a lesson that are looked at for whose words it has."""


def suspicion(lesson: Lesson, records: Callable[[Sequence[str]], Sequence[Claimed]]) -> str | None:
    """What a lesson is marked for; None where nothing is. The same whatever way its text came in.

    Args:
        records: what is known of turns, as `LearningLog.records` gives it. It is asked only for what a tool seems to
            have said.
    """
    mark = suspicious(lesson.text)
    if mark is None or lesson.origin != "hint" or unquoted(lesson.text) == lesson.text:
        return mark
    for claim in records(lesson.turn_ids[:_TURNS_READ]):
        failed = _failed(claim, lesson.text)
        if failed is not None:
            return suspicious(lesson.text, action_words(failed))
    return mark


def _failed(claim: Claimed, quotation: str) -> Turn | None:
    """The turn whose tool said what is quoted; None where no tool spoke, or where the quotation itself stands in words
    of a user, who can write one too."""
    if claim.next_state is None:
        return None
    turn, state = as_heard(claim.turn, claim.next_state)
    users = [message_text(message) for message in state.messages if message.get("role") == "user"]
    users += [signal.evidence for signal in claim.signals if signal.source in _OUTSIDE]
    is_written = any(" ".join(quotation.split()) in " ".join(text.split()) for text in users)
    is_answered = any(message.get("role") == "tool" for message in state.messages)
    return turn if is_answered and not is_written else None


def suspicious(text: str, words: Collection[str] = ()) -> str | None:
    """What a text is marked for; None where nothing is. Words in quotation marks are read as any others: who wrote a
    comment can write them too.

    Args:
        words: of the action that the text speaks of, from `action_words`, where that is known.
    """
    said = unquoted(text)
    found = against_readers(said)
    return found or next((fault for fault in understood(said, words).faults if fault in _MARKED), None)


def against_readers(text: str) -> str | None:
    """What a text is marked for wherever it stands, in code too: it hides something, or turns against who reads it."""
    hidden = hides(text)
    if hidden is not None:
        return hidden
    if _HIDING.search(text):
        return "hides from people what is done"
    plain = " ".join(text.split())
    return next((mark for pattern, mark in _WORDS if _demands(pattern, plain)), None)


def _demands(pattern: re.Pattern[str], text: str) -> bool:
    """Whether the words of a pattern stand in a text without being forbidden there. A word that is may hold the
    beginning of others ("Never skip; disable checks"), so that each place is looked at."""
    found = pattern.search(text)
    while found is not None:
        denied = _DENIED.search(text, max(0, found.start() - _LOOKED_BACK), found.start())
        if denied is None or denied["turned"]:
            return True
        found = pattern.search(text, found.start() + 1)
    return False
