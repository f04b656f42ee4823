"""What a comment or a rule says to do: what stands in a correction (`hints.wish`), and bans and duties.

Of a user who corrects, words that only deny ("No, not that.") teach nothing: what was denied is the turn before them. A
rule denies what nobody has done yet ("Never commit to main."), and says all by it.
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
_BANS_OF_LISTS = re.compile(r"(?i)^[^\w\s]*no\s+\w|\b\w+\W+never\s+\w")
"""Bans too where they are an item of a list; "no idea" and "was never asked" may stand in any comment."""
_POINTS = re.compile(r"(?i)^\W*(?:this|that|these|those|it|there|here|i)\b")
"""What begins words on something that was before the eyes of who wrote them."""
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")


def advice(text: str, *, is_rule: bool) -> list[str]:
    """What of a text can be taught: all of it, of one that is too long for a hint the sentences that direct.

    Args:
        text: in one line.
        is_rule: whether it is an item of a list of rules.
    """
    if len(text) <= MAX_HINT_CHARS:
        said = wish(text) or (text if _obliges(text, is_rule=is_rule) else None)
        return [said] if said else []
    sentences = [sentence.strip() for sentence in _SENTENCE_END.split(text)]
    return [
        sentence
        for sentence in sentences
        if len(sentence) <= MAX_HINT_CHARS and (directive(sentence) or _obliges(sentence, is_rule=is_rule))
    ]


def why_none(text: str) -> str:
    """Why nothing of a text can be taught, for who wrote it."""
    if len(text) < MIN_HINT_CHARS:
        return f"shorter than {MIN_HINT_CHARS} characters"
    if len(text) > MAX_HINT_CHARS:
        return f"longer than {MAX_HINT_CHARS} characters, and no sentence of it says what to do"
    return "does not say what to do ('Use ...', 'Never ...', '... must ...')"


def _obliges(text: str, *, is_rule: bool) -> bool:
    """Whether a text forbids or demands something of whoever reads it."""
    if len(text) < MIN_HINT_CHARS or text.rstrip().endswith("?") or _POINTS.match(text):
        return False
    return any(pattern.search(text) for pattern in (_BANS, _DUTIES, *((_BANS_OF_LISTS,) if is_rule else ())))
