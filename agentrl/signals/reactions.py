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
from agentrl.signals.wording import signs
from agentrl.text.linear import Linear

WEIGHTS: Final = Path(__file__).with_name("reactions.npz")
SURE_CORRECTION: Final = 0.92
"""By the classifier alone."""
LIKELY_CORRECTION: Final = 0.75
"""Where the word tables find a correction that others' words may hold too."""
PLAIN_CORRECTION: Final = 0.38
"""Where they find a plain one."""
SURE_APPROVAL: Final = 0.92
LIKELY_APPROVAL: Final = 0.5
NO_CORRECTION: Final = 0.15
"""Of two authors that the classifier never saw .7 % of what is no correction is called one, 95 % of what is called so
is one, and .5 % of the corrections are called approvals. Most messages are neither, and a reward for the wrong turn
costs more than none."""


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
    found: frozenset[str]
    """What the word tables find, by the names of `wording.signs`."""

    @property
    def corrects(self) -> bool:
        """Who was asked for something answers: there only blame of the author, which is plain, is a correction."""
        if "plain" in self.found:
            return self.correction >= PLAIN_CORRECTION
        least = LIKELY_CORRECTION if "corrects" in self.found else SURE_CORRECTION
        return self.correction >= least and "waits" not in self.found

    @property
    def approves(self) -> bool:
        """Kind words before a request are often mere politeness: there they must say that the answer did it."""
        if "spoils" in self.found:
            return False
        if "full" in self.found:
            return self.approval >= LIKELY_APPROVAL and self.correction < NO_CORRECTION
        return self.approval >= SURE_APPROVAL and self.found.isdisjoint(("asks", "again"))


def read(text: str, *, reply: str, asked: str, by: Linear | None = None) -> Reading:
    """Reads what a user said behind an answer to a request. Linear in the length, of which a bounded part is read.

    Args:
        by: another classifier than the one that ships.
    """
    found = signs(text, reply=reply, asked=asked)
    likely = (by or classifier()).probabilities(features(text, reply=reply, asked=asked, signs=found))
    return Reading(
        correction=likely[Reaction.CORRECTION],
        approval=likely[Reaction.APPROVAL] + likely[Reaction.APPROVAL_THEN_TASK],
        found=frozenset(found),
    )


@cache
def classifier() -> Linear:
    """The classifier that ships."""
    return Linear.load(WEIGHTS)
