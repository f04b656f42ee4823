"""Small statistics for reports: intervals and percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of successes with its 95 % Wilson interval (E. B. Wilson, JASA 22, 1927)."""

    success: float
    low: float
    high: float
    num_tasks: int

    def as_dict(self) -> dict[str, float | int]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def share(num_successes: int, num_tasks: int, z: float = 1.959964) -> Share:
    """The share of successes and its Wilson interval; with no task it is 0 in [0, 1]."""
    if num_tasks == 0:
        return Share(success=0.0, low=0.0, high=1.0, num_tasks=0)
    p, n = num_successes / num_tasks, num_tasks
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Share(success=p, low=max(0.0, centre - half), high=min(1.0, centre + half), num_tasks=n)


def percentile(values: Sequence[float], q: float) -> float | None:
    """The smallest value that at least the share `q` of the values does not exceed; None for no values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(q * len(ordered)) - 1))]


def p50_p95(values: Sequence[float], digits: int = 1) -> dict[str, float | None]:
    """The median and the 95th percentile, rounded."""
    found = {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95)}
    return {name: None if value is None else round(value, digits) for name, value in found.items()}
