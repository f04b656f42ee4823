"""How far a version may go from its parent and from version 0.

    kl_update    KL(new || served version)   on the gate's held-out probe; while that is too small, on what the served
                                             version replies to prompts that clients sent (`served_replies`); not
                                             measured where the probe loses its turns between two versions
    kl_base      KL(new || version 0)        on those of its turns that version 0 sampled, and on what version 0 answers
                                             to prompts that clients sent (`base_answers`), which is there from the
                                             first step on: the larger of both
    probe_fall   what the probe's log-probs have lost since it was sampled

The mean is over the ids of each turn, then over turns; a version is refused where it exceeds the bound by more than its
standard error, so that no single turn decides: of four held-out turns one may be a way to say "done" that has changed.
More than twice the bound is refused whatever its error. How a divergence is measured: `outline`.

Against version 0 only turns count that it sampled itself and that were rewarded: what it did well is to stay, what it
could not do is to be learned. Of its own answers nobody knows how good they are: there what it says with the lesson in
view counts as its own too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from agentrl.config import GuardsConfig
from agentrl.learner.base_answers import BaseAnswers
from agentrl.learner.outline import Outline, divergences, looked_at
from agentrl.learner.pack import Row
from agentrl.learner.served_replies import ServedReplies
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer

HELD_OUT = "held-out turns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a version uses of its budgets."""

    refusal: str | None
    """Which budget it exceeds, as a sentence."""
    metrics: dict[str, float] = field(default_factory=dict)


