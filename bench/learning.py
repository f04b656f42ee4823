"""Learning curves of several methods in the terminal world: `make bench-learning`.

    python -m bench.learning --methods hint_opsd grpo --seeds 0 1 --turns 1200 --jobs 2
    python -m bench.learning --draw                      the table and the curves of what is there

One run is one row of `bench/learning/rows.jsonl`: a method, a seed, a learning rate. Rows that are there are not run
again, so a bench that was stopped goes on. All methods get the same houses, the same tasks in the same order and the
same number of turns; each gets the same number of learning rates, and the best of them by the last point of the
reachable family is drawn. A point is first-try success on held-out tasks, greedy, without any hint, by the version
that served at that turn; what does not learn is measured once.

Orderings are claimed on the reachable family alone. On the unknown family a method that is bound to the policy's own
samples cannot move: what has probability near 0 is never sampled.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.jobs import Row, rows, run_all
from bench.runs import EXTRAP, account, held_out, learn, served, share
from envs.runner import Episode
from envs.terminal import Terminal
from server.runtime import Runtime

FOLDER = Path(__file__).parent / "learning"
FAMILIES = ("unknown", "reachable")
NUM_POINTS = 6
NUM_HELD_OUT = 120
"""Held-out tasks of one point; each family has half of them."""
LEARNING_RATES = (7e-4, 2e-4)
GOOD = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What one curve stands for."""

    recipe: str | None
    """None: nothing is learned."""
    overrides: dict[str, Any] = field(default_factory=dict)
    group_size: int = 1
    env_options: dict[str, Any] = field(default_factory=dict)


SKILL = {"name": "skill"}
HINT = {"name": "hindsight_hint", "position": "tail", "recall": 0.8}
METHODS = {
    "hint_opsd": Method(recipe="hint_opsd", overrides=EXTRAP),
    "hint_opsd_plain": Method(recipe="hint_opsd"),
    "skill_opsd": Method(recipe="hint_opsd", overrides={"context": SKILL, **EXTRAP}),
    "hint_skill_opsd": Method(
        recipe="hint_opsd", overrides={"context": {"name": "several", "contexts": [HINT, SKILL]}, **EXTRAP}
    ),
    "skill_sd": Method(recipe="skill_sd", group_size=4),
    "skill_sd_kd.1": Method(recipe="skill_sd", group_size=4, overrides={"mix": {"name": "sum", "kd": 0.1}}),
    "grpo4": Method(recipe="grpo", group_size=4, overrides={"rollout.group_size": 4}),
    "openclaw_rl": Method(recipe="openclaw_rl"),
    "openclaw_rl_binary": Method(recipe="openclaw_rl_binary"),
    "openclaw_rl_hint": Method(recipe="openclaw_rl_hint"),
    "sdpo": Method(recipe="sdpo", group_size=8),
    "srpo": Method(recipe="srpo", group_size=8),
    "grpo": Method(recipe="grpo", group_size=8),
    "none": Method(recipe=None),
    "rules in the prompt": Method(recipe=None, env_options={"told": True}),
}


def one_run(name: str, seed: int, rate: float, turns: int) -> Row:
    """Plays one method on one house and returns its row."""
    return asyncio.run(_run(name, seed, rate, turns))


async def _run(name: str, seed: int, rate: float, turns: int) -> Row:
    method = METHODS[name]
    begin = time.perf_counter()
    overrides = {"optim.lr": rate, **method.overrides}
    async with served(seed, recipe=method.recipe, overrides=overrides) as runtime:
        ready_s = time.perf_counter() - begin
        at = {0: 0}
        if method.recipe is not None:
            at |= await _learn(runtime, method, seed, turns)
        learned_s = time.perf_counter() - begin - ready_s
        success = {
            version: await _measured(runtime, method, seed, version) for version in sorted(set(at.values()))
        }
        points = [{"turns": done, "version": version, **success[version]} for done, version in at.items()]
        if method.recipe is None:
            points.append(points[0] | {"turns": turns})
        return {
            "method": name, "seed": seed, "rate": rate, "turns": turns, "points": points,
            "account": account(runtime) if method.recipe is not None else {},
            "seconds": {"ready": round(ready_s, 1), "learning": round(learned_s, 1),
                        "all": round(time.perf_counter() - begin, 1)},
        }  # fmt: skip


async def _learn(runtime: Runtime, method: Method, seed: int, turns: int) -> dict[int, int]:
    """Lets agents play; which version served after each mark of turns, and the last one at the end."""
    marks = [round(turns * (index + 1) / NUM_POINTS) for index in range(NUM_POINTS)]
    found: dict[int, int] = {}

    def count(_: Episode, played: int) -> None:
        for mark in marks:
            if played >= mark and mark not in found:
                found[mark] = runtime.versions.newest

    def make() -> Terminal:
        return Terminal(seed=seed, shell="simulated", **method.env_options)

    await learn(runtime, make, count, seed=seed, turns=turns, group_size=method.group_size)
    return found | {turns: runtime.versions.newest}


