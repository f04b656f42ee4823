"""Learning compared with memory: rules in the weights against the same rules in the prompt: `python -m bench.memory`.

    python -m bench.memory --rules 12 --seeds 0 1 2 3 4 --jobs 2
    python -m bench.memory --rules 200 --seeds 0 --turns 16000

    learned     `hint_opsd` as it ships, at the rate 7e-4; nothing stands in the prompt of what is measured
    prompt      nothing is learned; every rule stands in the system message as the error that tells it, or as many
                of them, drawn from the seed, as leave room for a task in nano's 2,048 ids
    retrieved   the same with twelve rules of the task's own project, the one that it needs among them, as a retrieval
                without a fault would bring them

nano learned to read prompts of about 400 ids and loses the thread beyond 450, which is 16 to 20 rules: with more, the
second arm says what a small context costs, and the third what memory can do at best.

Twelve rules are the demo's house. More are several projects with 20 rules each (`bench.projects`): the request names
the project. All arms play the same held-out tasks, greedily, one reply each; "ids" are those of a request's prompt.
One run is one row of `bench/memory/rows.jsonl`; rows that are there are not run again.

With projects the hints are recalled for requests that share nine tenths of their words, or those of one project would
be recalled in the next, and the quarantine is off: it takes requests that differ in a word for one situation.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.curves import band
from bench.jobs import Row, rows, run_all
from bench.methods import HINT
from bench.projects import RULES_EACH, Projects
from bench.runs import account, held_out, learn, num_prompt_ids, served, share
from envs.protocol import Environment
from envs.runner import Episode
from envs.terminal import Terminal

FOLDER = Path(__file__).parent / "memory"
MAX_LEN = 2048
MAX_TOLD = 80
"""Rules of about 22 ids that leave room for a task in `MAX_LEN`."""
NUM_PARTS = 8
"""Of the training, whose first tries (at temperature 1) are the curve of the first seed."""
GOOD = {12: 0.95, 60: 1.0, 200: 1.0}
"""Least ratio of the learned to the prompt's success that is asked for; beyond 12 rules it is to be above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One number of rules."""

    turns: int
    """Of the training, by default."""
    num_held_out: int
    arms: tuple[str, ...]


SIZES = {
    12: Size(turns=1200, num_held_out=240, arms=("learned", "prompt")),
    60: Size(turns=5000, num_held_out=360, arms=("learned", "prompt", "retrieved")),
    200: Size(turns=16000, num_held_out=600, arms=("learned", "prompt", "retrieved")),
}


def make_env(num_rules: int, seed: int, arm: str, **options: Any) -> Callable[[], Environment]:
    """What an arm plays; it has the same tasks as the others."""
    if num_rules == 12:
        return lambda: Terminal(seed=seed, shell="simulated", told=arm == "prompt", **options)
    told = {"learned": "nothing", "prompt": "all", "retrieved": "retrieved"}[arm]
    return lambda: Projects(
        seed=seed,
        num_projects=num_rules // RULES_EACH,
        told=told,  # type: ignore[arg-type]
        num_told=MAX_TOLD,
        shell="simulated",
        **options,
    )


def one_run(num_rules: int, arm: str, seed: int, turns: int, num_held_out: int) -> Row:
    """Plays one arm and returns its row."""
    return asyncio.run(_run(num_rules, arm, seed, turns, num_held_out))


