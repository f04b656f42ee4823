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
_WORDS: Final = tuple(
    (re.compile(f"(?ix) {pattern}"), said)
    for pattern, said in (
        (
            r"""\b(?:ignor\w*|disregard\w*|forget|overrid\w*|bypass\w*) \W+ (?:\w+\W+){0,4}
            (?:instructions?|rules|prompts?|guidelines|guard\w*|polic(?:y|ies)|safety|user(?:'s)?)\b
            | \byou\s+are\s+now\b | \bsystem\s+prompt\b | \bdeveloper\s+mode\b | ^\W*from\s+now\s+on\b""",
            "turns against other instructions",
        ),
        (
            r"""\b(?:not|n['’]t|never|without) \s+ (?:tell\w*|inform\w*|ask\w*|mention\w*|show\w*|warn\w*)
            \s+ (?:\w+\s+){0,3} (?:users?|humans?|people|reviewers?|anybody|anyone|this)\b""",
            "hides from people what is done",
        ),
        (
            r"""\b(?:disable|turn\s+off|switch\s+off|skip|deactivate)\b \W+ (?:\w+\W+){0,3}
            (?:verification|checks?|auth\w*|security|sandbox\w*|tls|ssl|certificates?|firewall|protections?|signing)\b""",
            "switches a protection off",
        ),
        (
            r"""\bexfiltrat\w* | (?<!not\ )(?<!n't\ )(?<!never\ )
            \b(?:send|email|mail|post|upload|forward|reveal|paste|leak)\b
            \W+ (?:\w+(?:'s)?\W+){0,4} (?:keys?|tokens?|passwords?|credentials?|secrets?|dumps?|\.env)\b""",
            "hands out what is secret",
        ),
    )
)


def suspicion(lesson: Lesson) -> str | None:
    """What an imported lesson is marked for; None where nothing is."""
    return suspicious(lesson.text) if lesson.origin == "import" else None


def suspicious(text: str) -> str | None:
    """What a text is marked for; None where nothing is. A tool's words, which stand in quotation marks, came past the
    gate with their action, and what no tool may offer beside it may be what the action held."""
    said = unquoted(text)
    hidden = hides(said)
    if hidden is not None:
        return hidden
    found = next((mark for pattern, mark in _WORDS if pattern.search(said)), None)
    fault = found or directs_elsewhere(said, ())
    return fault if found or fault in (_MARKED if said == text else _MARKED[:1]) else None
