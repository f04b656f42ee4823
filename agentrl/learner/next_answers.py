"""What conversations were answered once a turn had been told what to do instead: for the transform `next_answer`.

In such a conversation the hint stands as the tool or the user gave it, so the answer behind it is what the policy
itself does with the hint in view, sampled and recorded already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentrl.learner.held_out import is_held_out
from agentrl.store.learning_log import LearningLog
from agentrl.teacher.contexts import hint_of
from agentrl.types import Turn

if TYPE_CHECKING:
    from agentrl.learner.build import Claim


def next_answers(log: LearningLog, claims: Sequence[Claim]) -> dict[str, Turn]:
    """By turn id the next turn of each claim with a hint of its own, where there is one that may be trained
    and that was not itself corrected."""
    told = [claim.turn.id for claim in claims if hint_of(claim.signals) is not None]
    return {turn_id: turn for turn_id, turn in log.next_turns(told).items() if not is_held_out(turn.id)}
