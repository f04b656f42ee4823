"""The report of a demo: one JSON object, the curves as a picture, and a page to read."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.demo_judges import HEADINGS, rows
from server.statistics import Share

FAMILIES = ("unknown", "reachable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One episode of the learning phase."""

    at_s: float
    """Seconds since the phase began."""
    family: str
    is_first_try: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """First-try success on held-out tasks, by family."""

    before: dict[str, Share]
    after: dict[str, Share]
    control: dict[str, Share]

    def as_dict(self) -> dict[str, Any]:
        return {
            family: {
                "before": self.before[family].as_dict(),
                "after": self.after[family].as_dict(),
                "control": self.control[family].as_dict(),
            }
            for family in FAMILIES
        }


def moving_success(plays: Iterable[Play], family: str, window: int = 40) -> list[tuple[float, float]]:
    """(seconds, share of first tries that succeeded among the last `window`) after every episode of a family."""
    last: deque[bool] = deque(maxlen=window)
    curve = []
    for play in plays:
        if play.family == family:
            last.append(play.is_first_try)
            curve.append((play.at_s, sum(last) / len(last)))
    return curve


def draw_curves(plays: Sequence[Play], outcome: Outcome, served_at_s: Sequence[float], path: Path) -> None:
    """Writes the picture: success at the first try over time, held-out success before and after."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    curve, bars = figure.subplots(1, 2, width_ratios=(2, 1))
    colours = {"unknown": "#1f6fb4", "reachable": "#d1691d"}
    for family in FAMILIES:
        points = moving_success(plays, family)
        curve.plot([x for x, _ in points], [y for _, y in points], color=colours[family], label=family)
    for index, at_s in enumerate(served_at_s):
        curve.axvline(at_s, color="#bbbbbb", lw=0.5, zorder=0, label=None if index else "new version served")
    curve.set(xlabel="seconds", ylabel="first-try success, last 40 episodes", ylim=(-0.02, 1.02))
    curve.legend(loc="lower right", frameon=False)
    names = ("before", "control", "after")
    for offset, family in enumerate(FAMILIES):
        shares: list[Share] = [getattr(outcome, name)[family] for name in names]
        bars.bar(
            [index + (offset - 0.5) * 0.38 for index in range(len(names))],
            [item.success for item in shares],
            width=0.36,
            color=colours[family],
            yerr=[
                [item.success - item.low for item in shares],
                [item.high - item.success for item in shares],
            ],
            error_kw={"lw": 1},
        )
    bars.set_xticks(range(len(names)), names)
    bars.set(ylim=(0, 1.05), title="held-out tasks, no hint")
    figure.savefig(path, dpi=110)


def page(report: dict[str, Any], rules: Sequence[str], note: str) -> str:
    """The report as Markdown."""
    lines = [
        f"# Demo, seed {report['seed']}",
        "",
        "First-try success on held-out tasks (greedy, no hint anywhere, pinned version; 95 % Wilson interval):",
        "",
        "| family | before | control (learning off) | after |",
        "|---|---|---|---|",
    ]
    for family in FAMILIES:
        cells = (report[family][name] for name in ("before", "control", "after"))
        shown = (f"{cell['success']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]" for cell in cells)
        lines.append(f"| {family} | {' | '.join(shown)} |")
    if "judges" in report:
        lines += ["", *judges_table(report["judges"])]
    lines += ["", note, "", "![curves](curves.png)", "", "## House rules", ""]
    lines += [f"- {rule}" for rule in rules]
    lines += ["", "## Figures", "", "```json", json.dumps(report, indent=2), "```", ""]
    return "\n".join(lines)


def judges_table(judges: dict[str, Any]) -> list[str]:
    """What every judge said of the same turns of the learning phase, against what the house knows of them."""
    return [
        "Judges against the house, on turns of the learning phase (accuracy: of the turns that got a reward; coverage: "
        "the share of turns that got one). The rules and each version of the policy were asked afresh and alone.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        "|" + "---|" * len(HEADINGS),
        *(f"| {' | '.join(row)} |" for row in rows(judges)),
    ]
