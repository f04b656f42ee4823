"""What the benches of learning share: a server of its own for each run, and agents that play.

Server, gateway and agents of a run are one process, its engine and its learner two more, each with one thread of
torch. Agents use the simulated shell, whose programs do what those of the sandbox do, and both sides fp32: arms of one
seed differ in nothing but what makes them arms.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentrl.config import load_config
from agentrl.errors import AgentRLError
from agentrl.learner.control import is_paused, pause_reason, set_paused
from agentrl.store.behaviour import BehaviourLog
from agentrl.store.database import connect
from agentrl.store.learning_log import LearningLog
from agentrl.types import Arm, Purpose, Reply
from envs.protocol import Environment, Observation, Split, StepResult, Task
from envs.runner import Episode, run_episodes
from server.runtime import Runtime

POLICY = "default"
NUM_AGENTS = 4
NUM_JUDGES = 16
"""Agents that play held-out tasks: the engine computes as many replies at once."""
MAX_BEHIND = 64
"""Turns that may wait for the learner: beyond, agents wait for it, so that a busy machine learns as much from as many
turns as a quiet one. Half a group that waits for its other half does not count."""
TURNS_AN_EPISODE = 4
SETTLED_S = 6.0
"""The learner has taken what it takes once nothing has changed for this long."""
MAX_WAIT_S = 120.0
DRAIN_S = 30.0
READY_S = 300.0
COMMON: dict[str, Any] = {
    "batch.turns_per_step": 16, "batch.max_wait_s": 2.0, "batch.uses_per_turn": 1,
    "limits.max_version_lag": 60, "limits.max_logprob_gap": 3.0,
}  # fmt: skip
EXTRAP: dict[str, Any] = {"target": {"name": "extrap", "coef": 1.25}}
UNHELD: dict[str, Any] = {"route": "has_context"}
"""Nothing keeps what was right without a hint."""

MakeEnv = Callable[[], Environment]
KEPT_VERSIONS = 64
"""Versions whose files stay; those that are to be measured are pinned."""
HOLDER = "bench"


class Unrewarded:
    """An environment that tells nobody how an episode ended."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    @property
    def name(self) -> str:
        return self._env.name

    def task(self, split: Split, index: int) -> Task:
        return self._env.task(split, index)

    async def reset(self, task: Task) -> Observation:
        return await self._env.reset(task)

    async def step(self, reply: Reply) -> StepResult:
        return replace(await self._env.step(reply), reward=None)

    async def aclose(self) -> None:
        await self._env.aclose()


@asynccontextmanager
async def served(
    seed: int,
    *,
    recipe: str | None,
    overrides: Mapping[str, Any],
    common: Mapping[str, Any] = COMMON,
    model: str = "nano",
    **settings: Any,
) -> AsyncIterator[Runtime]:
    """A server in a folder that is gone afterwards, its learner loaded.

    Args:
        recipe: None = nothing is learned.
        overrides: of the recipe, over `common`.
    """
    folder = Path(tempfile.mkdtemp(prefix="agentrl-bench-"))
    learning: dict[str, Any] = {"learn__enabled": False}
    if recipe is not None:
        learning = {"learn__recipe": recipe, "learn__overrides": {**common, **overrides}}
    defaults = {
        "server__max_tokens": 64, "engine__max_len": 1024, "engine__stick_s": 0.0, "engine__precision": "fp32",
        "learn__precision": "fp32", "learn__keep_versions": 10_000, "learn__nice": 0,
    }  # fmt: skip
    try:
        config = load_config(
            None, [], model=model, name="nano", run_dir=str(folder), server__port=0, learn__seed=seed,
            **(defaults | learning | settings),
        )  # fmt: skip
        async with Runtime(config) as runtime:
            if recipe is not None:
                await ready(folder)
            yield runtime
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def learn(
    runtime: Runtime,
    make_env: MakeEnv,
    seen: Callable[[Episode, int], None],
    *,
    seed: int,
    turns: int,
    group_size: int = 1,
    judged: Callable[[Episode], Awaitable[None]] | None = None,
) -> int:
    """Lets agents play until so many turns are done and the learner has taken them; turns played.

    Args:
        seen: is told each episode and the turns so far.
        judged: tells the server of each episode that came to an end, in the place of the runner's own words.
    """
    stop = asyncio.Event()
    played = 0
    folder = Path(runtime.config.run_dir)
    most = MAX_BEHIND + (2 * TURNS_AN_EPISODE * group_size if group_size > 1 else 0)
    with LearningLog(folder, read_only=True) as log:

        async def count(episode: Episode) -> None:
            nonlocal played
            played += episode.num_turns
            seen(episode, played)
            if judged is not None and episode.error is None:
                await judged(episode)
            if played >= turns:
                stop.set()
            else:
                # A learner that a guard has paused takes no more; what its agents do goes on.
                await until(lambda: num_waiting(log) <= most or is_paused(folder))

        await run_episodes(
            make_env, runtime.base_url, "nano", num_agents=max(NUM_AGENTS, group_size), num_episodes=turns,
            group_size=group_size, temperature=1.0, purpose=Purpose.TRAIN, split="train", seed=seed,
            on_episode=count, stop=stop, feedback=judged is None,
        )  # fmt: skip
        if not is_paused(folder):
            await settled(log)
    await drain(runtime, folder)
    return played


