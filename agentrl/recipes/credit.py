"""Advantages of rewards, group by group. None is a turn that was not judged: it gets no advantage (law 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

Rewards = Sequence[float | None]
Advantages = list[float | None]


class Named(Protocol):
    """The advantage axis of a recipe."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> dict[str, Any]: ...


def advantages(option: Named, rewards: Rewards) -> Advantages:
    """One advantage for each turn of a group; on live traffic a group is one turn.

    Args:
        option: a recipe's advantage axis.
        rewards: of the group's turns; None where a turn was not judged.

    Returns:
        As many entries; None where there is nothing to learn from. Turns that were not judged do not enter the mean
        or the standard deviation either.
    """
    return ADVANTAGES[option.name](rewards, **option.params)


def none(rewards: Rewards) -> Advantages:
    """Rewards are not used."""
    return [None] * len(rewards)


def raw(rewards: Rewards) -> Advantages:
    """A = r."""
    return list(rewards)


def group(rewards: Rewards, *, std: Literal["population", "sample", "none"], eps: float) -> Advantages:
    """A = (r − mean) / (std + eps); std "none": A = r − mean.

    GRPO, arXiv 2402.03300; without std, Dr. GRPO, arXiv 2503.20783. Sums to 0; constant groups give 0. A single judged
    turn has nothing to be compared with: None.

    Args:
        rewards: of one group.
        std: over n ("population"), over n − 1 ("sample"), or not divided by.
        eps: added to the standard deviation.
    """
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2:
        return [None] * len(rewards)
    if min(known) == max(known):
        # Exactly: the mean of equal numbers may differ from them in the last digit, and rounding over rounding is ±1.
        return [None if reward is None else 0.0 for reward in rewards]
    mean = math.fsum(known) / len(known)
    scale = 1.0
    if std != "none":
        squares = math.fsum((reward - mean) ** 2 for reward in known)
        scale = math.sqrt(squares / (len(known) - (std == "sample"))) + eps
    return [None if reward is None else (reward - mean) / scale for reward in rewards]


def loo(rewards: Rewards) -> Advantages:
    """A = r − mean of the other judged turns = n/(n−1)·(r − mean). RLOO, arXiv 2402.14740. A single one: None."""
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2:
        return [None] * len(rewards)
    centred = group(rewards, std="none", eps=0.0)
    factor = len(known) / (len(known) - 1)
    return [None if value is None else factor * value for value in centred]


ADVANTAGES: dict[str, Callable[..., Advantages]] = {
    "none": none,
    "raw": raw,
    "group": group,
    "loo": loo,
}
