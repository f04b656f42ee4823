"""Simulated users with habits, each taught to a run of its own by words alone: `make bench-personalisation`.

    python -m bench.personalisation --users held_out --seeds 0 1 2 --arms learning none prompt
    python -m bench.personalisation --draw                       the table of what is there

One run is one row of `bench/personalisation/rows.jsonl`: a user, an arm. Rows that are there are not run again. A user
(`envs.personal`) has one to four preferences and talks over HTTP with the OpenAI SDK, one conversation after the other,
each on training things and of at most 8 replies: the user corrects one unmet preference a turn and gives no reward. The
rule judge makes hints of the words, and the learner is a process of its own. A user pauses between two conversations
until what was said has been learned, for at most `PAUSE_S`. A turn is used `uses_per_turn` times (replay), and wishes
are practised on what the conversations began with, with other numbers (`context.practised`).

Held-out measurements: first replies of fresh conversations about held-out things, no hint in the prompt, pinned to the
version that serves then, at temperature 1 as served ("sampled") and greedily, graded by `envs.personal_grader`, which
shares no code with the user. They are made after conversations `MARKS`, and after each that brought a habit's first,
second or third correction.

    learning   recipe `personal`
    none       no learning, otherwise the same
    prompt     no learning; the wishes stand in the system message

Held-out users put their wishes in wordings that nano's training withheld. Users called "dev" are those that settings
were chosen with. `bench.personal_figures` says what is read from the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrl.config import parse_value
from agentrl.errors import AgentRLError
from agentrl.learner.control import set_paused
from agentrl.recipes.recipe import load_recipe
from agentrl.store.account import define_fates
from agentrl.store.claims import CLAIMABLE
from agentrl.store.database import scalar
from agentrl.store.learning_log import LearningLog
from bench.jobs import rows, run_all
from bench.personal_figures import ARMS, MAX_CORRECTIONS, Row, score, table
from bench.runs import account, held_out, served, until
from envs.personal import MAX_TURNS, Personal, User, Wordings
from envs.personal_grader import Grade, grade
from envs.runner import Episode, run_episodes
from server.demo_figures import both_logs, feedback_to_serving_s, num_eval_turns_in_training
from server.notices import NANO_PERSONAL
from server.runtime import Runtime

FOLDER = Path(__file__).parent / "personalisation"
NUM_CONVERSATIONS = 80
"""Of the learning arm: enough for 50 occasions behind the 24th conversation."""
NUM_CONTROL = 24
NUM_SAMPLED, NUM_GREEDY = 40, 20
"""Held-out tasks of one measurement."""
MARKS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80)
PAUSE_S, STILL_S = 60.0, 120.0
WORDINGS: dict[str, Wordings] = {"dev": "known", "held_out": "withheld"}

OVERRIDES: dict[str, Any] = dict(NANO_PERSONAL)


async def one_run(
    kind: str,
    seed: int,
    arm: str,
    *,
    preferences: int | None,
    conversations: int,
    model: str,
    changes: Mapping[str, Any],
    num_held_out: tuple[int, int] = (NUM_SAMPLED, NUM_GREEDY),
) -> Row:
    """Lets one user talk in one arm and returns the row."""
    begin = time.perf_counter()
    user = User.draw(seed, wordings=WORDINGS[kind], preferences=preferences)
    learns = arm == "learning"
    overrides = OVERRIDES | dict(changes)
    async with served(
        seed, recipe="personal" if learns else None, overrides=overrides, common={}, model=model,
        server__max_tokens=96, engine__max_len=1536,
    ) as runtime:  # fmt: skip
        uses = load_recipe("personal", overrides).batch.uses_per_turn if learns else 0
        run = Run(runtime, user, seed, told=arm == "prompt", uses=uses, num_held_out=num_held_out)
        await run.talk(conversations if learns else min(conversations, NUM_CONTROL))
        learned = what_was_learned(runtime) if learns else {}
    return {
        "users": kind, "seed": seed, "arm": arm, "asked_preferences": preferences,
        "preferences": user.preferences, "conversations": run.conversations, "points": run.points,
        "num_impatient": run.num_impatient, "changes": dict(changes), **learned,
        "wall_s": round(time.perf_counter() - begin, 1),
    }  # fmt: skip


def one_row(kind: str, seed: int, arm: str, options: Mapping[str, Any]) -> Row:
    """`one_run` for a process of its own."""
    return asyncio.run(one_run(kind, seed, arm, **options))


def what_was_learned(runtime: Runtime) -> dict[str, Any]:
    """The log's figures."""
    folder = Path(runtime.config.run_dir)
    with LearningLog(folder, read_only=True) as log:
        states = Counter(str(version.state) for version in log.versions())
    return {
        "feedback_to_serving_s": [round(value, 3) for value in feedback_to_serving_s(folder)],
        "num_eval_turns_in_training": num_eval_turns_in_training(folder),
        "account": account(runtime),
        "versions": dict(states),
    }


