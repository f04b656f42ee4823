"""Is one arm better than the other? An interval that stays valid however often one looks at it.

Conversation i is drawn into the learning arm with a known probability π, A_i = 1, and ends with Y_i in [0, 1]. With m_i
from earlier conversations alone,

    Z_i = (A_i / π − (1 − A_i) / (1 − π)) · (Y_i − m_i)                E[Z_i | earlier] = effect of learning on i

is unbiased whatever m_i is, spreads little where m_i is near the mean, and is bounded. A bettor who starts with 1 and
stakes a share of his wealth on Z_i > δ gains nothing in the mean where the effect is at most δ: by Ville's inequality
his wealth ever reaches 1/α with probability at most α. So "the effect is at most δ, on every conversation" is refuted
when it has, however often one looked before, and the interval holds the effects that neither bettor, up or down, has
refuted. Nothing is supposed of the tasks: they may become harder or easier, for both arms alike. Where the effect
itself changes in time, as that of learning does, the interval speaks of one that stays. A lower bound above 0 says then
that learning helped some of the conversations up to now: the best of them, and not that it helps the latest.

Betting: I. Waudby-Smith and A. Ramdas, Estimating means of bounded random variables by betting, J. R. Stat. Soc. B
86(1), 2024, arXiv 2010.09686. Z_i and its use with betting: I. Waudby-Smith, L. Wu, A. Ramdas, N. Karampatziakis and
P. Mineiro, Anytime-valid off-policy inference for contextual bandits, arXiv 2210.10768.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STAKES: Final = (0.05, 0.1, 0.2, 0.3, 0.45, 0.65)
"""Shares of the largest stake that cannot ruin; the wealth is the mean of these bettors'. The best for an effect of
.05, .1, .2 and .4 of equal arms with outcomes of 0 and 1 are .06, .13, .26 and .54."""
ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Z of conversations in the order in which they began."""

    values: Floats
    """[N] unbiased for the effect on each conversation."""
    lows: Floats
    """[N] bounds that were known before the value: low <= value <= high."""
    highs: Floats
    """[N]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    effect: float
    """The mean of Z, which few conversations may carry beyond the bounds and which is then the nearer one; 0 without
    conversations."""
    low: float
    high: float


def differences(learning: Sequence[bool], outcomes: Sequence[float], share: float) -> Differences:
    """Z of every conversation.

    Args:
        learning: [N] whether it was in the learning arm.
        outcomes: [N] in [0, 1].
        share: π, the probability of the learning arm, in (0, 1).

    Raises:
        ValueError: a number is out of its range, or the lengths differ.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of an arm is {share:g}; there is a comparison only between 0 and 1")
    values, lows, highs = [], [], []
    sums, counts = [0.5, 0.5], [1.0, 1.0]
    for in_learning, outcome in zip(learning, outcomes, strict=True):
        if not 0 <= outcome <= 1:
            raise ValueError(f"an outcome is {outcome:g}; it must be in [0, 1]")
        # the m that makes Z spread least where both arms are known; it looks at earlier conversations alone
        middle = (1 - share) * sums[1] / counts[1] + share * sums[0] / counts[0]
        values.append((outcome - middle) / share if in_learning else -(outcome - middle) / (1 - share))
        lows.append(-max(middle / share, (1 - middle) / (1 - share)))
        highs.append(max((1 - middle) / share, middle / (1 - share)))
        sums[in_learning] += outcome
        counts[in_learning] += 1
    return Differences(values=np.array(values), lows=np.array(lows), highs=np.array(highs))


def log_wealth(values: Floats, lows: Floats, effect: float) -> Floats:
    """[N] log of the wealth after each value of who bets that the mean effect is above `effect`.

    log( 1/K Σ_k Π_i (1 + f_k (z_i − δ) / (δ − low_i)) ); never negative wealth, as z_i >= low_i. At most 1 in the mean,
    at any time, where each value has a mean of at most δ.
    """
    shares = np.array(STAKES)
    gains = ((values - effect) / (effect - lows))[:, None] * shares
    logs = np.cumsum(np.log1p(gains), axis=0)
    peak = logs.max(axis=1, keepdims=True) if len(logs) else logs[:, :1]
    found: Floats = (peak + np.log(np.exp(logs - peak).mean(axis=1, keepdims=True)))[:, 0]
    return found


def interval(found: Differences, alpha: float = ALPHA) -> Interval:
    """The effects that are not refuted now, α/2 on either side; [-1, 1] without conversations."""
    if not len(found.values):
        return Interval(effect=0.0, low=-1.0, high=1.0)
    low = _bound(found.values, found.lows, alpha / 2)
    high = -_bound(-found.values, -found.highs, alpha / 2)
    return Interval(effect=min(max(float(found.values.mean()), low), high), low=low, high=high)


def _bound(values: Floats, lows: Floats, alpha: float) -> float:
    """The largest effect that is refuted as too small; the wealth falls with the effect that is bet against."""
    refuted, kept = -1.0, 1.0
    if float(log_wealth(values, lows, refuted + 1e-9)[-1]) < -math.log(alpha):
        return refuted
    for _ in range(40):
        middle = (refuted + kept) / 2
        if float(log_wealth(values, lows, middle)[-1]) >= -math.log(alpha):
            refuted = middle
        else:
            kept = middle
    return refuted
