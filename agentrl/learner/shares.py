"""Weights under which no owner has more than its share of an update. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

MAX_ROUNDS = 50
"""Of fulfilling several caps in turn; where they can all be held, few are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """One bound: of `owners`, none may have more than `share` of the whole."""

    owners: Sequence[Hashable]
    """[S] the owner of each sample."""
    share: float

    @property
    def most(self) -> float:
        """The share that can be held: of n owners one always has the n-th part or more."""
        return max(self.share, 1.0 / max(len(set(self.owners)), 1))


def capped(masses: Sequence[float], caps: Sequence[Cap]) -> list[float]:
    """[S] factors in (0, 1] under which every owner's part of Σ factor·mass is within each cap.

    The parts that are too large are scaled down together, the others stay as they are: with L of the m largest owners
    and R of the rest, each of the m gets c·R / (1 − m·c), so that it is c of the new whole.

    Caps that exclude each other (a session with a cap of .4 that is all there is of a key with one of .5) are fulfilled
    once each, in their order, so that the last one holds.

    Args:
        masses: [S] what each sample weighs in the update.
        caps: a cap whose share is below 1/n of its n owners counts as 1/n.

    Raises:
        ValueError: an owner is missing.
    """
    for cap in caps:
        if len(cap.owners) != len(masses):
            raise ValueError(f"{len(cap.owners)} owners for {len(masses)} samples")
    once = factors = _round([1.0] * len(masses), masses, caps)
    for _ in range(MAX_ROUNDS):
        before, factors = factors, _round(factors, masses, caps)
        if all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(before, factors, strict=True)):
            return factors
    return once


def _round(factors: Sequence[float], masses: Sequence[float], caps: Sequence[Cap]) -> list[float]:
    """The factors after each cap was fulfilled once."""
    result = list(factors)
    for cap in caps:
        totals: dict[Hashable, float] = {}
        for owner, factor, mass in zip(cap.owners, result, masses, strict=True):
            totals[owner] = totals.get(owner, 0.0) + factor * mass
        scales = _scales(totals, cap.most)
        result = [factor * scales[owner] for owner, factor in zip(cap.owners, result, strict=True)]
    return result


def _scales(totals: Mapping[Hashable, float], share: float) -> dict[Hashable, float]:
    """By owner the factor of its total."""
    order = sorted((owner for owner in totals if totals[owner] > 0), key=lambda owner: -totals[owner])
    scales: dict[Hashable, float] = dict.fromkeys(totals, 1.0)
    if len(order) < 2:
        return scales
    for num_large in range(len(order)):
        rest = sum(totals[owner] for owner in order[num_large:])
        room = 1.0 - num_large * share
        # with exactly 1/n for each of n owners all become as small as the smallest
        whole = rest / room if room > 1e-9 else len(order) * totals[order[-1]]
        if totals[order[num_large]] <= share * whole * (1 + 1e-12):
            for owner in order[:num_large]:
                scales[owner] = share * whole / totals[owner]
            break
    return scales
