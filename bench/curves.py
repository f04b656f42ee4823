"""What is read off the rows of `bench.learning`: by which point 0.8 is reached, what is forgotten, tables and curves.

Rows alone are read, so whatever is there can be drawn at any time. The table shows every learning rate that was tried;
of several, curves and orderings take that of the highest mean success at the end. Bands are Student's 95 % intervals
over seeds.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.jobs import Row
from bench.methods import METHODS

FAMILIES = ("unknown", "reachable")
GOOD = 0.8
STROKES = ("-", "--", ":")
NUM_COLOURS = 10
"""Of matplotlib's cycle: the next ten curves have another stroke."""
WHY_UNKNOWN = (
    "Orderings are claimed on the reachable family alone. The names of the unknown one have probability near 0 before "
    "learning: a method that is bound to the policy's own samples never draws them, so it cannot move there, however "
    "good it is."
)
Group = tuple[str, int]
"""A method and its number of turns."""

T_95 = {
    2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262, 11: 2.228, 12: 2.201,
    13: 2.179, 14: 2.160, 15: 2.145, 16: 2.131, 17: 2.120, 18: 2.110, 19: 2.101, 20: 2.093,
}  # fmt: skip
"""Student's t at 97.5 %, by the number of seeds; of more than twenty that of twenty, which is a little wide."""


def best_rate(found: Sequence[Row], method: str, turns: int) -> float | None:
    """The learning rate with the highest mean success of both families at the end (many reach 1 on one of them at any
    rate), over the seeds that all rates have: a bench that was stopped has run one of them on more houses than the
    other. Without any the most seeds win."""
    ends: dict[float, dict[int, float]] = {}
    for row in found:
        if (row["method"], row["turns"]) == (method, turns):
            last = row["points"][-1]
            ends.setdefault(row["rate"], {})[row["seed"]] = statistics.fmean(last[name] for name in FAMILIES)
    if not ends:
        return None
    common = set.intersection(*(set(by_seed) for by_seed in ends.values()))
    if not common:
        return max(ends, key=lambda rate: len(ends[rate]))
    return max(ends, key=lambda rate: statistics.fmean(ends[rate][seed] for seed in sorted(common)))


def chosen(found: Sequence[Row]) -> dict[Group, list[Row]]:
    """The rows of each method and number of turns at its best learning rate, by seed."""
    return {
        (method, turns): rows
        for (method, turns, rate), rows in tried(found).items()
        if rate == best_rate(found, method, turns)
    }


