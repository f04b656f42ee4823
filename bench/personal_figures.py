"""What a personalisation run says, from its rows. Pure functions of numbers; `bench.personalisation` makes the rows.

A habit is one preference of one user. Everything rests on first replies of fresh conversations, as the independent
grader saw them, without any hint in the prompt:

    acquired        from the first conversation on that, with the two behind it, meets the preference
    needed          corrections of the habit before that conversation; infinite where it was never acquired
    recurrence      share of the 50 conversations behind its third correction that do not meet it, or behind its last
                    where there were fewer
    to 0.8          conversations after which the held-out score (mean over the preferences) first was 0.8 or more
    held-out need   corrections of the habit until its held-out share first was 0.9 or more
    right after     the held-out share of the version that had learned from the habit's third correction, or its last
                    where there were fewer; no figure where nobody ever corrected it
    after three     the same, but a habit corrected less than three times counts with the last version measured

After at most three corrections a mistake is to be absent with probability .9: the mean over habits, by either reading.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from server.statistics import p50_p95

IN_A_ROW = 3
LATER = 50
GOOD = 0.8
ABSENT = 0.9
MAX_CORRECTIONS = 3
MAX_RECURRENCE = 0.05
MAX_NEEDED = 2
CONVERSATIONS, AIM = 48, 24

Row = dict[str, Any]
ARMS = {"learning": "learning", "none": "no learning", "prompt": "preference in the prompt"}


def acquired(met: Sequence[bool], in_a_row: int = IN_A_ROW) -> int | None:
    """The index of the first of `in_a_row` conversations that all meet the preference."""
    for index in range(len(met) - in_a_row + 1):
        if all(met[index : index + in_a_row]):
            return index
    return None


def needed(row: Row, axis: str) -> float:
    """Corrections before the habit was acquired."""
    start = acquired([talk["first"][axis] for talk in row["conversations"]])
    if start is None:
        return math.inf
    return float(sum(talk["corrections"].get(axis, 0) for talk in row["conversations"][:start]))


def settled(row: Row, axis: str) -> int:
    """Conversations up to the one that brought the habit's third correction, or its last where there were fewer."""
    told, end = 0, 0
    for number, talk in enumerate(row["conversations"], start=1):
        corrections = talk["corrections"].get(axis, 0)
        if corrections and told < MAX_CORRECTIONS:
            told, end = told + corrections, number
    return end


def later(row: Row, axis: str) -> list[bool]:
    """Whether the mistake recurred, in each of the conversations behind at most three corrections."""
    return [not talk["first"][axis] for talk in row["conversations"][settled(row, axis) :][:LATER]]


def score(point: Row, sampling: str = "sampled") -> float:
    """Share of the preferences that the first reply meets."""
    return statistics.fmean(point[sampling]["met"].values())


def to_good(row: Row, sampling: str = "sampled", good: float = GOOD) -> float:
    """Conversations after which the held-out score was first so high; inf where it never was."""
    reached = (point["conversations"] for point in row["points"] if score(point, sampling) >= good)
    return float(next(reached, math.inf))


def held_out_need(row: Row, axis: str) -> float:
    """Corrections until the habit was first kept on held-out tasks with probability .9."""
    for point in row["points"]:
        if point["sampled"]["met"][axis] >= ABSENT:
            return float(point["corrections"].get(axis, 0))
    return math.inf


def after_three(row: Row, axis: str) -> float:
    """The held-out share behind at most three corrections."""
    for point in row["points"]:
        if point["corrections"].get(axis, 0) >= MAX_CORRECTIONS:
            return float(point["sampled"]["met"][axis])
    return float(row["points"][-1]["sampled"]["met"][axis])


def right_after(row: Row, axis: str) -> float | None:
    """The same where no later conversation has helped: of the version right behind that correction. None where nobody
    ever corrected the habit."""
    end = settled(row, axis)
    behind = (point for point in row["points"] if 0 < end <= point["conversations"])
    return next((float(point["sampled"]["met"][axis]) for point in behind), None)


