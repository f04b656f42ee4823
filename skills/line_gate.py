"""What a model wrote of an episode, line by line past the gate of texts that no user wrote.

A model reads what tools and pages said, and may write down what they told it to. So its lines are held to what the
episode did, as a tool's text is to the action that failed (`agentrl.text.injection`): each stands or goes alone, and
without a step or a mistake there is no skill. The rules (`skills.summarise`) pass their quotations before they write.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from agentrl.signals.hints import directive
from agentrl.signals.outputs import text_of
from agentrl.store.episodes import Episode
from agentrl.text import action_words, injection
from skills.library import Draft
from skills.skill_file import MAX_DESCRIPTION, slug
from skills.summarise import admitted, outcomes, request_of, shortened

WHY: Final = "## Why it works"
"""Heading of what is no step and no mistake: it makes no skill alone."""
HEADINGS: Final = ("## How", WHY, "## Mistakes")
"""Those that `skills.llm.draft_of` writes."""

_ITEM = re.compile(r"^(?P<mark>\d+\.|[-*])\s+(?P<text>.*)$")
_PLAIN: Final = frozenset((
    "a", "an", "and", "by", "for", "from", "in", "instead", "not", "of", "on", "or", "skill", "task", "the", "then",
    "to", "use", "using", "with", "without",
))  # fmt: skip
"""Words that a name may have of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """A draft and what was taken out of it."""

    draft: Draft | None
    """None where nothing to do or to avoid is left."""
    faults: tuple[str, ...] = ()
    """Of each line that was left out."""


def sift(draft: Draft, episode: Episode) -> Sifted:
    """The draft without the lines that direct elsewhere. A name of other words than the episode and those lines have is
    replaced by the first of them, a description that directs elsewhere by the request, which is a user's."""
    words = words_of(episode)
    faults: list[str] = []
    sections: list[list[str]] = [[]]
    for line in draft.body.splitlines():
        if line in HEADINGS:
            sections.append([])
        elif fault := fault_of(line, words) if line.strip() else None:
            faults.append(fault)
            continue
        sections[-1].append(line)
    kept = [_numbered(lines) for lines in sections if _lines(lines)]
    if all(lines[0] == WHY for lines in kept):
        return Sifted(draft=None, faults=tuple(faults))
    body = "\n\n".join("\n".join(lines) for lines in kept)
    first = next(line for lines in kept if lines[0] != WHY for line in _lines(lines))
    strays = fault_of(draft.description, words) is not None
    request = f"Use for requests like this one: {shortened(request_of(episode))}"
    sifted = replace(
        draft,
        name=draft.name if _is_of(draft.name, words, body) else slug(first),
        description=request[:MAX_DESCRIPTION] if strays else draft.description,
        body=body,
    )
    return Sifted(draft=sifted, faults=tuple(faults))


def words_of(episode: Episode) -> frozenset[str]:
    """The words of all that an episode asked and did, and of what its tools advised past the gates of hints."""
    found = set[str]()
    for step in episode.steps:
        found |= action_words.action_words(step.turn)
        for _, output in outcomes(step):
            found |= action_words.words_of(admitted(step, directive(text_of(output)), "error_text") or "")
    return frozenset(found)


def fault_of(line: str, words: Collection[str]) -> str | None:
    """What a line hides, or directs at beside what the episode did; None where it keeps to it."""
    item = _ITEM.match(line.strip())
    text = item["text"] if item else line.strip()
    return injection.hides(text) or injection.directs_elsewhere(text, words)


def _is_of(name: str, words: Collection[str], body: str) -> bool:
    """Whether each part of a name is a word of the episode or stands in the text below it."""
    text = "".join(body.lower().split())
    return all(part in words or part in _PLAIN or part in text for part in name.split("-"))


def _lines(section: Iterable[str]) -> list[str]:
    """The lines that say something."""
    return [line for line in section if line.strip() and line not in HEADINGS]


def _numbered(section: Iterable[str]) -> list[str]:
    """A section, its steps counted anew."""
    found, number = [], 0
    for line in section:
        item = _ITEM.match(line)
        if item is not None and item["mark"][:-1].isdigit():
            number += 1
            line = f"{number}. {item['text']}"
        found.append(line)
    return [line for line in found if line.strip()]
