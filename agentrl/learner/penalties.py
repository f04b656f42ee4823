"""How much penalties may weigh beside praise, where a reward is the advantage itself.

    A'_t = A_t            where A_t >= 0
           A_t · min(1, most · praise / penalties)   elsewhere

with praise and penalties the sums of w·A and w·|A| over an update. A policy that is only told what was wrong takes
the mass from there to whatever nobody judges: a reply in the place of work, a question, a call that cannot fail. At
`most` = 1 an update takes away no more than it gives. Where nothing is praised a sample that has a reward alone has
nothing left to teach, and is left out: a step of such samples would move the weights by what is left of earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agentrl.types import TrainingSample


def bounded(
    samples: Sequence[TrainingSample], most: float, mass: Callable[[TrainingSample], float]
) -> tuple[list[TrainingSample], float]:
    """The samples of an update with their penalties bounded, and the factor that these have now.

    Args:
        most: that penalties may weigh for each unit of praise.
        mass: what a sample weighs in the loss.
    """
    praise, penalties = (sum(mass(one) * _mean(one, sign) for one in samples) for sign in (1.0, -1.0))
    if penalties <= most * praise:
        return list(samples), 1.0
    factor = most * praise / penalties
    return [_scaled(one, factor) for one in samples], factor


def without_praise(
    samples: Sequence[TrainingSample], *, uses_kd: bool
) -> tuple[list[TrainingSample], list[TrainingSample]]:
    """The samples that can teach, and of an update that praises nothing those that only a reward spoke of.

    Args:
        uses_kd: whether samples are distilled as well, those whose weights of that are not 0.
    """
    if any(_mean(one, 1.0) > 0 for one in samples):
        return list(samples), []
    kept: list[TrainingSample] = []
    idle: list[TrainingSample] = []
    for one in samples:
        is_taught = one.advantages is None or (uses_kd and any(one.weights.get("kd", (1.0,))))
        (kept if is_taught else idle).append(one)
    return kept, idle


def _mean(sample: TrainingSample, sign: float) -> float:
    """The mean weighted advantage of a sign over the trained ids."""
    if sample.advantages is None:
        return 0.0
    weights = sample.weights.get("rl", (1.0,) * len(sample.token_ids))
    found = [
        max(sign * advantage, 0.0) * weight
        for advantage, weight, is_trained in zip(sample.advantages, weights, sample.loss_mask, strict=True)
        if is_trained
    ]
    return sum(found) / max(len(found), 1)


def _scaled(sample: TrainingSample, factor: float) -> TrainingSample:
    if sample.advantages is None:
        return sample
    return replace(
        sample,
        advantages=tuple(factor * one if one < 0 else one for one in sample.advantages),
    )
