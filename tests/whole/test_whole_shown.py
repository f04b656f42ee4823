"""One correction, from the prompt into the weights: the model that ships, its engine and its learner."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentrl.config import load_config
from agentrl.learner.control import set_paused
from agentrl.store.learning_log import LearningLog
from agentrl.types import Purpose, Turn
from envs.house_rules import HouseRules
from envs.runner import Episode, run_episodes
from envs.terminal import Terminal
from server.runtime import Runtime

SEED = 1
RULES = HouseRules.draw(SEED, num_unknown=1, num_reachable=0)
OVERRIDES = {
    "optim.lr": 7e-4,
    "target": {"name": "extrap", "coef": 1.25},
    "batch.turns_per_step": 4,
    "batch.max_wait_s": 2.0,
    "limits.max_version_lag": 60,
    "limits.max_logprob_gap": 3.0,
}
"""What a model of two million parameters bears; steps of few turns, since there is but one rule to learn."""
MOST = 600
LAST = 16
"""Conversations in a row that begin without a lesson once the weights hold it."""


def house() -> Terminal:
    return Terminal(seed=SEED, rules=RULES, families=("unknown",), shell="simulated")


@pytest.mark.heavy
async def test_what_was_said_once_stands_in_the_next_prompts_and_at_the_end_in_the_weights(
    tmp_path: Path,
) -> None:
    config = load_config(
        model="nano",
        run_dir=str(tmp_path),
        server__port=0,
        server__max_tokens=64,
        engine__max_len=1024,
        engine__stick_s=0.0,
        learn__show_lessons=True,
        learn__nice=0,
        learn__overrides=OVERRIDES,
    )
    episodes: list[Episode] = []
    began: list[Turn] = []
    stop = asyncio.Event()
    async with Runtime(config) as runtime:

        async def count(episode: Episode) -> None:
            turns = await runtime.log.turns_of(episode.session, "default")
            episodes.append(episode)
            began.append(turns[0])
            if any(one.shown_lessons for one in began[:-LAST]) and not any(
                one.shown_lessons for one in began[-LAST:]
            ):
                stop.set()

        await run_episodes(
            house,
            runtime.base_url,
            "nano",
            num_agents=1,
            num_episodes=MOST,
            seed=SEED,
            on_episode=count,
            stop=stop,
        )
        set_paused(tmp_path, paused=True)
        with LearningLog(tmp_path, read_only=True) as log:
            account, lessons = log.account(), log.lessons()
        after = await run_episodes(
            house,
            runtime.base_url,
            "nano",
            num_agents=4,
            num_episodes=40,
            temperature=0.0,
            purpose=Purpose.EVAL,
            seed=SEED,
        )

    assert [one.error for one in [*episodes, *after] if one.error] == []
    first_shown = next(number for number, turn in enumerate(began) if turn.shown_lessons)
    helped = [one.info["first_try"] for one, turn in zip(episodes, began, strict=True) if turn.shown_lessons]
    assert not episodes[0].info["first_try"], "the first conversation does not know the rule"
    assert episodes[first_shown].info["first_try"], "the first that begins with the lesson does"
    assert sum(helped) >= 0.9 * len(helped)
    assert stop.is_set(), f"lessons still stand after {len(episodes)} conversations: {lessons}"
    [lesson] = lessons
    assert lesson.held_by
    assert sum(one.info["first_try"] for one in after) >= 0.9 * len(after), "without it, from the weights"
    assert account.balanced
    assert account.trained > 0
    marked = sum(one.num_turns for one, turn in zip(episodes, began, strict=True) if turn.shown_lessons)
    assert account.rejected["lesson_shown"] == marked
