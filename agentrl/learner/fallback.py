"""Which version serves again after an alarm: the newest that is not bad itself.

    versions from before the turns that are out of bounds, the newest first ─asked what the gate asks─> the first that
    passes; version 0 passes always

A gate may have let several versions pass of which each was a little worse, so that the newest from before the alarm's
turns need not be better than what is left. Each is asked on the prompts of those very turns, with what the teacher
would be shown in view: its own replies (`own_replies`) and its drift from version 0 (`budget`) keep within the run's
bounds, or it is passed over. Behind each that is, twice as many are passed over unasked: the bad one serves meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentrl.config import GuardsConfig
from agentrl.errors import AgentRLError
from agentrl.learner import checkpoint
from agentrl.learner.base_answers import BaseAnswers, Ids
from agentrl.learner.budget import Budget
from agentrl.learner.own_replies import OwnReplies
from agentrl.learner.trainer import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What serves again."""

    number: int
    passed_over: dict[int, str]
    """Versions that are bad as well, and why."""


class Fallbacks:
    """Tries versions one after the other. The trainer has the weights of the last one afterwards: whoever asks restores
    what serves.

    Args:
        folder: of a version, by its number.
        budget: made with what version 0 answers; None = drift is not asked for.
    """

    def __init__(
        self,
        trainer: Trainer,
        guards: GuardsConfig,
        *,
        folder: Callable[[int], Path],
        stop_ids: frozenset[int],
        budget: Callable[[BaseAnswers], Budget] | None = None,
    ) -> None:
        self._trainer = trainer
        self._guards = guards
        self._folder = folder
        self._stop_ids = stop_ids
        self._budget = budget

    def choose(self, targets: Sequence[int], prompts: Sequence[tuple[Ids, Ids]]) -> Fallback:
        """The first of the targets that passes, or the last.

        Args:
            targets: at least one; version 0 stands at the end.
            prompts: that versions are asked, each with what the teacher would be shown.
        """
        answers = BaseAnswers(self._stop_ids)
        for prompt, view in prompts:
            answers.learn(prompt, view)
        replies = OwnReplies(answers, most=self._guards.max_surprise)
        budget = None if self._budget is None else self._budget(answers)
        passed_over: dict[int, str] = {}
        at = 0
        while at < len(targets) - 1:
            why = self._fault(targets[at], replies, budget)
            if why is None:
                return Fallback(number=targets[at], passed_over=passed_over)
            passed_over[targets[at]] = why
            at = 2 * at + 1
        return Fallback(number=targets[-1], passed_over=passed_over)

    def _fault(self, number: int, replies: OwnReplies, budget: Budget | None) -> str | None:
        """What is bad about a version; None where nothing is found."""
        try:
            checkpoint.load(self._trainer, self._folder(number))
        except AgentRLError as error:
            return f"it cannot be loaded: {error}"
        if not self._trainer.weights_are_finite():
            return "a weight is not finite"
        found = replies.judge(self._trainer)
        if found is not None and found.refusal is not None:
            return found.refusal
        return None if budget is None else budget.to_base(self._trainer)[0]
