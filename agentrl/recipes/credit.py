"""Advantages of rewards, group by group. None is a turn that was not judged: it gets no advantage (law 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

Rewards = Sequence[float | None]
Advantages = list[float | None]
Steps = Sequence[int]
Std = Literal["population", "sample", "none"]


class Named(Protocol):
    """The advantage axis of a recipe."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> dict[str, Any]: ...


def advantages(option: Named, rewards: Rewards, steps: Sequence[int] | None = None) -> Advantages:
    """One advantage for each turn of a group; on live traffic a group is one turn.

    Args:
        option: a recipe's advantage axis. One that looks at the whole batch begins with those of its base.
        rewards: of the group's turns; None where a turn was not judged.
        steps: how many turns of its episode came before each; None = none.

    Returns:
        As many entries; None where there is nothing to learn from. Turns that were not judged do not enter the mean
        or the standard deviation either.
    """
    base = option.params.get("base")
    if base is not None:
        return advantages(base, rewards, steps)
    counted = [0] * len(rewards) if steps is None else steps
    if len(counted) != len(rewards):
        raise ValueError(f"{len(counted)} steps for {len(rewards)} rewards")
    function = ADVANTAGES.get(option.name)
    if function is None:  # it looks at the whole batch, and makes its advantages there
        return raw(rewards, counted)
    return function(rewards, counted, **option.params)


def none(rewards: Rewards, steps: Steps) -> Advantages:
    """Rewards are not used."""
    del steps
    return [None] * len(rewards)


def raw(
    rewards: Rewards, steps: Steps, *, outcome: float | None = None, process: float | None = None
) -> Advantages:
    """A = r.

    Args:
        rewards: with weights from `step_reward`.
        steps: not used.
        outcome, process: not used: the rewards hold them.
    """
    del steps, outcome, process
    return list(rewards)


def group(rewards: Rewards, steps: Steps, *, std: Std, eps: float) -> Advantages:
    """A = (r − mean) / (std + eps); std "none": A = r − mean.

    GRPO, arXiv 2402.03300; without std, Dr. GRPO, arXiv 2503.20783. Sums to 0; constant groups give 0. A single judged
    turn has nothing to be compared with: None.

    Args:
        rewards: of one group.
        steps: not used.
        std: over n ("population"), over n − 1 ("sample"), or not divided by.
        eps: added to the standard deviation.
    """
    del steps
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


def loo(rewards: Rewards, steps: Steps) -> Advantages:
    """A = r − mean of the other judged turns = n/(n−1)·(r − mean). RLOO, arXiv 2402.14740. A single one: None."""
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2:
        return [None] * len(rewards)
    centred = group(rewards, steps, std="none", eps=0.0)
    factor = len(known) / (len(known) - 1)
    return [None if value is None else factor * value for value in centred]


def step_index_group(
    rewards: Rewards, steps: Steps, *, std: Std, eps: float, outcome: float, process: float
) -> Advantages:
    """`group` among the turns of equal step index. OpenClaw-RL, arXiv 2603.10165. An index with one judged turn: None.

    Args:
        rewards: of one group's turns, from `step_reward`.
        steps: each turn's index in its episode.
        std, eps: as of `group`.
        outcome, process: not used: the rewards hold them.
    """
    del outcome, process
    result: Advantages = [None] * len(rewards)
    for step in set(steps):
        members = [index for index, own in enumerate(steps) if own == step]
        values = group([rewards[index] for index in members], [step] * len(members), std=std, eps=eps)
        for index, value in zip(members, values, strict=True):
            result[index] = value
    return result


def step_reward(ended: float | None, own: float | None, *, outcome: float, process: float) -> float | None:
    """outcome·R + process·r: how the episode ended and how its turn was judged, as far as they are known (law 6).

    A weight of 0 takes its part out, known or not: with process = 0 the result is outcome·R bit for bit.

    Args:
        ended: R, of the episode.
        own: r, of the turn.
        outcome, process: the weights.
    """
    parts = [
        weight * reward
        for weight, reward in ((outcome, ended), (process, own))
        if weight and reward is not None
    ]
    return math.fsum(parts) if parts else None


def first_turn(rewards: Rewards, steps: Steps) -> Advantages:
    """A = R(y_1) − mean R(y_0) for second answers, None for first ones. RLTF, arXiv 2602.02482.

    Not 0 where all second answers are right, unlike `group`: then the critique helped. Without a judged first answer
    there is nothing to compare with: None.
    """
    first = [reward for reward, step in zip(rewards, steps, strict=True) if step == 0 and reward is not None]
    if not first:
        return [None] * len(rewards)
    mean = math.fsum(first) / len(first)
    return [
        None if reward is None or step == 0 else reward - mean
        for reward, step in zip(rewards, steps, strict=True)
    ]


def positive_only(rewards: Rewards, steps: Steps, *, std: Std, eps: float) -> Advantages:
    """`group` where it is above 0, else None."""
    values = group(rewards, steps, std=std, eps=eps)
    return [value if value is not None and value > 0 else None for value in values]


ADVANTAGES: dict[str, Callable[..., Advantages]] = {
    "none": none,
    "raw": raw,
    "group": group,
    "loo": loo,
    "step_index_group": step_index_group,
    "first_turn": first_turn,
    "positive_only": positive_only,
}
BY_STEP = frozenset({"step_index_group", "first_turn"})
"""Those that tell the turns of one episode apart; all others count an episode once."""