def pin(runtime: Runtime, version: int) -> None:
    """Keeps a version's files until the run is over, so that it can be measured then."""
    with LearningLog(Path(runtime.config.run_dir)) as log:
        log.pin(POLICY, version, HOLDER)


def behaved(runtime: Runtime, since: float) -> dict[str, float]:
    """How the policy has answered agents since then (Unix seconds), at temperature 1: the mean of -log p over the
    sampled ids of a turn, which is the entropy in nats an id, and ids a turn. Nothing where nobody was answered."""
    with BehaviourLog(Path(runtime.config.run_dir), POLICY) as log:
        turns = log.newest(1_000_000, arm=Arm.LEARNING, since=since)
    surprises = [turn.surprise for turn in turns if turn.surprise is not None]
    if not surprises:
        return {}
    return {
        "entropy": round(sum(surprises) / len(surprises), 4),
        "length": round(sum(turn.num_sampled for turn in turns) / len(turns), 2),
    }


def num_waiting(log: LearningLog) -> int:
    """Turns that the learner may still take."""
    pending = log.account(POLICY).pending
    return pending["waiting"] + pending["unjudged"] + pending["claimed"]


async def until(holds: Callable[[], bool], *, most_s: float = MAX_WAIT_S) -> bool:
    """Waits until something holds; whether it did so in time. What another process does can only be polled."""
    deadline = time.monotonic() + most_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def settled(log: LearningLog) -> None:
    """Waits until no turn waits for the learner, or what waits has been the same for `SETTLED_S`."""
    deadline = time.monotonic() + MAX_WAIT_S
    left, since = num_waiting(log), time.monotonic()
    while left and time.monotonic() < min(since + SETTLED_S, deadline):
        await asyncio.sleep(0.1)
        now = num_waiting(log)
        if now != left:
            left, since = now, time.monotonic()


async def held_out(
    runtime: Runtime, make_env: MakeEnv, *, seed: int, version: int, num: int, temperature: float = 0.0
) -> list[Episode]:
    """Held-out tasks, played by one version.

    Raises:
        AgentRLError: an episode failed: what is left would be another set of tasks.
    """
    episodes = await run_episodes(
        make_env, runtime.base_url, f"nano@{version}", num_agents=NUM_JUDGES, num_episodes=num,
        temperature=temperature, purpose=Purpose.EVAL, split="held_out", seed=seed,
    )  # fmt: skip
    failed = next((episode.error for episode in episodes if episode.error), None)
    if failed is not None:
        raise AgentRLError(f"a held-out episode failed: {failed}")
    return episodes


def share(episodes: Sequence[Episode], name: str) -> float:
    """Of the episodes, those of which the environment says so; 0 of none."""
    return sum(bool(episode.info[name]) for episode in episodes) / max(len(episodes), 1)


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
    with LearningLog(folder, read_only=True) as log:
        await until(
            lambda: not log.account().pending["claimed"] and log.serving().number == runtime.versions.newest,
            most_s=DRAIN_S,
        )


def account(runtime: Runtime) -> dict[str, Any]:
    """What became of the turns, and why a guard paused the learner, if one did."""
    folder = Path(runtime.config.run_dir)
    with LearningLog(folder, read_only=True) as log:
        counted = log.account()
    return {
        "trained": counted.trained,
        "rejected": counted.rejected,
        "pending": counted.pending,
        "paused": pause_reason(folder),
    }


def num_prompt_ids(runtime: Runtime, version: int) -> float:
    """Mean ids of the prompts of the evaluation's requests that a version has answered."""
    with closing(connect(Path(runtime.config.run_dir) / "log.db", read_only=True)) as connection:
        (mean,) = connection.execute(
            "SELECT avg(num_prompt) FROM turns WHERE purpose = 'eval' AND version = ?", (version,)
        ).fetchone()
    return float(mean)