class Budget:
    """Measures candidates. Lives as a `Gate` does: `restart`, then `spend` and `accept` again and again.

    Args:
        rows: the probe's by turn id; it may grow and lose rows.
        anchors: those that version 0 sampled.
        sampled: of the rows the mean raw log-prob that their sampler gave, where it is known.
        guards: the bounds.
        min_turns: with fewer nothing is measured.
        answers: knows recent prompts and what version 0 answers; None = no version is asked.
    """

    def __init__(
        self,
        rows: Mapping[str, Row],
        anchors: Mapping[str, Row],
        sampled: Mapping[str, float],
        guards: GuardsConfig,
        *,
        min_turns: int,
        answers: BaseAnswers | None = None,
    ) -> None:
        self._rows = rows
        self._anchors = anchors
        self._sampled = sampled
        self._guards = guards
        self._min_turns = min_turns
        self._answers = answers
        self._served = None if answers is None or not guards.max_kl_update else ServedReplies(answers)
        self._parent: dict[str, Outline] = {}
        self._candidate: dict[str, Outline] = {}
        self._base: dict[str, Outline] = {}

    def restart(self, trainer: Trainer) -> None:
        """The trainer has the weights of the version that serves."""
        self._candidate = {}
        self._parent = {}
        if self._guards.max_kl_update:
            self._parent, _ = _looked_at(Weights(trainer.policy, None), trainer, self._rows, {})
        self._ask(trainer)

    def spend(self, trainer: Trainer, scores: Mapping[str, float]) -> Spent:
        """Measures the weights that the trainer has.

        Args:
            scores: the mean log-prob of each of the probe's rows under them.
        """
        measured = [self._update(trainer), self.to_base(trainer), self._fall(scores)]
        metrics = {name: value for _, found in measured for name, value in found.items()}
        return Spent(refusal=next((why for why, _ in measured if why), None), metrics=metrics)

    def accept(self, trainer: Trainer) -> None:
        """The version that was measured, whose weights the trainer has, serves now."""
        self._parent, self._candidate = self._candidate, {}
        self._ask(trainer)

    def _ask(self, trainer: Trainer) -> None:
        """Asks the version that serves, where held-out turns cannot say how far the next one is from it."""
        if self._served is None:
            return
        if len(self._parent) < self._min_turns:
            self._served.remember(trainer)
        else:
            self._served.forget()

    def _update(self, trainer: Trainer) -> tuple[str | None, dict[str, float]]:
        most = self._guards.max_kl_update
        if not most:
            return None, {}
        self._candidate, found = _looked_at(Weights(trainer.policy, None), trainer, self._rows, self._parent)
        both, on = list(found.values()), HELD_OUT
        if len(both) < self._min_turns and self._served is not None:
            both, on = self._served.drift(trainer), "of its replies"
        return self._verdict(both, most, "kl_update", "the version that serves", on)

    def to_base(self, trainer: Trainer) -> tuple[str | None, dict[str, float]]:
        """Why the weights that the trainer has are too far from version 0, and how far they are."""
        most, base = self._guards.max_kl_base, trainer.base
        if not most or base is None:
            return None, {}
        answers = [] if self._answers is None else self._answers.drift(trainer)
        # Each for itself: neither is to hide behind many of the other.
        both = [
            self._verdict(self._of_anchors(trainer, base), most, "kl_base", "version 0", HELD_OUT),
            self._verdict(answers, most, "kl_base", "version 0", "answers of version 0"),
        ]
        # written so that a NaN, which is refused, comes first
        return max(both, key=lambda one: (one[0] is not None, one[1].get("kl_base", -1.0)))

    def _of_anchors(self, trainer: Trainer, base: Weights) -> list[float]:
        """The divergence from version 0 of each held-out turn that it sampled."""
        new = {turn_id: row for turn_id, row in self._anchors.items() if turn_id not in self._base}
        self._base |= _looked_at(base, trainer, new, {})[0]
        policy, most = Weights(trainer.policy, None), trainer.recipe.batch.micro_tokens
        found = divergences(policy, self._anchors, self._base, max_tokens=most)
        return [float(values.mean()) for values in found.values()]

    def _fall(self, scores: Mapping[str, float]) -> tuple[str | None, dict[str, float]]:
        most = self._guards.max_fall
        both = [turn_id for turn_id in scores if turn_id in self._sampled]
        if not most or len(both) < self._min_turns:
            return None, {}
        fall = sum(self._sampled[turn_id] - scores[turn_id] for turn_id in both) / len(both)
        metrics = {"probe_fall": fall}
        if fall <= most:
            return None, metrics
        return (
            f"{len(both)} held-out turns have fallen by {fall:.3f} nats an id since they were sampled, "
            f"guards.max_fall allows {most:g}"
        ), metrics

    def _verdict(
        self, found: Sequence[float], most: float, name: str, other: str, on: str = HELD_OUT
    ) -> tuple[str | None, dict[str, float]]:
        """Whether the mean of what was found exceeds its bound; nothing where that is of too few."""
        if len(found) < self._min_turns:
            return None, {}
        values = torch.tensor(found, dtype=torch.float64)
        mean = float(values.mean())
        error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
        metrics = {name: mean, f"{name}_error": error}
        # written so that a NaN fails
        if mean - min(error, most) <= most:
            return None, metrics
        return (
            f"KL to {other} is {mean:.3f} ± {error:.3f} nats an id on {len(found)} {on}, "
            f"guards.max_{name} allows {most:g}"
        ), metrics


def _looked_at(
    weights: Weights, trainer: Trainer, rows: Mapping[str, Row], known: Mapping[str, Outline]
) -> tuple[dict[str, Outline], dict[str, float]]:
    """The outlines of the rows, and of those with a known one the mean divergence from it."""
    most = trainer.recipe.batch.micro_tokens
    outlines, found = looked_at(weights, rows, known, max_tokens=most)
    return outlines, {name: float(values.mean()) for name, values in found.items()}


def unmeasured(metrics: Mapping[str, float], guards: GuardsConfig) -> Sequence[str]:
    """Which budgets bind nothing, because the probe of a version's gate held too little."""
    bounds = {"kl_update": guards.max_kl_update, "kl_base": guards.max_kl_base, "probe_fall": guards.max_fall}
    return [name for name, most in bounds.items() if most and name not in metrics]
