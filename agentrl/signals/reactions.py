"""What a user's next words are to the answer before them, by a small trained classifier: a correction, an approval ...

Word tables find what they list, and people word things anew: the classifier knows the tables' findings, the words and
how they stand to the answer and the request. `python -m bench.wording` trains it and shows how well it reads authors
that it never saw; its thresholds come from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

from agentrl.signals.reaction_features import features
from agentrl.signals.wording import approves, plainly_corrects, praises
from agentrl.text.linear import Linear

WEIGHTS: Final = Path(__file__).with_name("reactions.npz")
SURE_CORRECTION: Final = 0.93
SURE_APPROVAL: Final = 0.92
LIKELY_CORRECTION: Final = 0.6
LIKELY_APPROVAL: Final = 0.6
"""Where, of authors that the classifier never saw, 95 % of what is called so is so: by it alone, and where the word
tables say so too."""


class Reaction(StrEnum):
    """What next words are."""

    CORRECTION = "correction"
    APPROVAL = "approval"
    APPROVAL_THEN_TASK = "approval_then_task"
    NEW_TASK = "new_task"
    ANSWER = "answer"
    """To a question that the answer ended with."""
    TALK = "talk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How likely it is that a user's words correct the answer before them, or approve of it."""

    correction: float
    approval: float
    """Whether or not a next task follows."""
    tables_correct: bool
    """Whether the word tables find a plain correction."""
    tables_approve: bool
    """Whether they find a sentence that says that the answer did it; thanks alone may be mere politeness."""

    @property
    def corrects(self) -> bool:
        return self.correction >= (LIKELY_CORRECTION if self.tables_correct else SURE_CORRECTION)

    @property
    def approves(self) -> bool:
        return self.approval >= (LIKELY_APPROVAL if self.tables_approve else SURE_APPROVAL)


def read(text: str, *, reply: str, asked: str, by: Linear | None = None) -> Reading:
    """Reads what a user said behind an answer to a request. Below a millisecond; linear in the length.

    Args:
        by: another classifier than the one that ships.
    """
    likely = (by or classifier()).probabilities(features(text, reply=reply, asked=asked))
    return Reading(
        correction=likely[Reaction.CORRECTION],
        approval=likely[Reaction.APPROVAL] + likely[Reaction.APPROVAL_THEN_TASK],
        tables_correct=plainly_corrects(text, reply=reply, asked=asked),
        tables_approve=approves(text) and praises(text),
    )


@cache
def classifier() -> Linear:
    """The classifier that ships."""
    return Linear.load(WEIGHTS)