def habits_of(rows: Iterable[Row]) -> Iterator[tuple[Row, str]]:
    return ((row, axis) for row in rows for axis in row["preferences"])


def claims(found: Sequence[Row]) -> dict[str, tuple[str, bool | None]]:
    """Each claim with its figure, and whether it holds; None where nothing was run. Of the learning arm alone."""
    rows = [row for row in found if row["arm"] == "learning"]
    if not rows:
        return {}
    need = [needed(row, axis) for row, axis in habits_of(rows)]
    again = [one for row, axis in habits_of(rows) for one in later(row, axis)]
    reached = [to_good(row) for row in rows]
    three = [after_three(row, axis) for row, axis in habits_of(rows)]
    delays = p50_p95([value for row in rows for value in row["feedback_to_serving_s"]], digits=1)
    middle, recurred = statistics.median(need), statistics.fmean(again) if again else math.nan
    after = [share for row, axis in habits_of(rows) if (share := right_after(row, axis)) is not None]
    within = {most: sum(value <= most for value in reached) for most in (AIM, CONVERSATIONS)}
    return {
        f"corrections needed per habit, median at most {MAX_NEEDED}": (
            f"{_number(middle)} of {len(need)} habits; held-out "
            f"{_number(statistics.median(held_out_need(row, axis) for row, axis in habits_of(rows)))}",
            middle <= MAX_NEEDED,
        ),
        f"recurs on at most {MAX_RECURRENCE:.0%} of the next {LATER} occasions": (
            f"{recurred:.3f} of {len(again)}",
            recurred <= MAX_RECURRENCE if again else None,
        ),
        f"conversations to {GOOD}: at most {CONVERSATIONS}": (
            f"median {_number(statistics.median(reached))}, within {AIM} {within[AIM]} of {len(rows)} users, within "
            f"{CONVERSATIONS} {within[CONVERSATIONS]}",
            within[CONVERSATIONS] == len(rows),
        ),
        f"absent behind at most {MAX_CORRECTIONS} corrections, right behind the last, mean at least {ABSENT}": (
            _absent(after)
        ),
        f"the same, with the last version where there were fewer than {MAX_CORRECTIONS}, mean at least {ABSENT}": (
            _absent(three)
        ),
        "seconds from the correction to the version that learned from it": (
            f"median {delays['p50']}, p95 {delays['p95']}",
            None,
        ),
    }


def table(found: Sequence[Row]) -> str:
    """A Markdown table of means over users, and the claims."""
    lines = [
        "| arm | users | held-out score before | after | greedy | all met | facts right | conversations to 0.8 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for arm, name in ARMS.items():
        own = [row for row in found if row["arm"] == arm]
        if not own:
            continue
        last = [row["points"][-1] for row in own]
        cells = [
            statistics.fmean(score(row["points"][0]) for row in own),
            statistics.fmean(score(point) for point in last),
            statistics.fmean(score(point, "greedy") for point in last),
            statistics.fmean(point["sampled"]["all"] for point in last),
            statistics.fmean(point["sampled"]["facts"] for point in last),
        ]
        shown = " | ".join(f"{cell:.2f}" for cell in cells)
        lines.append(
            f"| {name} | {len(own)} | {shown} | {_number(statistics.median(to_good(row) for row in own))} |"
        )
    marks = {True: "holds", False: "does not hold", None: "measured"}
    told = [f"- {claim}: {figure} ({marks[holds]})" for claim, (figure, holds) in claims(found).items()]
    return "\n".join([*lines, "", *told])


def _absent(shares: Sequence[float]) -> tuple[str, bool | None]:
    """The mean over habits, which is to be .9, and how many of them are there, which is only told."""
    if not shares:
        return "no habit", None
    mean = statistics.fmean(shares)
    there = sum(share >= ABSENT for share in shares)
    return f"{mean:.3f} of {len(shares)} habits, {there} of them at {ABSENT} or more", mean >= ABSENT


def _number(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:g}"
