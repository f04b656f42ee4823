"""Learning curves of several methods in the terminal world: `make bench-learning`.

    python -m bench.learning --methods hint_opsd grpo --seeds 0 1 --jobs 2
    python -m bench.learning --draw                      the tables and the curves of what is there
    python -m bench.learning --draw --methods hint_opsd grpo     orderings among these alone

One run is one row of `bench/learning/rows.jsonl`: a method, a seed, a learning rate, a number of turns. Rows that are
there are not run again, so a bench that was stopped goes on. All methods get the same houses, the same tasks in the
same order and the same number of turns; of the learning rates that a method was tried with, the one of the highest
success of both families at the end is drawn. A point is first-try success on held-out tasks, greedy, without any hint,
by the version that served at that turn; what does not learn is measured once.

Orderings are claimed on the reachable family alone. On the unknown family a method that is bound to the policy's own
samples cannot move: what has probability near 0 is never sampled.

Beside the methods run arms that ask something else (`bench.methods`): what is learned from wrong hints, from failures
alone, of 200 rules, of rules that change with half of the turns, and in 10,000 turns with three kinds of teacher. Each
row says too what the last version can still do of what nano could do before (`bench.forgotten`).
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from bench.curves import FAMILIES, draw, tables
from bench.forgotten import card
from bench.jobs import Row, rows, run_all
from bench.methods import METHODS, Method, make_env, training_env
from bench.orderings import orderings
from bench.runs import KEPT_VERSIONS, account, behaved, held_out, learn, pin, served, share
from envs.house_rules import Family, HouseRules
from envs.runner import Episode
from envs.terminal import Terminal
from server.runtime import Runtime

FOLDER = Path(__file__).parent / "learning"
TURNS_A_POINT = 200
EARLY = (25, 50, 100, 150)
"""Points of a short run before the first of those: the fast methods are there by then."""
LONG = 4000
"""From so many turns on, a point stands for 1,000."""
NUM_HELD_OUT = 120
"""Held-out tasks of one point; each family has half of them."""
NUM_PLAIN = 69
"""Held-out tasks without a rule: each of a house's 23 such operations three times."""
LEARNING_RATES = (7e-4, 2e-4)
ANSWER_S = 120.0
"""A busy machine takes its time to take down what would have been right."""


def one_run(name: str, seed: int, rate: float, turns: int) -> Row:
    """Plays one method on one house and returns its row."""
    row = asyncio.run(_run(name, seed, rate, turns))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # Of its server and, ended by now, of its engine and its learner: the same beside other work.
    row["seconds"]["processor"] = round(sum(each.ru_utime + each.ru_stime for each in used), 1)
    return row


async def _run(name: str, seed: int, rate: float, turns: int) -> Row:
    method = METHODS[name]
    begin = time.perf_counter()
    settings: dict[str, Any] = {"learn__keep_versions": KEPT_VERSIONS, **method.settings}
    async with served(
        seed, recipe=method.recipe, overrides={"optim.lr": rate, **method.overrides}, **settings
    ) as runtime:
        ready_s = time.perf_counter() - begin
        points: list[Row] = [{"turns": 0, "version": 0}]
        if method.recipe is not None:
            points += await _learn(runtime, method, seed, turns)
        learned_s = time.perf_counter() - begin - ready_s
        if method.world == "changing":
            points = _with_change(points, turns)
        found: dict[tuple[int, bool], Row] = {}
        for point in points:
            version, after = point["version"], point.get("after", True)
            if (version, after) not in found:
                found[version, after] = await _measured(runtime, method, seed, version, after)
            point |= found[version, after]
        if method.recipe is None:
            points.append(points[0] | {"turns": turns})
        kept = {
            when: await _kept(runtime, method, seed, points[place]["version"])
            for when, place in (("before", 0), ("after", -1))
            if when == "before" or method.recipe is not None
        }
        return {
            "method": name, "seed": seed, "rate": rate, "turns": turns, "points": points, "kept": kept,
            "account": account(runtime) if method.recipe is not None else {},
            "seconds": {"ready": round(ready_s, 1), "learning": round(learned_s, 1),
                        "all": round(time.perf_counter() - begin, 1)},
        }  # fmt: skip


def marks(turns: int) -> list[int]:
    """After how many turns a version is taken down to be measured."""
    if turns >= LONG:
        return _evenly(turns, max(round(turns / 1000), 6))
    even = _evenly(turns, max(round(turns / TURNS_A_POINT), 6))
    return [*(mark for mark in EARLY if mark < even[0]), *even]


def _evenly(turns: int, num: int) -> list[int]:
    return [round(turns * (index + 1) / num) for index in range(num)]


