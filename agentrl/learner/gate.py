"""What a candidate must pass before it is served (law 8).

1. Every weight and every metric of its steps is finite.
2. On a small probe of recorded, positively rewarded turns that are never trained (`held_out`) it is not worse than its
   parent by more than a margin, in the mean log-prob of the sampled ids: a policy that has forgotten what used to work
   shows it here. Turns that joined the probe after the parent was scored count from the next version on.
   While the probe is too small, its own replies to recent prompts are compared with version 0's (`own_replies`): that
   finds weights that are garbled, and no slow loss of what used to work.
3. It keeps within the run's budgets (`budget`): KL to version 0, from the first candidate on; KL to its parent, from
   the second on; and what the probe may have fallen by over all versions, once there is a probe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentrl.learner.budget import Budget, Spent
from agentrl.learner.own_replies import OwnReplies
from agentrl.learner.pack import Row
from agentrl.learner.trainer import Trainer

MIN_TURNS = 4
"""Fewer say nothing: until then a version is asked for replies of its own."""
MARGIN = 0.5
"""Largest fall of the mean log-prob, in nats an id, that a version may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    passed: bool
    reason: str
    """A sentence for the log, in both cases."""
    metrics: dict[str, float] = field(default_factory=dict)


class Gate:
    """Judges candidates. Scores of the serving version are kept, so that a candidate costs one pass over the probe.

    Args:
        rows: the probe's rows by turn id; it may grow and lose rows while the gate stands.
        budget: of the run; None = no bound but the margin.
        replies: what is compared while the probe is too small; None = nothing.
    """

    def __init__(
        self,
        rows: Mapping[str, Row],
        *,
        margin: float = MARGIN,
        min_turns: int = MIN_TURNS,
        budget: Budget | None = None,
        replies: OwnReplies | None = None,
    ) -> None:
        self.margin = margin
        self._min_turns = min_turns
        self._rows = rows
        self._budget = budget
        self._replies = replies
        self._parent: dict[str, float] = {}
        self._candidate: dict[str, float] = {}

    def restart(self, trainer: Trainer) -> None:
        """Scores the probe under the weights that the trainer has: those of the version that is served."""
        self._parent = self._score(trainer)
        self._candidate = {}
        if self._budget is not None:
            self._budget.restart(trainer)

    def judge(self, trainer: Trainer, metrics: Sequence[Mapping[str, float]]) -> Verdict:
        """Judges the weights that the trainer has against the served version's scores.

        Args:
            metrics: those of the steps since the served version.
        """
        if not trainer.weights_are_finite():
            return Verdict(passed=False, reason="a weight is not finite")
        for step in metrics:
            for name, value in step.items():
                if not math.isfinite(value):
                    return Verdict(passed=False, reason=f"the metric {name} is {value}")
        self._candidate = self._score(trainer)
        spent = Spent(refusal=None) if self._budget is None else self._budget.spend(trainer, self._candidate)
        both = [turn_id for turn_id in self._candidate if turn_id in self._parent]
        if len(both) < self._min_turns:
            return self._without_probe(trainer, spent, len(both))
        before = sum(self._parent[turn_id] for turn_id in both) / len(both)
        after = sum(self._candidate[turn_id] for turn_id in both) / len(both)
        measured = spent.metrics | {
            "probe_turns": float(len(both)),
            "probe_logprob": after,
            "probe_change": after - before,
        }
        # written so that a NaN fails
        passed = after >= before - self.margin
        reason = (
            f"mean log-prob of {len(both)} held-out turns went from {before:.3f} to {after:.3f}, "
            f"allowed is a fall of {self.margin:g}"
        )
        if passed and spent.refusal is not None:
            return Verdict(passed=False, reason=spent.refusal, metrics=measured)
        return Verdict(passed=passed, reason=reason, metrics=measured)

    def _without_probe(self, trainer: Trainer, spent: Spent, num_turns: int) -> Verdict:
        """The verdict where too few held-out turns were scored under both versions."""
        found = None if self._replies is None else self._replies.judge(trainer)
        # What is garbled is also far from version 0, and to be garbled says more.
        refusal = (found and found.refusal) or spent.refusal
        parts = ["finite", f"{num_turns} held-out turns are too few to compare"]
        return Verdict(
            passed=refusal is None,
            reason=refusal or "; ".join(parts if found is None else [*parts, found.reason]),
            metrics=spent.metrics | {"probe_turns": float(num_turns)} | (found.metrics if found else {}),
        )

    def accept(self, trainer: Trainer) -> None:
        """The judged candidate, whose weights the trainer has, is served now: its scores are what the next one is
        compared with."""
        self._parent, self._candidate = self._candidate, {}
        if self._budget is not None:
            self._budget.accept(trainer)

    def _score(self, trainer: Trainer) -> dict[str, float]:
        return dict(zip(self._rows, trainer.mean_logprobs(list(self._rows.values())), strict=True))
