"""Rollouts against a server: what their summary says."""

import os
import signal
from pathlib import Path
from typing import Any

from server_house import House, says, serving

from agentrl.types import Sampling
from server.rollout import run_rollout


async def play(house: House, env: str, num_episodes: int) -> dict[str, Any]:
    return await run_rollout(
        env=env,
        base_url=house.runtime.base_url,
        model="nano",
        api_key="k",
        num_agents=1,
        num_episodes=num_episodes,
        group_size=1,
        temperature=1.0,
        purpose="train",
        split=None,
        seed=0,
    )


async def test_an_environment_that_rewards_nothing_has_no_success(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda ids, sampling: says("The lamp is fine.")) as house:
        found = await play(house, "personal", 2)

    assert (found["num_episodes"], found["success"], found["interrupted"]) == (2, None, False)


async def test_a_rollout_that_was_interrupted_says_so_and_one_that_was_told_to_end_does_not(
    tmp_path: Path,
) -> None:
    for number, is_interrupted in ((signal.SIGINT, True), (signal.SIGTERM, False)):

        def reply(ids: tuple[int, ...], sampling: Sampling, number: signal.Signals = number) -> list[int]:
            os.kill(os.getpid(), number)
            return says("The task is finished.")

        async with serving(tmp_path / number.name, reply) as house:
            found = await play(house, "terminal", 500)

        assert found["interrupted"] is is_interrupted
        assert found["num_episodes"] < 500
        assert found["success"] is not None
