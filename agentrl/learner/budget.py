"""How far a version may go from its parent and from version 0, measured as KL on the held-out probe.

    KL(new || old) >= sum over old's top ids and the rest of p log(p / q),  q the old version's, p the new one's

Old distributions are kept as their `NUM_TOP` likeliest ids and the probability of all others together, so that a
large vocabulary costs no more memory than a small one. Merging ids can only lower a KL divergence: what is reported is
a lower bound, exact where the vocabulary has no more ids. The mean is over the ids of each turn, then over turns; a
version is refused where it exceeds the bound by more than its standard error, so that no single turn decides: of four
held-out turns one may be a way to say "done" that has changed. More than twice the bound is refused whatever its error.

Against version 0 only turns count that it sampled itself and that were rewarded: what it did well is to stay, what it
could not do is to be learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from agentrl.config import GuardsConfig
from agentrl.learner.pack import Row
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.losses.chunked import Outputs, chunk_rows, per_position

NUM_TOP = 64
SMALLEST = 1e-9
"""Least probability of the other ids together: below, rounding speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What is kept of a policy's distributions at a row's T positions."""

    ids: Tensor
    """[T, K] the likeliest ids."""
    logprobs: Tensor
    """[T, K] theirs, fp32."""


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
    """

    def __init__(
        self,
        rows: Mapping[str, Row],
        anchors: Mapping[str, Row],
        sampled: Mapping[str, float],
        guards: GuardsConfig,
        *,
        min_turns: int,
    ) -> None:
        self._rows = rows
        self._anchors = anchors
        self._sampled = sampled
        self._guards = guards
        self._min_turns = min_turns
        self._parent: dict[str, Outline] = {}
        self._candidate: dict[str, Outline] = {}
        self._base: dict[str, Outline] = {}

    def restart(self, trainer: Trainer) -> None:
        """The trainer has the weights of the version that serves."""
        self._candidate = {}
        self._parent = {}
        if self._guards.max_kl_update:
            self._parent, _ = _looked_at(Weights(trainer.policy, None), trainer, self._rows, {})

    def spend(self, trainer: Trainer, scores: Mapping[str, float]) -> Spent:
        """Measures the weights that the trainer has.

        Args:
            scores: the mean log-prob of each of the probe's rows under them.
        """
        measured = [
            self._update(trainer),
            self._to_base(trainer),
            self._fall(scores),
        ]
        metrics = {name: value for _, found in measured for name, value in found.items()}
        return Spent(refusal=next((why for why, _ in measured if why), None), metrics=metrics)

    def accept(self) -> None:
        """The version that was measured serves now."""
        self._parent, self._candidate = self._candidate, {}

    def _update(self, trainer: Trainer) -> tuple[str | None, dict[str, float]]:
        most = self._guards.max_kl_update
        if not most:
            return None, {}
        self._candidate, found = _looked_at(Weights(trainer.policy, None), trainer, self._rows, self._parent)
        return self._verdict(found, most, "kl_update", "the version that serves")

    def _to_base(self, trainer: Trainer) -> tuple[str | None, dict[str, float]]:
        most, base = self._guards.max_kl_base, trainer.base
        if not most or base is None:
            return None, {}
        new = {turn_id: row for turn_id, row in self._anchors.items() if turn_id not in self._base}
        self._base |= _looked_at(base, trainer, new, {})[0]
        _, found = _looked_at(Weights(trainer.policy, None), trainer, self._anchors, self._base)
        return self._verdict(found, most, "kl_base", "version 0")

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
        self, found: Mapping[str, float], most: float, name: str, other: str
    ) -> tuple[str | None, dict[str, float]]:
        if len(found) < self._min_turns:
            return None, {}
        values = torch.tensor(list(found.values()), dtype=torch.float64)
        mean = float(values.mean())
        error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
        metrics = {name: mean, f"{name}_error": error}
        # written so that a NaN fails
        if mean - min(error, most) <= most:
            return None, metrics
        return (
            f"KL to {other} is {mean:.3f} ± {error:.3f} nats an id on {len(found)} held-out turns, "
            f"guards.max_{name} allows {most:g}"
        ), metrics


@torch.no_grad()
def _looked_at(
    weights: Weights, trainer: Trainer, rows: Mapping[str, Row], known: Mapping[str, Outline]
) -> tuple[dict[str, Outline], dict[str, float]]:
    """One pass: the outlines of the rows, and of those with a known one the divergence from it."""
    if not rows:
        return {}, {}
    lengths = [len(row.positions) for row in rows.values()]
    micros = weights.pack(list(rows.values()), max_tokens=trainer.recipe.batch.micro_tokens)
    hidden = torch.split(weights.hidden(micros, sum(lengths)), lengths)
    head = weights.head()
    outlines, divergences = {}, {}
    for turn_id, here in zip(rows, hidden, strict=True):
        old = known.get(turn_id)
        streams = (here, None if old is None else old.ids, None if old is None else old.logprobs)
        found = per_position(partial(_outlined, head), streams, chunk_size=chunk_rows(len(head)))
        outlines[turn_id] = Outline(ids=found["ids"], logprobs=found["logprobs"])
        if old is not None:
            divergences[turn_id] = float(found["divergence"].mean())
    return outlines, divergences


def _outlined(head: Tensor, hidden: Tensor, ids: Tensor | None, logprobs: Tensor | None) -> Outputs:
    """The outline of [n, H] positions, and where an old one is given, [n] the divergence from it."""
    new = (hidden @ head.T).float().log_softmax(-1)
    top = new.topk(min(NUM_TOP, new.shape[-1]))
    found = {"ids": top.indices, "logprobs": top.values}
    if ids is not None and logprobs is not None:
        found["divergence"] = divergence(new, Outline(ids=ids, logprobs=logprobs))
    return found


def divergence(logprobs: Tensor, old: Outline) -> Tensor:
    """[T] KL(new || old) over the old version's likeliest ids and all others as one, in nats.

    Args:
        logprobs: [T, V] of the new version.
        old: at the same positions.
    """
    new = logprobs.gather(1, old.ids)
    inside = (new.exp() * (new - old.logprobs)).sum(-1)
    if old.ids.shape[1] == logprobs.shape[1]:
        return inside
    rest, was = (1.0 - part.double().exp().sum(-1) for part in (new, old.logprobs))
    rest, was = rest.clamp(min=SMALLEST), was.clamp(min=SMALLEST)
    return inside + (rest * (rest / was).log()).to(inside)


def unmeasured(metrics: Mapping[str, float], guards: GuardsConfig) -> Sequence[str]:
    """Which budgets bind nothing, because the probe of a version's gate held too little."""
    bounds = {"kl_update": guards.max_kl_update, "kl_base": guards.max_kl_base, "probe_fall": guards.max_fall}
    return [name for name, most in bounds.items() if most and name not in metrics]
