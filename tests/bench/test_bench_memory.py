"""Learning compared with memory: many rules, and what the comparison is judged by."""

import math
from typing import Any

import pytest

from agentrl.errors import ConfigError
from agentrl.types import Reply, ToolCall
from bench.memory import make_env, paired, ratio, table
from bench.projects import Projects


def call(command: str) -> Reply:
    arguments = '{"command": "' + command + '"}'
    return Reply(text="", tool_calls=(ToolCall(id="c1", name="bash", arguments=arguments),))


def test_ten_projects_are_two_hundred_rules_each_of_which_is_asked_for_in_both_splits() -> None:
    env = Projects(seed=1)
    asked = {(env.projects[place], data.operation.key) for place, data in tasks(env, "train", 200)}

    assert len(env.projects) == len(set(env.projects)) == 10
    assert len(asked) == 200
    assert asked == {(env.projects[place], data.operation.key) for place, data in tasks(env, "held_out", 200)}
    assert sum(len(house.rules.rules) for house in env.houses) == 200


def tasks(env: Projects, split: Any, number: int) -> list[Any]:
    return [env.task(split, index).data for index in range(number)]


def test_the_request_names_the_project_and_nothing_else_tells_the_houses_apart() -> None:
    env = Projects(seed=1, num_projects=3)
    for index in range(9):
        place, data = env.task("train", index).data
        assert place == index % 3
        assert data.text.endswith(f" The project is {env.projects[place]}.")
    assert env.task("train", 0).key != env.task("train", 1).key


async def test_the_same_command_is_answered_by_the_rules_of_the_tasks_own_project() -> None:
    env = Projects(seed=1, num_projects=2, shell="simulated")
    answers: dict[str, set[str]] = {}
    for index in range(200):
        task = env.task("train", index)
        place, data = task.data
        if data.operation.key != "show_file":
            continue
        await env.reset(task)
        result = await env.step(call(f"cat {data.values['a']}"))
        rule = env.houses[place].rules.rule("show_file")
        assert rule is not None
        assert rule.new in result.messages[0]["content"]
        right = await env.step(call(f"{rule.new} {data.values['a']}"))
        assert right.info["success"] is True
        answers.setdefault(env.projects[place], set()).add(rule.new)
    await env.aclose()
    assert answers
    assert all(len(names) == 1 for names in answers.values())


async def test_told_are_all_rules_or_as_many_as_asked_for() -> None:
    async def system(**options: Any) -> str:
        env = Projects(seed=1, num_projects=3, shell="simulated", **options)
        seen = await env.reset(env.task("held_out", 0))
        await env.aclose()
        assert seen.messages[0]["role"] == "system"
        return str(seen.messages[0]["content"])

    first = Projects(seed=1, num_projects=3).projects[0]
    assert (await system()).count("Hint: ") == 0
    assert (await system(told="all")).count("Hint: ") == 60
    assert (await system(told="all")).count(f"Hint: project {first}: ") == 20
    assert (await system(told="all", num_told=7)).count("Hint: ") == 7


async def test_retrieved_are_twelve_rules_of_the_tasks_project_the_needed_one_at_any_place_among_them() -> (
    None
):
    env = Projects(seed=1, num_projects=2, shell="simulated", told="retrieved")
    places = set()
    for index in range(30):
        task = env.task("held_out", index)
        place, data = task.data
        seen = await env.reset(task)
        lines = seen.messages[0]["content"].splitlines()[1:]
        rules = env.houses[place].rules
        needed = rules.told()[[rule.key for rule in rules.rules].index(data.operation.key)]
        assert len(lines) == len(set(lines)) == 12
        assert set(lines) < set(rules.told())
        places.add(lines.index(needed))
    await env.aclose()
    assert len(places) > 6


def test_projects_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 20"):
        Projects(num_projects=21)
    with pytest.raises(ConfigError, match="use nothing, all or retrieved"):
        Projects(told="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("num_rules", [12, 60])
def test_all_arms_play_the_same_held_out_tasks(num_rules: int) -> None:
    arms = ("learned", "prompt") if num_rules == 12 else ("learned", "prompt", "retrieved")
    environments = [make_env(num_rules, 2, arm, max_steps=1)() for arm in arms]
    for index in range(40):
        drawn = [env.task("held_out", index) for env in environments]
        assert all(task == drawn[0] for task in drawn)


def run(arm: str, seed: int, success: float, ids: float, **more: Any) -> dict[str, Any]:
    known = {
        "rules": 12, "arm": arm, "seed": seed, "turns": 1200, "num": 240, "success": success, "ids": ids,
        "curve": [0.1, 0.9] if arm == "learned" else [], "seconds": {"all": 60.0},
    }  # fmt: skip
    return known | more


def test_runs_are_compared_by_seed_and_the_ratio_is_that_of_the_means() -> None:
    found = [
        run("learned", 0, 0.9, 40),
        run("prompt", 0, 0.8, 230),
        run("learned", 1, 0.6, 44),
        run("prompt", 1, 0.7, 250),
        run("learned", 2, 0.1, 40),
        run("prompt", 2, 0.9, 40, turns=7),
        run("prompt", 0, 0.1, 4000, rules=200),
    ]
    pairs = paired(found, 12)
    assert [(learned["seed"], prompt["seed"]) for learned, prompt in pairs] == [(0, 0), (1, 1)]
    assert ratio(pairs, "success") == pytest.approx(1.0)
    assert ratio(pairs, "ids") == pytest.approx(84 / 480)
    assert math.isinf(ratio([(run("learned", 0, 0.5, 1), run("prompt", 0, 0.0, 1))], "success"))


def test_the_table_says_whether_the_claim_holds_and_at_what_share_of_the_ids() -> None:
    found = [run("learned", 0, 0.76, 40), run("prompt", 0, 0.8, 200)]
    shown = table(found)
    assert "| 12 | learned | 1 | 1200 | 0.760 [0.000, 1.000] | 40 | 0.10, 0.90 | 60 |" in shown
    assert "| 12 | prompt | 1 | 1200 | 0.800 [0.000, 1.000] | 200 | - | 60 |" in shown
    assert (
        "12 rules: learned over prompt 0.950 (at least 0.95: holds), with 0.20 of the prompt's ids, 1 seeds"
        in shown
    )
    found = [run("learned", 0, 0.5, 40, rules=200), run("prompt", 0, 0.5, 1900, rules=200)]
    assert "200 rules: learned over prompt 1.000 (above 1: does not hold)" in table(found)