async def _run(num_rules: int, arm: str, seed: int, turns: int, num: int) -> Row:
    begin = time.perf_counter()
    learns = arm == "learned"
    overrides: dict[str, Any] = {"optim.lr": 7e-4}
    settings: dict[str, Any] = {"engine__max_len": MAX_LEN, "learn__keep_versions": 4}
    if num_rules > 12:
        overrides["context"] = HINT | {"recall": 0.9}
        settings["guards__quarantine"] = "off"
    async with served(
        seed, recipe="hint_opsd" if learns else None, overrides=overrides, **settings
    ) as runtime:
        curve: list[list[bool]] = [[] for _ in range(NUM_PARTS)]

        def count(episode: Episode, played: int) -> None:
            part = min(NUM_PARTS * (played - 1) // turns, NUM_PARTS - 1)
            curve[part].append(bool(episode.info.get("first_try")))

        if learns:
            await learn(runtime, make_env(num_rules, seed, arm), count, seed=seed, turns=turns)
        learned_s = time.perf_counter() - begin
        newest = runtime.versions.newest
        test = make_env(num_rules, seed, arm, max_steps=1)
        episodes = await held_out(runtime, test, seed=seed, version=newest, num=num)
        return {
            "rules": num_rules, "arm": arm, "seed": seed, "turns": turns, "num": num,
            "success": share(episodes, "first_try"), "ids": round(num_prompt_ids(runtime, newest), 1),
            "curve": [round(sum(part) / len(part), 3) for part in curve if part],
            "account": account(runtime) if learns else {},
            "seconds": {"learning": round(learned_s, 1), "all": round(time.perf_counter() - begin, 1)},
        }  # fmt: skip


# what is there


def paired(found: Sequence[Row], num_rules: int, other: str = "prompt") -> list[tuple[Row, Row]]:
    """The learned run and the other of each seed of which both are there. A seed with another number of turns or tasks
    counts as another."""
    by_seed: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in found:
        if row["rules"] == num_rules:
            by_seed.setdefault((row["seed"], row["turns"], row["num"]), {})[row["arm"]] = row
    return [(own["learned"], own[other]) for own in by_seed.values() if "learned" in own and other in own]


def ratio(pairs: Sequence[tuple[Row, Row]], name: str) -> float:
    """The mean of the learned runs over that of the others; infinite where that is 0."""
    learned, other = (statistics.fmean(row[name] for row in part) for part in zip(*pairs, strict=True))
    return learned / other if other else math.inf


def table(found: Sequence[Row]) -> str:
    """A Markdown table of means over seeds with their 95 % interval, and the claims."""
    lines = [
        "| rules | arm | seeds | turns | success at the first try | ids a prompt | while learning | s |",
        "|---:|---|---:|---:|---|---:|---|---:|",
    ]
    for num_rules, size in SIZES.items():
        for arm in size.arms:
            own = [row for row in found if (row["rules"], row["arm"]) == (num_rules, arm)]
            if not own:
                continue
            mean, low, high = band([row["success"] for row in own])
            curve = ", ".join(f"{value:.2f}" for value in own[0]["curve"]) or "-"
            lines.append(
                f"| {num_rules} | {arm} | {len(own)} | {'/'.join(sorted({str(row['turns']) for row in own}))} | "
                f"{mean:.3f} [{low:.3f}, {high:.3f}] | {statistics.fmean(row['ids'] for row in own):.0f} | {curve} | "
                f"{statistics.fmean(row['seconds']['all'] for row in own):.0f} |"
            )
    said = []
    for num_rules in SIZES:
        pairs = paired(found, num_rules)
        if not pairs:
            continue
        success = ratio(pairs, "success")
        wanted = GOOD[num_rules]
        holds = success >= wanted if num_rules == 12 else success > wanted
        asked = f"at least {wanted:g}" if num_rules == 12 else f"above {wanted:g}"
        said.append(
            f"- {num_rules} rules: learned over prompt {success:.3f} ({asked}: "
            f"{'holds' if holds else 'does not hold'}), with {ratio(pairs, 'ids'):.2f} of the prompt's ids, "
            f"{len(pairs)} seeds"
        )
    return "\n".join([*lines, "", *said])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", type=int, default=12, choices=list(SIZES))
    parser.add_argument("--arms", nargs="+", choices=("learned", "prompt", "retrieved"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--turns", type=int, help="of the training")
    parser.add_argument("--held-out", type=int, help="held-out tasks of the last measurement")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--draw", action="store_true", help="only the table of what is there")
    arguments = parser.parse_args()
    size = SIZES[arguments.rules]
    arms = [arm for arm in size.arms if arm in (arguments.arms or size.arms)]
    turns, num = arguments.turns or size.turns, arguments.held_out or size.num_held_out
    path = arguments.out / "rows.jsonl"
    known = {tuple(row[name] for name in ("rules", "arm", "seed", "turns", "num")) for row in rows(path)}
    wanted = [(arguments.rules, arm, seed, turns, num) for seed in arguments.seeds for arm in arms]
    cases = [] if arguments.draw else [case for case in wanted if case not in known]
    num_failed = run_all(one_run, cases, path, jobs=arguments.jobs, say=_line)
    print(table(rows(path)))
    return 1 if num_failed else 0


def _line(row: Row) -> str:
    return (
        f"{row['rules']} rules, {row['arm']}, seed {row['seed']}: {row['success']:.3f} with {row['ids']:.0f} ids a "
        f"prompt, seconds {row['seconds']}"
    )


if __name__ == "__main__":
    sys.exit(main())