async def _measured(runtime: Runtime, method: Method, seed: int, version: int) -> dict[str, float]:
    """Held-out success of one version, by family."""

    def make() -> Terminal:
        return Terminal(seed=seed, shell="simulated", max_steps=1, **method.env_options)

    episodes = await held_out(runtime, make, seed=seed, version=version, num=NUM_HELD_OUT)
    return {
        family: share([episode for episode in episodes if episode.info["family"] == family], "first_try")
        for family in FAMILIES
    }


# what is there


def best_rate(found: Sequence[Row], method: str) -> float | None:
    """The learning rate with the highest mean success on the reachable family at the end."""
    ends: dict[float, list[float]] = {}
    for row in found:
        if row["method"] == method:
            ends.setdefault(row["rate"], []).append(row["points"][-1]["reachable"])
    return max(ends, key=lambda rate: statistics.fmean(ends[rate])) if ends else None


def turns_to(row: Row, family: str, share: float = GOOD) -> float:
    """Turns at which the curve first reaches the share, between points by a straight line; inf where it never does."""
    before = row["points"][0]
    if before[family] >= share:
        return 0.0
    for point in row["points"][1:]:
        if point[family] >= share:
            part = (share - before[family]) / (point[family] - before[family])
            return float(before["turns"] + part * (point["turns"] - before["turns"]))
        before = point
    return math.inf


T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t at 97.5 %, by the number of seeds."""


def band(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds (Student's t), within [0, 1]; with one seed the interval is [0, 1]."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, 0.0, 1.0
    half = T_95.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def table(found: Sequence[Row]) -> str:
    """A Markdown table: success at the end and turns to 0.8, each family, the best learning rate of each method."""
    lines = [
        "| method | rate | seeds | reachable at the end | turns to .8 | unknown at the end | turns to .8 |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        rate = best_rate(found, method)
        own = [row for row in found if row["method"] == method and row["rate"] == rate]
        if not own:
            continue
        cells = [method, f"{rate:g}", str(len(own))]
        for family in reversed(FAMILIES):
            mean, low, high = band([row["points"][-1][family] for row in own])
            reached = statistics.median(turns_to(row, family) for row in own)
            cells += [
                f"{mean:.2f} [{low:.2f}, {high:.2f}]",
                "never" if math.isinf(reached) else f"{reached:.0f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: Sequence[Row], path: Path) -> None:
    """Success over turns with 95 % bands over seeds, one panel a family."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(FAMILIES), figsize=(12, 4.5), sharey=True)
    for panel, family in zip(panels, reversed(FAMILIES), strict=True):
        for method in METHODS:
            rate = best_rate(found, method)
            own = [row for row in found if row["method"] == method and row["rate"] == rate]
            if not own:
                continue
            turns = [point["turns"] for point in own[0]["points"]]
            bands = [
                band([row["points"][index][family] for row in own if index < len(row["points"])])
                for index in range(len(turns))
            ]
            (line,) = panel.plot(turns, [mean for mean, _, _ in bands], label=f"{method} ({len(own)})")
            if len(own) > 1:
                panel.fill_between(
                    turns, [b[1] for b in bands], [b[2] for b in bands], alpha=0.15, color=line.get_color()
                )
        panel.set_title(family)
        panel.set_xlabel("turns")
        panel.set_ylim(0, 1.02)
    panels[0].set_ylabel("first-try success, held out")
    panels[-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--rates", nargs="+", type=float, default=list(LEARNING_RATES))
    parser.add_argument("--turns", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--draw", action="store_true", help="only the table and the curves of what is there")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    arguments = parser.parse_args()
    path = arguments.out / "rows.jsonl"
    known = {(row["method"], row["seed"], row["rate"], row["turns"]) for row in rows(path)}
    # Seeds outermost: a bench that is stopped has compared all methods on fewer houses.
    cases = [
        (name, seed, rate, arguments.turns)
        for seed in arguments.seeds
        for name in arguments.methods
        # What does not learn has no learning rate: one row says all.
        for rate in (arguments.rates if METHODS[name].recipe else arguments.rates[:1])
        if (name, seed, rate, arguments.turns) not in known
    ]
    num_failed = 0 if arguments.draw else run_all(one_run, cases, path, jobs=arguments.jobs, say=_line)
    found = rows(path)
    if found:
        draw(found, arguments.out / "curves.png")
    print(table(found))
    return 1 if num_failed else 0


def _line(row: Row) -> str:
    last = row["points"][-1]
    return (
        f"{row['method']} seed {row['seed']} rate {row['rate']:g}: reachable {last['reachable']:.2f}, unknown "
        f"{last['unknown']:.2f} after {row['turns']} turns, seconds {row['seconds']}"
    )


if __name__ == "__main__":
    sys.exit(main())
