"""UCB1: which of several skills to teach with, by what became of them. Auer et al. 2002, as in Skill-SD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

EXPLORATION = math.sqrt(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What is known of one skill for one task."""

    name: str
    num_selected: int
    mean_reward: float | None
    """None where no reward is known yet; never taken for 0."""


def ucb1(arms: Sequence[Arm], exploration: float = EXPLORATION) -> list[float]:
    """[A] the score of each of A arms.

        score(e) = r(e) + c sqrt(ln N / n(e))      infinite where n(e) = 0

    An arm whose reward is not known has the mean of those that are, so it is chosen by its count alone.

    Args:
        arms: n(e) and r(e) of each; N is the sum of n(e).
        exploration: c; the larger, the more evenly the arms are chosen.
    """
    total = sum(arm.num_selected for arm in arms)
    known = [arm.mean_reward for arm in arms if arm.mean_reward is not None]
    neutral = math.fsum(known) / len(known) if known else 0.0
    return [
        math.inf
        if arm.num_selected == 0
        else (neutral if arm.mean_reward is None else arm.mean_reward)
        + exploration * math.sqrt(math.log(total) / arm.num_selected)
        for arm in arms
    ]


def choose(arms: Sequence[Arm], exploration: float = EXPLORATION) -> Arm | None:
    """The arm of the highest score, of equals the first; None of no arms."""
    scores = ucb1(arms, exploration)
    return arms[scores.index(max(scores))] if arms else None
