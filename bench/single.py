"""A client that teaches one rule in one phrasing: `python -m bench.single --seeds 0 1 2 3 4`.

It asks for one thing in one wording, of other files each time, 200 conversations of two turns or more, and sends no
rewards. All that teaches is the tool's error, which names another program. Then the version that serves is asked for
files that it never met (first try: greedy, and at temperature 1), in other wordings, for everything else that the same
tool can do, and for some rows of nano's card. `house` refuses the usual program alone, as the terminal world does;
`strict` says of every command but the right one what is right.

Arms: `shipped` is the preset at the demo's rate; `alone` is it without next answers and rehearsal.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentrl.nano import vocabulary
from agentrl.store.learning_log import LearningLog
from agentrl.types import Purpose
from bench.forgotten import card
from bench.jobs import Row, rows, run_all
from bench.runs import account, drain, held_out, num_waiting, served, settled, share, until
from envs.house_rules import Family, HouseRules, Rule
from envs.runner import run_episodes
from envs.terminal import Terminal

FOLDER = Path(__file__).parent / "single"
ARMS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "alone": {"transform": "none", "route.rehearsed": 0},
}
CLIENTS = ("house", "strict")
OVERRIDES: dict[str, Any] = {"optim.lr": 7e-4, "batch.turns_per_step": 16, "batch.max_wait_s": 5.0}
NUM_CONVERSATIONS = 200
NUM_AGENTS = 2
MAX_BEHIND = 16
"""Turns that may wait for the learner: a user and his tools take longer than it does."""
MAX_TURNS = 3
NUM_HELD_OUT = 40
NUM_OTHERS = 3
"""Tasks of each other operation."""
TAUGHT = ("first try", "at temperature 1", "other wordings")
KEPT = ("hint, known wording", "error of this task", "error of an earlier task", "done after success")


class Single(Terminal):
    """One operation, asked for in the wordings that the rule's operation has.

    Args:
        rule: what holds here.
        strict: every other command is told what is right.
    """

    def __init__(self, rule: Rule, *, strict: bool = False, **settings: Any) -> None:
        super().__init__(
            rules=HouseRules(seed=0, rules=(rule,)), families=[Family.UNKNOWN], shell="simulated", **settings
        )
        self.operations = (rule.operation,)
        self._told = rule if strict else None

    async def _run(self, command: str) -> str:
        rule, name = self._told, command.split(" ")[0]
        if rule is None or name == rule.new:
            return await super()._run(command)
        self._num_commands += 1
        return f"{rule.error(name)}\n[exit code {rule.exit_code}]"


def drawn(seed: int) -> Rule:
    """The rule of a seed: an operation whose success is seen in what is printed, in one wording, and a new name."""
    rng = random.Random(f"single {seed}")
    operation = rng.choice([one for one in vocabulary.UNKNOWN_OPERATIONS if one.check == "output"])
    operation = replace(operation, wordings=(rng.choice(operation.wordings),))
    wording = rng.choice(vocabulary.ERROR_WORDINGS)
    name = vocabulary.fresh_name(rng, "rules")
    return Rule(operation=operation, family=Family.UNKNOWN, new=name, wording=wording, exit_code=127)


def reworded(rule: Rule) -> Rule:
    """The rule with the wordings that nobody used."""
    known = next(one for one in vocabulary.OPERATIONS if one.key == rule.key)
    others = tuple(wording for wording in known.wordings if wording not in rule.operation.wordings)
    return replace(rule, operation=replace(rule.operation, wordings=others))


def without(rule: Rule, seed: int) -> Terminal:
    """A house without rules, asked for everything but the rule's operation."""
    env = Terminal(
        seed=seed, rules=HouseRules(seed=0, rules=()), families=[Family.PLAIN], shell="simulated", max_steps=1
    )
    env.operations = tuple(one for one in env.operations if one.key != rule.key)
    return env


