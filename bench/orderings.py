"""Which method needs fewer turns than another, as far as seeds tell them apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.curves import Group, chosen, interval, turns_to
from bench.jobs import Row
from bench.significance import LEVEL, holm, p_value

FAMILY = "reachable"
Pair = tuple[Group, Group]
"""Who needs fewer turns, and who more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """By what factor another method needs at least more turns to 0.8 of the reachable family, seed by seed."""

    mean: float
    low: float
    high: float
    p: float
    """Of the factor being 1."""

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


def factor(own: Sequence[Row], other: Sequence[Row]) -> Factor | None:
    """How many times as many turns the other needs at least: the last point at which it was not there yet over the
    first at which the own method was. Points lie apart, so equal quotients leave a doubt of the width between them.

    None with fewer than two common seeds, where the own method did not get there, or where either was there from the
    start or the other at its first point.
    """
    theirs = {row["seed"]: row for row in other}
    logs, widths = [], []
    for row in own:
        if row["seed"] not in theirs:
            continue
        mine, their = (turns_to(each, FAMILY) for each in (row, theirs[row["seed"]]))
        if math.isinf(mine.by) or mine.by == 0 or their.after == 0:
            return None
        logs.append(math.log(their.after / mine.by))
        widths.append(math.log(mine.by / max(mine.after, 1.0)))
    if len(logs) < 2:
        return None
    # Of a value that is equally likely anywhere between two points.
    spread = max(widths) / math.sqrt(12)
    mean, low, high = map(math.exp, interval(logs, spread))
    return Factor(mean=mean, low=low, high=high, p=p_value(logs, spread))


def orderings(found: Sequence[Row]) -> str:
    """For each method those that need more turns on the reachable family, as far as seeds tell them apart when all
    pairs of methods are compared (Holm). An arm with fewer seeds than others is not put in order: what it cannot show
    would only make it harder for the others to."""
    groups = chosen(found)
    most = max(map(len, groups.values()), default=0)
    groups = {name: rows for name, rows in groups.items() if len(rows) == most}
    factors: dict[Pair, Factor] = {}
    p_values: dict[frozenset[Group], float] = {}
    for one, two in itertools.combinations((name for name in groups if not _is_given(groups[name])), 2):
        if one[1] != two[1]:
            continue
        # A pair that no factor speaks of was compared all the same.
        p_values[frozenset((one, two))] = 1.0
        for pair in ((one, two), (two, one)):
            known = factor(groups[pair[0]], groups[pair[1]])
            if known is not None and known.mean > 1:
                factors[pair] = known
                p_values[frozenset(pair)] = known.p
    apart = holm(p_values)
    lines = []
    for own in groups:
        slower = [
            f"{other[0]} {known}"
            for (first, other), known in factors.items()
            if first == own and frozenset((own, other)) in apart
        ]
        if slower:
            lines.append(f"- {own[0]}, {own[1]:,} turns, {most} seeds: {'; '.join(slower)}")
    if not lines:
        return ""
    head = (
        "Turns to .8 of the reachable family: how many times as many others need at least (95 % interval, paired by "
        f"seed). Of {len(p_values)} comparisons {len(apart)} hold together (Holm, level {LEVEL:g}):"
    )
    return "\n".join([head, "", *lines])


def _is_given(own: Sequence[Row]) -> bool:
    """Whether an arm is good from the start, so that there is nothing to compare."""
    return all(turns_to(row, FAMILY).by == 0 for row in own)
