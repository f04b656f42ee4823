"""Learning curves of several methods in the terminal world: `make bench-learning`.

    python -m bench.learning --methods hint_opsd grpo --seeds 0 1 --turns 1200
    python -m bench.learning --draw                      the table and the curves of what is there

One run is one row of `bench/learning/rows.jsonl`: a method, a seed, a learning rate. Rows that are there are not run
again, so a bench that was stopped goes on. All methods get the same houses, the same tasks in the same order and the
same number of turns; each gets the same number of learning rates, and the best of them by the last point of the
reachable family is drawn. A point is first-try success on held-out tasks, greedy, without any hint, by the version
that served at that turn.

Orderings are claimed on the reachable family alone. On the unknown family a method that is bound to the policy's own
samples cannot move: what has probability near 0 is never sampled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrl.config import load_config
from agentrl.errors import AgentRLError
from agentrl.learner.control import set_paused
from agentrl.store.learning_log import LearningLog
from server.demo_agents import play
from server.runtime import Runtime

FOLDER = Path(__file__).parent / "learning"
FAMILIES = ("unknown", "reachable")
NUM_AGENTS = 4
NUM_POINTS = 8
NUM_HELD_OUT = 120
"""Held-out tasks of one point; each family has half of them."""
LEARNING_RATES = (7e-4, 2e-4)
GOOD = 0.8
DRAIN_S = 30.0
READY_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What one curve stands for."""

    recipe: str | None
    """None: nothing is learned."""
    overrides: dict[str, Any] = field(default_factory=dict)
    group_size: int = 1
    env_options: dict[str, Any] = field(default_factory=dict)