class Run:
    """One user and one server."""

    def __init__(
        self,
        runtime: Runtime,
        user: User,
        seed: int,
        *,
        told: bool,
        uses: int,
        num_held_out: tuple[int, int],
    ) -> None:
        self._runtime = runtime
        self._user = user
        self._seed = seed
        self._told = told
        self._uses = uses
        """How often a turn is trained; 0 = nothing is learned."""
        self._num_held_out = num_held_out
        """Tasks of a measurement, sampled and greedy."""
        self.conversations: list[dict[str, Any]] = []
        self.points: list[dict[str, Any]] = []
        self.num_impatient = 0
        """Pauses that ended before all was learned."""

    async def talk(self, conversations: int) -> None:
        """Has so many conversations, with measurements between them."""
        corrections: Counter[str] = Counter()
        await self._measure(corrections)
        for number in range(1, conversations + 1):
            before = dict(corrections)
            episode = await self._converse(number - 1)
            corrections.update(episode["corrections"])
            self.conversations.append(episode)
            if self._uses and not await self._pause():
                self.num_impatient += 1
            told = any(before.get(axis, 0) < MAX_CORRECTIONS for axis in episode["corrections"])
            if number in MARKS or (told and self._uses) or number == conversations:
                await self._measure(corrections)

    async def _converse(self, index: int) -> dict[str, Any]:
        """Raises AgentRLError where a request failed."""
        [episode] = await run_episodes(
            lambda: self._env(MAX_TURNS), self._runtime.base_url, "nano", num_agents=1, num_episodes=1,
            first_task=index, seed=self._seed * 1009 + index, feedback=False,
        )  # fmt: skip
        if episode.error:
            raise AgentRLError(f"a conversation failed: {episode.error}")
        seen = first_note(episode)
        return {
            "version": episode.versions[0],
            "first": seen.met(self._user.preferences),
            "facts": seen.facts,
            "corrections": episode.info["corrections"],
            "num_turns": episode.num_turns,
        }

    def _env(self, max_turns: int) -> Personal:
        return Personal(seed=self._seed, user=self._user, max_turns=max_turns, told=self._told)

    async def _measure(self, corrections: Mapping[str, int]) -> None:
        folder = Path(self._runtime.config.run_dir)
        if self._uses:
            # Otherwise, behind a pause that was too short, the version measured would leave the engine meanwhile.
            await self._held_still(folder)
        version = self._runtime.versions.newest
        point: dict[str, Any] = {
            "conversations": len(self.conversations),
            "version": version,
            "corrections": dict(corrections),
        }
        for name, temperature, num in zip(("sampled", "greedy"), (1.0, 0.0), self._num_held_out, strict=True):
            episodes = await held_out(
                self._runtime, lambda: self._env(1), seed=self._seed * 1009 + len(self.conversations),
                version=version, num=num, temperature=temperature,
            )  # fmt: skip
            point[name] = shares([first_note(episode) for episode in episodes], self._user.preferences)
        self.points.append(point)
        if self._uses:
            set_paused(folder, paused=False)

    async def _held_still(self, folder: Path) -> None:
        """Lets the learner end the step at hand and begin no other. Raises AgentRLError where it does not."""
        set_paused(folder, paused=True)
        if not await self._until_served(uses=0, most_s=STILL_S):
            raise AgentRLError(f"the learner did not end its step within {STILL_S:g} s")

    async def _pause(self) -> bool:
        """Until all that was said has been judged, trained as often as it may be, and is served; False when that
        took too long."""
        return await self._until_served(uses=self._uses, most_s=PAUSE_S)

    async def _until_served(self, *, uses: int, most_s: float) -> bool:
        """Waits until no turn may be trained once more, or is in hand, or in a step that no version holds. With
        `uses` 0 only the latter two count."""
        with both_logs(Path(self._runtime.config.run_dir)) as connection:
            define_fates(connection)

            def is_served() -> bool:
                values = {"policy": "default", "oldest": 0.0, "uses": uses}
                # in the order that a turn goes, so that none slips through between two of the questions
                due = 0
                if uses:
                    due += scalar(connection, "SELECT count(*) FROM fates WHERE fate = 'pending:unjudged'")
                    due += scalar(connection, f"SELECT count(*) FROM ({CLAIMABLE})", values)
                due += scalar(connection, "SELECT count(*) FROM claims")
                due += scalar(
                    connection, "SELECT count(*) FROM steps WHERE version IS NULL AND voided_at IS NULL"
                )
                due += scalar(connection, "SELECT count(*) FROM versions WHERE state = 'candidate'")
                newest = scalar(connection, "SELECT max(number) FROM versions WHERE served_at IS NOT NULL")
                return not due and (newest or 0) <= self._runtime.versions.newest

            return await until(is_served, most_s=most_s)