def one_run(arm: str, client: str, seed: int) -> Row:
    """One client of one server, and what became of it."""
    return asyncio.run(_run(arm, client, seed))


async def _run(arm: str, client: str, seed: int) -> Row:
    rule = drawn(seed)
    # Like anybody's server but for the rate: the bounds of other benches are theirs.
    async with served(seed, recipe="hint_opsd", overrides={**OVERRIDES, **ARMS[arm]}, common={}) as runtime:
        folder = Path(runtime.config.run_dir)
        with LearningLog(folder, read_only=True) as log:

            async def count(_: object) -> None:
                await until(lambda: num_waiting(log) <= MAX_BEHIND)

            episodes = await run_episodes(
                lambda: Single(rule, strict=client == "strict", seed=seed, max_steps=MAX_TURNS, end_on_success=False),
                runtime.base_url, "nano", num_agents=NUM_AGENTS, num_episodes=NUM_CONVERSATIONS, temperature=1.0,
                purpose=Purpose.TRAIN, split="train", seed=seed, on_episode=count, feedback=False,
            )  # fmt: skip
            await settled(log)
        await drain(runtime, folder)
        version = runtime.versions.newest

        async def tried(make: Any, num: int = NUM_HELD_OUT, temperature: float = 0.0) -> float:
            found = await held_out(
                runtime, make, seed=seed, version=version, num=num, temperature=temperature
            )
            return round(share(found, "first_try"), 3)

        def held() -> Single:
            return Single(rule, seed=seed, max_steps=1)

        others = NUM_OTHERS * (len(vocabulary.OPERATIONS) - 1)
        figures = {
            "first try": await tried(held),
            "at temperature 1": await tried(held, temperature=1.0),
            "other wordings": await tried(lambda: Single(reworded(rule), seed=seed, max_steps=1)),
            "everything else": await tried(lambda: without(rule, seed), others),
        }
        kept = await asyncio.to_thread(card, runtime.versions.path(version))
        firsts = [bool(episode.info["first_try"]) for episode in episodes]
        return {
            "arm": arm, "client": client, "seed": seed, "rule": rule.error(rule.operation.program),
            "asked": rule.operation.wordings[0], "figures": figures, "kept": kept, "version": version,
            "curve": [sum(firsts[at : at + 20]) / 20 for at in range(0, len(firsts), 20)],
            "account": account(runtime),
        }  # fmt: skip


def table(found: list[Row]) -> str:
    """Means over the seeds, and in how many of them the rule was learned."""
    names = (*TAUGHT, "everything else")
    lines = [
        "| arm | client | seeds | learned | " + " | ".join((*names, *KEPT)) + " |",
        "|---|---|---:|---:|" + "---:|" * (len(names) + len(KEPT)),
    ]
    for arm in ARMS:
        for client in CLIENTS:
            own = [row for row in found if (row["arm"], row["client"]) == (arm, client)]
            if not own:
                continue
            learned = sum(row["figures"]["first try"] >= 0.9 for row in own)
            means = [sum(row["figures"][name] for row in own) / len(own) for name in names]
            means += [sum(row["kept"][name] for row in own) / len(own) for name in KEPT]
            cells = " | ".join(f"{mean:.2f}" for mean in means)
            lines.append(f"| {arm} | {client} | {len(own)} | {learned} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--clients", nargs="+", default=list(CLIENTS), choices=list(CLIENTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    arguments = parser.parse_args()
    path = arguments.out / "rows.jsonl"
    known = {(row["arm"], row["client"], row["seed"]) for row in rows(path)}
    cases = [
        case
        for seed in arguments.seeds
        for client in arguments.clients
        for arm in arguments.arms
        if (case := (arm, client, seed)) not in known
    ]
    num_failed = run_all(
        one_run, cases, path, jobs=arguments.jobs,
        say=lambda row: f"{row['arm']} {row['client']} {row['seed']} {row['rule']}: {row['figures']} {row['curve']}",
    )  # fmt: skip
    print(table(rows(path)))
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