COMMON = {
    "batch.turns_per_step": 16, "batch.max_wait_s": 2.0, "batch.uses_per_turn": 1,
    "limits.max_version_lag": 60, "limits.max_logprob_gap": 3.0,
}  # fmt: skip
EXTRAP = {"target": {"name": "extrap", "coef": 1.25}}
METHODS = {
    "hint_opsd": Method(recipe="hint_opsd", overrides=EXTRAP),
    "hint_opsd_plain": Method(recipe="hint_opsd"),
    "openclaw_rl": Method(recipe="openclaw_rl"),
    "openclaw_rl_binary": Method(recipe="openclaw_rl_binary"),
    "openclaw_rl_hint": Method(recipe="openclaw_rl_hint"),
    "sdpo": Method(recipe="sdpo", group_size=8),
    "srpo": Method(recipe="srpo", group_size=8),
    "grpo": Method(recipe="grpo", group_size=8),
    "none": Method(recipe=None),
    "rules in the prompt": Method(recipe=None, env_options={"told": True}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Success of the version that served after so many turns."""

    turns: int
    version: int
    success: dict[str, float]


async def one_run(name: str, seed: int, rate: float, turns: int) -> dict[str, Any]:
    """Plays one method on one house and returns its row."""
    method = METHODS[name]
    begin = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="agentrl-bench-"))
    try:
        overrides = {"optim.lr": rate, **COMMON, **method.overrides}
        config = load_config(
            None,
            [],
            model="nano",
            name="nano",
            run_dir=str(folder),
            server__port=0,
            server__max_tokens=64,
            engine__max_len=1024,
            engine__stick_s=0.0,
            learn__enabled=method.recipe is not None,
            learn__seed=seed,
            learn__recipe=method.recipe or "hint_opsd",
            learn__overrides=overrides if method.recipe else {},
            learn__keep_versions=10_000,
        )
        async with Runtime(config) as runtime:
            if method.recipe:
                await ready(folder)
            marks = [round(turns * (index + 1) / NUM_POINTS) for index in range(NUM_POINTS)]
            served = await learn(runtime, method, seed, turns, marks)
            if method.recipe:
                await drain(runtime, folder)
                served[turns] = runtime.versions.newest
            points = [
                await measured(runtime, method, seed, at, version) for at, version in {0: 0, **served}.items()
            ]
        account: dict[str, Any] = {}
        if method.recipe:
            with LearningLog(folder, read_only=True) as log:
                counted = log.account()
            account = {"trained": counted.trained, "rejected": counted.rejected, "pending": counted.pending}
        return {
            "method": name,
            "seed": seed,
            "rate": rate,
            "turns": turns,
            "points": [{"turns": point.turns, "version": point.version, **point.success} for point in points],
            "account": account,
            "wall_s": round(time.perf_counter() - begin, 1),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def learn(
    runtime: Runtime, method: Method, seed: int, turns: int, marks: Sequence[int]
) -> dict[int, int]:
    """Lets agents play; returns which version served after each mark of turns."""
    played = 0
    served: dict[int, int] = {}

    def count(line: dict[str, Any]) -> bool:
        nonlocal played
        played += line["num_turns"]
        for mark in marks:
            if played >= mark and mark not in served:
                served[mark] = runtime.versions.newest
        return played < turns

    await play(
        runtime.base_url,
        count,
        model="nano",
        num_agents=NUM_AGENTS if method.group_size == 1 else method.group_size,
        num_episodes=turns,
        group_size=method.group_size,
        temperature=1.0,
        purpose="train",
        split="train",
        seed=seed,
        env_options=method.env_options,
    )
    return served


async def ready(folder: Path) -> None:
    """Waits until the learner has loaded. Raises AgentRLError with its last words if it cannot."""
    journal = folder / "learner.log"
    deadline = time.monotonic() + READY_S
    while True:
        said = journal.read_text(encoding="utf-8") if journal.exists() else ""
        if '"event": "ready"' in said:
            return
        if '"event": "failed"' in said or time.monotonic() > deadline:
            raise AgentRLError(f"the learner did not get ready: {said[-2000:]}")
        await asyncio.sleep(0.2)


async def drain(runtime: Runtime, folder: Path) -> None:
    """Lets the learner end the step at hand and begin no other."""
    set_paused(folder, paused=True)
    deadline = time.monotonic() + DRAIN_S
    with LearningLog(folder, read_only=True) as log:
        while log.account().pending["claimed"] or log.serving().number != runtime.versions.newest:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.1)


async def measured(runtime: Runtime, method: Method, seed: int, turns: int, version: int) -> Point:
    """Held-out success of one version."""
    held: dict[str, list[bool]] = {family: [] for family in FAMILIES}

    def count(line: dict[str, Any]) -> bool:
        held[line["family"]].append(bool(line["first_try"]))
        return True

    await play(
        runtime.base_url,
        count,
        model=f"nano@{version}",
        num_agents=NUM_AGENTS,
        num_episodes=NUM_HELD_OUT,
        temperature=0.0,
        purpose="eval",
        split="heldout",
        seed=seed,
        env_options={"max_steps": 1, **method.env_options},
    )
    success = {family: sum(values) / max(len(values), 1) for family, values in held.items()}
    return Point(turns=turns, version=version, success=success)


# what is there


def rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def best_rate(found: Sequence[dict[str, Any]], method: str) -> float | None:
    """The learning rate with the highest mean success on the reachable family at the end."""
    ends: dict[float, list[float]] = {}
    for row in found:
        if row["method"] == method:
            ends.setdefault(row["rate"], []).append(row["points"][-1]["reachable"])
    return max(ends, key=lambda rate: statistics.fmean(ends[rate])) if ends else None


def turns_to(row: dict[str, Any], family: str, share: float = GOOD) -> float:
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


def table(found: Sequence[dict[str, Any]]) -> str:
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


def draw(found: Sequence[dict[str, Any]], path: Path) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--rates", nargs="+", type=float, default=list(LEARNING_RATES))
    parser.add_argument("--turns", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--draw", action="store_true", help="only the table and the curves of what is there")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "rows.jsonl"
    known = {(row["method"], row["seed"], row["rate"], row["turns"]) for row in rows(path)}
    # Seeds outermost: a bench that is stopped has compared all methods on fewer houses.
    for seed in [] if arguments.draw else arguments.seeds:
        for name in arguments.methods:
            # What does not learn has no learning rate: one row says all.
            rates = arguments.rates if METHODS[name].recipe else arguments.rates[:1]
            for rate in rates:
                if (name, seed, rate, arguments.turns) in known:
                    continue
                row = asyncio.run(one_run(name, seed, rate, arguments.turns))
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                last = row["points"][-1]
                print(
                    f"{name} seed {seed} rate {rate:g}: reachable {last['reachable']:.2f}, "
                    f"unknown {last['unknown']:.2f} after {row['turns']} turns ({row['wall_s']:.0f} s)",
                    file=sys.stderr,
                )
    found = rows(path)
    draw(found, arguments.out / "curves.png")
    print(table(found))


if __name__ == "__main__":
    main()
