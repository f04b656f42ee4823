"""Hints from text: the sentence of an error or a correction that says what should have been done.

Only a sentence that directs (use this, did you mean that, replaced by such) is a hint. An error that names a fault
without a way out is left to the reward: shown to a teacher it would teach the fault.
"""

from __future__ import annotations

import re

MAX_HINT_CHARS = 300
MIN_HINT_CHARS = 8
MAX_READ_CHARS = 8000
"""How much of an output's end is looked at: the judge runs beside the gateway and must not hold it up."""

EXIT_LINE = re.compile(r"^\[exit code (-?\d+)\]$")

_DIRECTS = re.compile(
    r"""(?ix)
    \b(?: use | try | run | call | prefer | type | choose | pick | invoke
        | did\ you\ mean | you\ (?:want|need|must|should|may|can) | must\ be | should\ be
        | instead | rather | replaced\ (?:by|with) | renamed | superseded | succeeded\ by | successor
        | moved\ to | (?:is|are|was)\ now | goes\ by | known\ as | called | (?:is|are)\ done\ (?:with|by)
        | only\ \S+\ (?:is|are) | (?<!not\ )(?:allowed|permitted|accepted) | expected | available\ (?:is|are|:)
        | in\ place\ of | ,\ (?!that|it|this)\S+\ works
        | new\ (?:command|name)\ is | right\ \w+ | asks?\ for | does\ the\ same | it\ has
        | has\ \S+\ for | but\ \S+\ (?:is|can|does)
        | switch\ to | see\ also | please | offers? | provides? | handled\ by | equivalent | alternative | substitute
    )\b | -> | =>
    """
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"])")
_TRACEBACK = re.compile(r"^\s*(File \"|at |Traceback|\^+$)")


def exit_code(output: str) -> int | None:
    """The exit code that a tool's output states in its last line; None where it states none."""
    lines = output.rstrip().splitlines()
    match = EXIT_LINE.match(lines[-1].strip()) if lines else None
    return int(match.group(1)) if match else None


def directive(output: str) -> str | None:
    """The part of `output` that says what to do, verbatim; None where nothing does.

    A directing sentence that leans on the one before it ("not here. Did you mean x?") is returned with it,
    because alone it would not say what it is about.
    """
    for text in reversed(said_lines(output)):
        if not _DIRECTS.search(text):
            continue
        if len(text) <= MAX_HINT_CHARS:
            return text if len(text) >= MIN_HINT_CHARS else None
        for sentence in _SENTENCE_END.split(text):
            if _DIRECTS.search(sentence) and MIN_HINT_CHARS <= len(sentence) <= MAX_HINT_CHARS:
                return sentence
    return None


def said_lines(output: str) -> list[str]:
    """The lines at an output's end that say something: no blank ones, no exit code, no stack frames."""
    lines = (line.strip() for line in output[-MAX_READ_CHARS:].splitlines())
    return [line for line in lines if line and not EXIT_LINE.match(line) and not _TRACEBACK.match(line)]