async def _learn(runtime: Runtime, method: Method, seed: int, turns: int) -> list[Row]:
    """Lets agents play; which version served after each mark of turns and how it behaved, the last one at the end."""
    found: list[Row] = []
    left = marks(turns)
    seen = {"turns": 0, "since": time.time()}

    def take(mark: int) -> None:
        version = runtime.versions.newest
        pin(runtime, version)
        found.append({"turns": mark, "version": version, **behaved(runtime, seen["since"])})
        seen["since"] = time.time()

    def count(_: Episode, played: int) -> None:
        seen["turns"] = played
        while left[:-1] and played >= left[0]:  # the last one is taken when the learner has learned from all
            take(left.pop(0))

    await learn(
        runtime, lambda: training_env(method, seed, lambda: seen["turns"] >= turns / 2), count, seed=seed,
        turns=turns, group_size=method.group_size, judged=partial(_solve, runtime) if method.solutions else None,
    )  # fmt: skip
    for mark in left:
        take(mark)
    return found


async def _solve(runtime: Runtime, episode: Episode) -> None:
    """Says how an episode ended and what would have been right: in one, for a turn that is over may be claimed."""
    body = {
        "session": episode.session, "reward": episode.reward, "preferred": episode.info["solution"],
        "end_session": True, "source": "environment",
    }  # fmt: skip
    async with httpx.AsyncClient(timeout=ANSWER_S) as client:
        (await client.post(f"{runtime.base_url}/v1/feedback", json=body)).raise_for_status()


def _with_change(points: list[Row], turns: int) -> list[Row]:
    """Points are measured by the rules of their time; the one at the change by those before and by those after it."""
    change = max(point["turns"] for point in points if point["turns"] <= turns / 2)
    return [point | {"after": False} for point in points if point["turns"] <= change] + [
        point | {"after": True} for point in points if point["turns"] >= change
    ]


async def _measured(runtime: Runtime, method: Method, seed: int, version: int, after: bool) -> Row:
    """Held-out success of one version, by family; and what else the method's world is to show."""

    def make() -> Any:
        return make_env(method, seed, has_changed=lambda: after, max_steps=1)

    episodes = await held_out(runtime, make, seed=seed, version=version, num=NUM_HELD_OUT)
    found: Row = {
        family: share([episode for episode in episodes if episode.info["family"] == family], "first_try")
        for family in FAMILIES
    }
    if "wrong_hints" in method.env_options:
        found["misled"] = {
            family: share([episode for episode in episodes if episode.info["family"] == family], "misled")
            for family in FAMILIES
        }
    if method.world == "changing":
        for name, changed in (("changed", True), ("unchanged", False)):
            own = [episode for episode in episodes if episode.info["changed"] is changed]
            found[name] = share(own, "first_try")
    return found


async def _kept(runtime: Runtime, method: Method, seed: int, version: int) -> dict[str, float]:
    """What a version does where no rule holds, and some rows of nano's card."""
    # Of several projects each operation has a rule in some; there the requests name no project.
    rules = HouseRules.draw(seed, 0, 0) if method.world == "projects" else HouseRules.draw(seed)

    def make() -> Terminal:
        return Terminal(seed=seed, rules=rules, families=[Family.PLAIN], shell="simulated", max_steps=1)

    plain = await held_out(runtime, make, seed=seed, version=version, num=NUM_PLAIN)
    figures = await asyncio.to_thread(card, runtime.versions.path(version))
    return {"tasks without a rule": round(share(plain, "first_try"), 3), **figures}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--rates", nargs="+", type=float, default=list(LEARNING_RATES))
    parser.add_argument("--turns", type=int, help="instead of those of each method")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--draw", action="store_true", help="only the tables and the curves of what is there")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    arguments = parser.parse_args()
    path = arguments.out / "rows.jsonl"
    known = {(row["method"], row["seed"], row["rate"], row["turns"]) for row in rows(path)}
    # Seeds outermost: a bench that is stopped has compared all methods on fewer houses.
    wanted = [
        (name, seed, rate, arguments.turns or METHODS[name].turns)
        for seed in arguments.seeds
        for name in arguments.methods
        # What does not learn has no learning rate: one row says all.
        for rate in (arguments.rates if METHODS[name].recipe else arguments.rates[:1])
    ]
    cases = [case for case in wanted if case not in known]
    num_failed = 0 if arguments.draw else run_all(one_run, cases, path, jobs=arguments.jobs, say=_line)
    found = rows(path)
    if found:
        draw(found, arguments.out / "curves.png")
    compared = [row for row in found if row["method"] in arguments.methods]
    print("\n\n".join(said for said in (tables(found), orderings(compared)) if said))
    return 1 if num_failed else 0


def _line(row: Row) -> str:
    last = row["points"][-1]
    return (
        f"{row['method']} seed {row['seed']} rate {row['rate']:g}: reachable {last['reachable']:.2f}, unknown "
        f"{last['unknown']:.2f} after {row['turns']} turns, seconds {row['seconds']}"
    )


if __name__ == "__main__":
    sys.exit(main())
