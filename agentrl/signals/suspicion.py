"""What in somebody's own words reads like an attack, for the person who is asked to approve them.

A comment may send anywhere, and the gate of hints, which keeps a tool to the action that failed, would refuse most
honest ones ("Prefer pathlib over os.path"). So nothing is refused here: what hides something, names an address, a
second command or what no tool may offer, or turns against the reader's instructions is marked.
"""

from __future__ import annotations

import re
from typing import Final

from agentrl.text.injection import directs_elsewhere, hides
from agentrl.text.quoting import unquoted
from agentrl.types import Lesson

_MARKED: Final = (
    "an address or a second command",
    "offers what none may",
    "offers a command that reaches beyond the action",
)
"""What the gate says of what no rule of style holds; the rest is only beside an action, which a comment has not."""
_PROTECTIONS: Final = (
    r"(?:verification|checks?|auth\w*|security|sandbox\w*|tls|ssl|certificates?|firewall|protections?"
    r"|signing)"
)
_WORDS: Final = tuple(
    (re.compile(f"(?ix) {pattern}"), said)
    for pattern, said in (
        (
            r"""\b(?:ignor\w*|disregard\w*|forget|overrid\w*|bypass\w*) \W+ (?:\w+\W+){0,4}
            (?:instructions?|rules|prompts?|guidelines|guard\w*|polic(?:y|ies)|safety|user(?:'s)?)\b
            | \byou\s+are\s+now\b | \bsystem\s+prompt\b | \bdeveloper\s+mode\b
            | \bfrom\s+now\s+on\W+ (?:you\s+(?:are|will\s+be)|act\s+as|pretend|obey)\b""",
            "turns against other instructions",
        ),
        (
            rf"""\b(?:disable|(?:turn|switch)\s+off|skip|deactivate)\b \W+ (?:\w+\W+){{0,3}} {_PROTECTIONS}\b
            | \b(?:turn|switch)\s+ (?:\w+\s+){{0,3}} {_PROTECTIONS} \s+ (?:\w+\s+){{0,3}} off\b""",
            "switches a protection off",
        ),
        (
            r"""\bexfiltrat\w* | \b(?:send|email|mail|post|upload|forward|reveal|paste|leak)\b
            \W+ (?:\w+(?:'s)?\W+){0,4} (?:keys?|tokens?|passwords?|credentials?|secrets?|dumps?|\.env)\b""",
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
    r"""(?ix) (?:\b(?:not|never|no|avoid|without|cannot|refrain\s+from|rather\s+than|instead\s+of)|n['’]t) \s+
    (?:[\w'’-]+,?\s+(?:[\w'’-]+,?\s+){0,3}(?:or|nor)\s+)? (?:(?:ever|be|try\s+to|attempt\s+to)\s+)* $"""
)
"""What stands before words that are forbidden ("Never", "Do not disable TLS or"), and nothing between: who is told "do
not hesitate to" is told to."""


def suspicion(lesson: Lesson) -> str | None:
    """What an imported lesson is marked for; None where nothing is."""
    return suspicious(lesson.text) if lesson.origin == "import" else None


def suspicious(text: str) -> str | None:
    """What a text is marked for; None where nothing is. Words in quotation marks are read as any others: who wrote a
    comment can write them too, and a lesson does not keep what action they stood beside."""
    said = unquoted(text)
    hidden = hides(said)
    if hidden is not None:
        return hidden
    if _HIDING.search(said):
        return "hides from people what is done"
    found = next((mark for pattern, mark in _WORDS if _demands(pattern, said)), None)
    fault = found or directs_elsewhere(said, ())
    return fault if found or fault in _MARKED else None


def _demands(pattern: re.Pattern[str], text: str) -> bool:
    """Whether the words of a pattern stand in a text without being forbidden there. A word that is may hold the
    beginning of others ("Never skip; disable checks"), so that each place is looked at."""
    found = pattern.search(text)
    while found is not None:
        if not _DENIED.search(text, 0, found.start()):
            return True
        found = pattern.search(text, found.start() + 1)
    return False