def tried(found: Sequence[Row]) -> dict[tuple[str, int, float], list[Row]]:
    """The rows of each method, number of turns and learning rate, by seed."""
    groups: dict[tuple[str, int, float], list[Row]] = {}
    for row in sorted(
        found, key=lambda row: (row["turns"], list(METHODS).index(row["method"]), -row["rate"])
    ):
        groups.setdefault((row["method"], row["turns"], row["rate"]), []).append(row)
    return {key: sorted(rows, key=lambda row: int(row["seed"])) for key, rows in groups.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Between which points a curve first reaches a share: nobody knows more than that."""

    after: float
    """Turns at the last point below it; 0 where it was there from the start."""
    by: float
    """At the first point that is not; inf where there is none."""


def turns_to(row: Row, name: str, share: float = GOOD, since: int = 0) -> Reached:
    """Turns, from `since` on, at which the curve first reaches the share."""
    # The last point of that moment: where rules change it is measured by the new ones.
    start = max(place for place, point in enumerate(row["points"]) if point["turns"] <= since)
    after = float(since)
    for point in row["points"][start:]:
        if point[name] >= share:
            return Reached(after=after - since, by=float(point["turns"] - since))
        after = float(point["turns"])
    return Reached(after=after - since, by=math.inf)


def interval(values: Sequence[float], least_spread: float = 0.0) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds (Student's t); with one seed the interval is all numbers.

    Args:
        values: one a seed.
        least_spread: standard deviation below which equal values say nothing, being coarse.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    spread = max(statistics.stdev(values), least_spread)
    half = T_95[min(len(values), max(T_95))] * spread / math.sqrt(len(values))
    return mean, mean - half, mean + half


def band(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds, within [0, 1]; with one seed the interval is [0, 1]."""
    mean, low, high = interval(values)
    return mean, max(0.0, low), min(1.0, high)


def shown_share(values: Sequence[float]) -> str:
    mean, low, high = band(values)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def shown_turns(found: Sequence[Reached]) -> str:
    """The points by which all seeds got there, the median one first; how many never did."""
    by = sorted(one.by for one in found)
    there = [turns for turns in by if not math.isinf(turns)]
    if not there:
        return "never"
    middle = statistics.median_high(by)
    said = "never" if math.isinf(middle) else f"{middle:,.0f}"
    if len(there) < len(by):
        return f"{said} ({len(by) - len(there)} of {len(by)} never)"
    return said if there[0] == there[-1] else f"{said} ({there[0]:,.0f} to {there[-1]:,.0f})"


def table(found: Sequence[Row]) -> str:
    """A Markdown table: success at the end and the point by which each family reached 0.8 (median and range of the
    seeds); every learning rate that was tried, the one that stands for its method marked."""
    lines = [
        "| method | turns | rate | seeds | reachable at the end | turns to .8 | unknown at the end | turns to .8 |",
        "|---|---:|---|---:|---|---|---|---|",
    ]
    best = chosen(found)
    for (method, turns, rate), own in tried(found).items():
        mark = " *" if own == best[method, turns] else ""
        cells = [method, f"{turns:,}", f"{rate:g}{mark}", str(len(own))]
        for family in reversed(FAMILIES):
            cells += [
                shown_share([row["points"][-1][family] for row in own]),
                shown_turns([turns_to(row, family) for row in own]),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", WHY_UNKNOWN])


def _under(head: str, rule: str, lines: Sequence[str]) -> str:
    """A Markdown table; nothing where it would have no row."""
    return "\n".join([head, rule, *lines]) if lines else ""


def _means(own: Sequence[Row], read: Callable[[Row], float]) -> str:
    return shown_share([read(row) for row in own])


def misled(found: Sequence[Row]) -> str:
    """How far wrong hints are believed: the share of first commands that are what the house wrongly names."""
    lines = []
    for (method, turns), own in chosen(found).items():
        if "misled" not in own[0]["points"][-1]:
            continue
        for family in reversed(FAMILIES):
            before, after = (
                _means(own, lambda row, at=at, f=family: row["points"][at]["misled"][f])  # type: ignore[misc]
                for at in (0, -1)
            )
            right = [_means(own, lambda row, at=at, f=family: row["points"][at][f]) for at in (0, -1)]  # type: ignore[misc]
            lines.append(
                f"| {method} | {turns:,} | {len(own)} | {family} | {before} | {after} | {right[0]} | {right[1]} |"
            )
    head = "| arm | turns | seeds | family | wrong name first, before | after | success before | after |"
    return _under(head, "|---|---:|---:|---|---|---|---|---|", lines)


def change_of(row: Row) -> int:
    """The turn at which the rules changed: its point stands twice."""
    turns = [int(point["turns"]) for point in row["points"]]
    return next(before for before, after in itertools.pairwise(turns) if before == after)


def recovered(found: Sequence[Row]) -> str:
    """What a change of half of the rules does: turns until the changed ones stand at 0.8 again, and what the others
    lose meanwhile."""
    lines = []
    for (method, turns), own in chosen(found).items():
        if "changed" not in own[0]["points"][-1]:
            continue
        changes = [change_of(row) for row in own]
        back = [turns_to(row, "changed", since=change) for row, change in zip(own, changes, strict=True)]
        before, least, end = [], [], []
        for row, change in zip(own, changes, strict=True):
            later = [point["unchanged"] for point in row["points"] if point["turns"] >= change]
            before.append(later[0])
            least.append(min(later))
            end.append(later[-1])
        lines.append(
            f"| {method} | {changes[0]:,} of {turns:,} | {len(own)} | {shown_turns(back)} | "
            f"{_means(own, lambda row: row['points'][-1]['changed'])} | {shown_share(before)} | "
            f"{shown_share(least)} | {shown_share(end)} |"
        )
    head = (
        "| arm | changed after | seeds | turns to .8 of the changed | changed, end | unchanged at the change | "
        "lowest since | end |"
    )
    return _under(head, "|---|---|---:|---|---|---|---|---|", lines)


def long_runs(found: Sequence[Row]) -> str:
    """Whether anything collapses: success at its best and at the end, entropy and length of the answers to agents."""
    lines = []
    for (method, turns), own in chosen(found).items():
        if "entropy" not in own[0]["points"][-1]:
            continue
        cells = [method, f"{turns:,}", str(len(own))]
        for family in reversed(FAMILIES):
            cells.append(_means(own, lambda row, f=family: max(point[f] for point in row["points"])))  # type: ignore[misc]
            cells.append(_means(own, lambda row, f=family: row["points"][-1][f]))  # type: ignore[misc]
        for name, digits in (("entropy", 3), ("length", 1)):
            curves = [[point[name] for point in row["points"] if name in point] for row in own]
            first, last = (statistics.fmean(curve[place] for curve in curves) for place in (0, -1))
            cells.append(f"{first:.{digits}f} to {last:.{digits}f}")
        lines.append(f"| {' | '.join(cells)} |")
    head = (
        "| method | turns | seeds | reachable, best | end | unknown, best | end | nats an id, first to last part | "
        "ids a turn |"
    )
    return _under(head, "|---|---:|---:|---|---|---|---|---|---|", lines)


def forgotten(found: Sequence[Row]) -> str:
    """What the last version can do of what version 0 could, means over seeds."""
    groups = {
        group: own
        for group, rows in chosen(found).items()
        if (own := [row for row in rows if "after" in row.get("kept", {})])
    }
    if not groups:
        return ""
    names = list(next(iter(groups.values()))[0]["kept"]["after"])

    def cells(own: Sequence[Row], when: str) -> str:
        return " | ".join(f"{statistics.fmean(row['kept'][when][name] for row in own):.2f}" for name in names)

    lines = [
        f"| kept | turns | seeds | {' | '.join(names)} |",
        f"|---|---:|---:|{'---|' * len(names)}",
        f"| version 0 | 0 | | {cells([row for own in groups.values() for row in own], 'before')} |",
    ]
    lines += [
        f"| {method} | {turns:,} | {len(own)} | {cells(own, 'after')} |"
        for (method, turns), own in groups.items()
    ]
    return "\n".join(lines)


def tables(found: Sequence[Row]) -> str:
    """Everything that the rows that are there can tell."""
    parts = (table, misled, recovered, long_runs, forgotten)
    return "\n\n".join(said for part in parts if (said := part(found)))


def draw(found: Sequence[Row], path: Path) -> None:
    """Success over turns with 95 % bands over seeds, at the points that all seeds have: one column a family; one row
    for each number of turns, and within it one for the methods with the most seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = chosen(found)
    most = max(map(len, groups.values()), default=0)
    # Arms with fewer seeds have panels of their own: nothing is ordered there.
    lines = sorted(
        {(turns, len(own) == most) for (_, turns), own in groups.items()},
        key=lambda line: (line[0], not line[1]),
    )
    figure, panels = pyplot.subplots(
        len(lines), len(FAMILIES), figsize=(14, 4.5 * len(lines)), sharey=True, squeeze=False
    )
    for line_of_panels, (length, is_core) in zip(panels, lines, strict=True):
        for panel, family in zip(line_of_panels, reversed(FAMILIES), strict=True):
            for (method, turns), own in groups.items():
                if (turns, len(own) == most) != (length, is_core):
                    continue
                curves = [
                    {(point["turns"], point.get("after", True)): point[family] for point in row["points"]}
                    for row in own
                ]
                places = sorted(set.intersection(*map(set, curves)))
                at = [place[0] for place in places]
                bands = [band([curve[place] for curve in curves]) for place in places]
                dashes = STROKES[len(panel.lines) // NUM_COLOURS % len(STROKES)]
                means = [mean for mean, _, _ in bands]
                (line,) = panel.plot(at, means, dashes, label=f"{method} ({len(own)})")
                if len(own) > 1:
                    panel.fill_between(
                        at, [b[1] for b in bands], [b[2] for b in bands], alpha=0.12, color=line.get_color()
                    )
            panel.set_title(family if family == "reachable" else "unknown: no orderings here, see below")
            panel.set_xlabel("turns")
            panel.set_ylim(0, 1.02)
        line_of_panels[0].set_ylabel("first-try success, held out")
        line_of_panels[-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.text(0.01, 0.005, WHY_UNKNOWN, fontsize=7, wrap=True)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
