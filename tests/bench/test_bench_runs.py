"""Runs as a whole, small."""

import pytest

from agentrl.types import Purpose
from bench import memory, poisoning
from bench.runs import share, until
from envs.runner import Episode


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
