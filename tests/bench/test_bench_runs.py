"""Runs as a whole, small."""

import json

import pytest

from agentrl.types import Purpose, Reply, ToolCall
from bench import curves, learning, memory, poisoning
from bench.runs import Unrewarded, share, until
from envs.house_rules import HouseRules
from envs.runner import Episode
from envs.terminal import Terminal


def test_a_share_is_that_of_the_episodes_of_which_it_is_said() -> None:
    found = [
        Episode(
            session="s", task_key="t", index=0, group=0, purpose=Purpose.EVAL, reward=None, num_turns=1,
            latencies_s=(), num_failed_requests=0, versions=(), info={"first_try": held},
        )
        for held in (True, False, False, False)
    ]  # fmt: skip
    assert share(found, "first_try") == 0.25
    assert share([], "first_try") == 0.0


async def test_waiting_ends_with_what_is_waited_for_or_with_the_time() -> None:
    looks = iter((False, False, True))
    assert await until(lambda: next(looks)) is True
    assert list(looks) == []
    assert await until(lambda: False, most_s=0.05) is False


@pytest.mark.heavy
def test_a_small_run_of_each_kind_fills_its_table() -> None:
    poisoned = poisoning.one_run("trigger", 0, 40, 18)
    assert poisoned["training"]["turns"] >= 40
    assert poisoned["training"]["failed"] == 0
    assert poisoned["after"]["num"] == poisoned["triggered"]["num"] == 18
    assert "| trigger | 1 | 40 |" in poisoning.table([poisoned])
    learned = memory.one_run(12, "learned", 0, 40, 16)
    told = memory.one_run(12, "prompt", 0, 40, 16)
    assert learned["account"]["trained"] > 0
    # What was played was learned from before the last version was measured.
    assert learned["account"]["pending"]["waiting"] == learned["account"]["pending"]["claimed"] == 0
    assert learned["ids"] < told["ids"] / 3
    assert "12 rules: learned over prompt" in memory.table([learned, told])


@pytest.mark.heavy
def test_a_run_whose_rules_change_is_measured_by_the_old_and_by_the_new_ones_and_says_what_is_kept() -> None:
    row = learning.one_run("rules change", 0, 7e-4, 60)
    points = row["points"]
    assert [point["turns"] for point in points] == [0, 10, 20, 30, 30, 40, 50, 60]
    assert points[3]["version"] == points[4]["version"]
    assert points[3]["unchanged"] == points[4]["unchanged"]
    assert all(0 < point["entropy"] < 8 and point["length"] > 1 for point in points[1:])
    assert row["kept"]["before"]["tasks without a rule"] == 1.0
    assert row["kept"]["before"].keys() == row["kept"]["after"].keys()
    assert "| rules change | 30 of 60 | 1 |" in curves.tables([row])


async def test_an_environment_without_rewards_says_all_else() -> None:
    env = Unrewarded(Terminal(seed=1, shell="simulated", max_steps=1))
    task = env.task("train", 0)
    seen = await env.reset(task)
    assert (env.name, len(seen.messages)) == ("terminal", 2)
    rule = HouseRules.draw(1).rule(task.data.operation.key)
    assert rule is not None
    arguments = json.dumps({"command": task.data.operation.line(rule.new, task.data.values)})
    result = await env.step(Reply(text="", tool_calls=(ToolCall(id="a", name="bash", arguments=arguments),)))
    assert (result.done, result.reward, result.info["success"]) == (True, None, True)
    await env.aclose()
