"""Hints from text: the sentence of an error or a correction that says what should have been done.

Only a sentence that directs (use this, did you mean that, replaced by such) is a hint. An error that names a fault
without a way out is left to the reward: shown to a teacher it would teach the fault.
"""

from __future__ import annotations

import re

from agentrl.signals.outputs import EXIT_LINE, MAX_READ_CHARS

MAX_HINT_CHARS = 300
MIN_HINT_CHARS = 8

_DIRECTS = re.compile(
    r"""(?ix)
    \b(?: use | try | run | call(?!\ (?:ignored|failed|refused|rejected)) | prefer | type | choose | pick | invoke
        | go\ through
        | did\ you\ mean | you\ (?:want|need|must|should|may|can) | must\ (?:be|contain|have|match) | should\ be
        | instead | rather | replaced\ (?:by|with) | renamed | superseded | succeeded\ by | successor
        | moved\ to | (?:is|are|was)\ now | goes\ by | known\ as | called | (?:is|are)\ done\ (?:with|by)
        | only\ \S+\ (?:is|are) | (?<!not\ )(?:allowed|permitted|accepted) | expected | available\ (?:is|are|:)
        | missing\ (?:required\ )?(?:parameter|argument|field|option)
        | in\ place\ of | ,\ (?!that|it|this)\S+\ works
        | new\ (?:command|name)\ is | right\ \w+ | asks?\ for | does\ the\ same | it\ has
        | has\ \S+\ for | but\ \S+\ (?:is|can|does)
        | switch\ to | see\ also | please | offers? | provides? | handled\ by | equivalent | alternative | substitute
    )\b | (?<!['"]\ )-> | (?<!=)=> | \s-{1,2}\w[\w-]*\ not\ specified
    """
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"])")
_TRACEBACK = re.compile(r"^\s*(File \"|at |Traceback|\^+$)")
_LEADS_ON = re.compile(r"(?i)(?::|,? use)$")
_REFUSES = re.compile(r"(?i)\b(?:not|wrong|incorrect|never)\b|n't\b|\?")
_ASKS_BACK = re.compile(
    r"""(?ix)^\W*(?:(?:but|and|so|hm+|wait)\W+)*
    (?:is|was|are|were|should|do|does|did|has|have|had|would)n['’]t\b (?!.*\b(?:wrong|incorrect|right|correct)\b)"""
)
"""A question that says what should have been: "Wasn't it to be in euros?"."""
MIN_SAID_WORDS = 3


def directive(output: str) -> str | None:
    """The part of `output` that says what to do, verbatim; None where nothing does.

    A directing sentence that leans on the one before it ("not here. Did you mean x?") is returned with it,
    because alone it would not say what it is about. A line that leads on ("to do so, use") takes the next one along.
    """
    lines = said_lines(output)
    for number in reversed(range(len(lines))):
        text = lines[number]
        if not _DIRECTS.search(text):
            continue
        if _LEADS_ON.search(text) and number + 1 < len(lines):
            text = f"{text} {lines[number + 1]}"
        if len(text) <= MAX_HINT_CHARS:
            return text if len(text) >= MIN_HINT_CHARS else None
        for sentence in _SENTENCE_END.split(text):
            if _DIRECTS.search(sentence) and MIN_HINT_CHARS <= len(sentence) <= MAX_HINT_CHARS:
                return sentence
    return None


def wish(text: str) -> str | None:
    """What a user who corrects says should have been: the directing sentence, else the words themselves.

    None where the words only refuse ("No, that is not it."): there is nothing in them to learn from.
    """
    directed = directive(text)
    if directed is not None:
        return directed
    parts = re.split(r"[.!?;:,]\s*", text)
    says = [part for part in parts if part and (_ASKS_BACK.match(part) or not _REFUSES.search(part))]
    is_said = any(len(part.split()) >= MIN_SAID_WORDS for part in says) or ", not " in text
    return text if is_said and MIN_HINT_CHARS <= len(text) <= MAX_HINT_CHARS else None


def said_lines(output: str) -> list[str]:
    """The lines at an output's end that say something: no blank ones, no exit code, no stack frames."""
    lines = (line.strip() for line in output[-MAX_READ_CHARS:].splitlines())
    return [line for line in lines if line and not EXIT_LINE.match(line) and not _TRACEBACK.match(line)]
