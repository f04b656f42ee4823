"""What a comment or a rule says to do: what stands in a correction (`hints.wish`), and bans and duties.

Of a user who corrects, words that only deny ("No, not that.") teach nothing: what was denied is the turn before them. A
rule denies what nobody has done yet ("Never commit to main."), and says all by it. A user who corrects does not chat
either; who comments on work may ("LGTM, should be fine now.").
"""

from __future__ import annotations

import re

from agentrl.signals.hints import MAX_HINT_CHARS, MIN_HINT_CHARS, directive, wish

_BANS = re.compile(
    r"""(?ix) (?:^|[.;:,!]\s+|\b(?:please|and|but|or)\s+) [^\w\s]*
    (?: never | do(?:\s+not|n['’]t) | avoid | refrain\s+from | stop ) \W+ (?!(?:know|mind|think|worry|care)\b) \w"""
)
"""Where a clause begins."""
_DUTIES = re.compile(
    r"""(?ix) \w\W+ (?: must | should | shall | ought\s+to | (?:has|have|needs?)\s+to | may\s+not
    | (?:is|are)\s+(?:not\s+)?(?:to\s+be|allowed|permitted|forbidden|prohibited|required|mandatory|banned) ) \b"""
)
_DENIALS = re.compile(r"(?i)^[^\w\s]*no\s+\w|(?!\b(?:was|were|has|have|had|been|i)\b)\b\w+\W+never\s+\w")
"""Bans that name no verb ("No tabs.") or are no order ("Errors are never swallowed."); what never was is none."""
_POINTS = re.compile(r"(?i)^\W*(?:this|that|these|those|it|there|here|i)\b")
"""What begins words on something that was before the eyes of who wrote them."""
_CHAT = re.compile(
    r"""(?ix) ^\W* (?: lgtm | thx | thanks? | no\s+(?:idea|worries|clue|objections?)
        | (?:it\s+|this\s+|that\s+|all\s+)? (?:looks?|sounds?)\s+(?:good|fine|great|right|ok(?:ay)?) )\b
    | ^\W* (?: (?:it\s+|this\s+|that\s+|all\s+)? (?:should|must|will|would)\s+be
            \s+(?:fine|good|great|alright|ok(?:ay)?) (?:\s+\w+)?
        | (?:nice|great|good|well|cool|awesome|perfect) (?:\s+(?:job|work|catch|point|one|idea|done))? (?:\s+\w+)?
        | no\s+problem (?:\s+\w+)? | ok(?:ay)? | agreed | done | fixed ) \W*$"""
)
"""A clause that says nothing of how to work."""
_CLAUSE_END = re.compile(r"[.;:,!?]+(?:\s+|$)")
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")


def advice(text: str) -> list[str]:
    """What of a text can be taught: all of it, of one that is too long for a hint the sentences that direct.

    Args:
        text: in one line.
    """
    if len(text) <= MAX_HINT_CHARS:
        is_wish = not _POINTS.match(text) and not _is_chat(text) and wish(text) is not None
        return [text] if is_wish or _directs(text) else []
    sentences = [sentence.strip() for sentence in _SENTENCE_END.split(text)]
    return [sentence for sentence in sentences if len(sentence) <= MAX_HINT_CHARS and _directs(sentence)]


def why_none(text: str) -> str:
    """Why nothing of a text can be taught, for who wrote it."""
    if len(text) < MIN_HINT_CHARS:
        return f"shorter than {MIN_HINT_CHARS} characters"
    if len(text) > MAX_HINT_CHARS:
        return f"longer than {MAX_HINT_CHARS} characters, and no sentence of it says what to do"
    return "does not say what to do ('Use ...', 'Never ...', '... must ...')"


def _directs(text: str) -> bool:
    """Whether a text says what to do, or forbids or demands something of whoever reads it."""
    if _is_chat(text):
        return False
    if directive(text) is not None:
        return True
    if len(text) < MIN_HINT_CHARS or text.rstrip().endswith("?") or _POINTS.match(text):
        return False
    return any(pattern.search(text) for pattern in (_BANS, _DUTIES, _DENIALS))


def _is_chat(text: str) -> bool:
    """Whether no clause of a text is about how to work."""
    return all(_CHAT.search(clause) for clause in _CLAUSE_END.split(text) if clause)
