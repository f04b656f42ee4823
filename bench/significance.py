"""Which of many paired comparisons are told apart: Student's t, with the level shared among all of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

LEVEL = 0.05
Key = TypeVar("Key", bound=Hashable)


def p_value(differences: Sequence[float], least_spread: float = 0.0) -> float:
    """Two-sided, of the mean of paired differences being 0 (Student's t).

    Args:
        differences: at least two; equal ones leave no doubt, unless they are 0.
        least_spread: standard deviation that is assumed at least, where differences are coarse.
    """
    mean, spread = statistics.fmean(differences), max(statistics.stdev(differences), least_spread)
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    return tail(mean / (spread / math.sqrt(len(differences))), len(differences) - 1)


def tail(t: float, num_free: int) -> float:
    """P(|T| > |t|) of Student's distribution with a whole number of degrees of freedom, as the finite series of
    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    angle = math.atan(abs(t) / math.sqrt(num_free))
    is_odd = num_free % 2 == 1
    term = math.cos(angle) if is_odd else 1.0
    series = 0.0
    for power in range(1 if is_odd else 0, num_free - 1, 2):
        series += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    inside = math.sin(angle) * series
    return max(0.0, 1.0 - (2 / math.pi * (angle + inside) if is_odd else inside))


def holm(p_values: Mapping[Key, float], level: float = LEVEL) -> set[Key]:
    """The comparisons that hold together: with probability 1 - level none of them is an error (S. Holm, Scandinavian
    Journal of Statistics 6, 1979)."""
    held: set[Key] = set()
    for place, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p > level / (len(p_values) - place):
            break
        held.add(key)
    return held