def first_note(episode: Episode) -> Grade:
    """The grade of a conversation's first reply."""
    request, reply = episode.messages[1], episode.messages[2]
    return grade(str(request["content"]), str(reply["content"]))


def shares(grades: list[Grade], preferences: Mapping[str, str]) -> dict[str, Any]:
    """By preference the share of notes that meet it, the share that meets all, and that of right facts."""
    met = [found.met(preferences) for found in grades]
    number = len(grades)
    return {
        "met": {axis: sum(one[axis] for one in met) / number for axis in preferences},
        "all": sum(all(one.values()) for one in met) / number,
        "facts": sum(found.facts for found in grades) / number,
    }


def said(row: Row) -> str:
    curve = " ".join(f"{point['conversations']}:{score(point):.2f}" for point in row["points"])
    return f"{row['users']} {row['seed']} {row['arm']} {row['preferences']}: {curve} ({row['wall_s']:.0f} s)"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", default="held_out", choices=list(WORDINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(8)))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--preferences", type=int, help="of each user; by default one to four")
    parser.add_argument("--conversations", type=int, default=NUM_CONVERSATIONS)
    parser.add_argument("--model", default="nano", help="a model folder in the place of the one that ships")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of the recipe; for dev users"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each of three processes")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--draw", action="store_true", help="only the table of what is there")
    arguments = parser.parse_args()
    path = arguments.out / "rows.jsonl"
    known = {(row["users"], row["seed"], row["arm"], row["asked_preferences"]) for row in rows(path)}
    changes = {name: parse_value(value) for name, _, value in (text.partition("=") for text in arguments.set)}
    options = {
        "preferences": arguments.preferences, "conversations": arguments.conversations,
        "model": arguments.model, "changes": changes,
    }  # fmt: skip
    # Seeds outermost: a bench that is stopped has compared all arms on fewer users.
    cases = [
        (arguments.users, seed, arm, options)
        for seed in arguments.seeds
        for arm in arguments.arms
        if (arguments.users, seed, arm, arguments.preferences) not in known
    ]
    num_failed = 0 if arguments.draw else run_all(one_row, cases, path, jobs=arguments.jobs, say=said)
    found = [row for row in rows(path) if row["users"] == arguments.users]
    for number in sorted({row["asked_preferences"] or 0 for row in found}):
        own = [row for row in found if (row["asked_preferences"] or 0) == number]
        print(f"\n{arguments.users} users with {number or '1 to 4'} preferences\n\n{table(own)}")
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
