"""What a skill is marked for, for the person who is asked to approve it.

A skill from elsewhere, or one that a hand changed, is read as a comment is (`agentrl.signals.suspicion`). Its text may
name a page to read, and its code may well have two commands in a line: of commands only those count there that run what
they fetch. What agentrl wrote passed the gates of hints; of it a user's own words are read. Files beside it are not.
"""

from __future__ import annotations

import re
from typing import Final

from agentrl.signals.suspicion import against_readers, suspicious
from skills.skill_file import SkillFile

_USER_SAID: Final = 'The user said: "'
"""What `skills.summarise` writes before a user's words."""
_LINES: Final = 50
"""That are read at once, of which no clause is beyond what is read of a text."""
_OVERLAP: Final = 10
"""Lines that are read twice, for what goes on over lines."""
_FENCE: Final = re.compile(r"^\s*(?:```|~~~)")
_LINK: Final = re.compile(r"\]\([^()\s]{0,500}\)|<?\bhttps?://[^\s<>`|]{1,500}>?")
_ACTS: Final = re.compile(
    r"""(?ix) \b(?: run | execute | fetch | download | install | curl | wget | clone | send | e?mail | post | upload
        | forward | paste | report | ping | call )\b"""
)
"""Words with which an address is more than a page to read."""
_CLAUSE_END: Final = re.compile(r"[.;,!?](?=\s)")
_FETCHES: Final = re.compile(
    r"""(?ix) \b(?:curl|wget|fetch|iwr|irm|invoke-webrequest|base64)\b [^\n]{0,300}
        \| \s* (?:sudo\s+)? (?:\w{0,2}sh|python\d?|perl|ruby|node|php|iex|invoke-expression)\b
    | (?:\b(?:eval|source|sh\s+-c|bash\s+-c)\b|<\(|\$\() [^\n]{0,40} \b(?:curl|wget)\b
    | /dev/tcp/ | \bnc\b [^\n]{0,60} \s-e\b
    | \b(?:curl|wget|scp|nc)\b [^\n]{0,300} (?:~|/root|/home/\w+|\$HOME)/\.(?:ssh|aws|netrc|gnupg|config)\b"""
)
"""In code: what was fetched is run, or what is private goes out."""


def suspicion(skill: SkillFile) -> str | None:
    """What a skill is marked for; None where nothing is."""
    if not skill.is_edited:
        said = skill.body.partition(_USER_SAID)[2]
        return suspicious(said) if said else None
    prose, code = _apart(skill.body)
    if any(map(_FETCHES.search, code)):
        return "runs what it fetches, or hands out what is private"
    lines = [_without_pages(line) for line in (*skill.description.splitlines(), *prose)]
    parts = ("\n".join(lines[at : at + _LINES + _OVERLAP]) for at in range(0, len(lines), _LINES))
    return against_readers("\n".join(code)) or next(filter(None, map(suspicious, parts)), None)


def _apart(text: str) -> tuple[list[str], list[str]]:
    """The lines of a text, and those of its blocks of code."""
    prose: list[str] = []
    code: list[str] = []
    is_code = False
    for line in text.splitlines():
        if _FENCE.match(line):
            is_code = not is_code
        else:
            (code if is_code else prose).append(line)
    return prose, code


def _without_pages(line: str) -> str:
    """A line without the addresses of pages that it only points to: nothing is to be done with them there."""

    def without(found: re.Match[str]) -> str:
        before = _CLAUSE_END.split(line[: found.start()])[-1]
        after = _CLAUSE_END.split(line[found.end() :])[0]
        return found[0] if _ACTS.search(f"{before} {after}") else "]" * found[0].startswith("]")

    return _LINK.sub(without, line)
