"""Houses that lie, and houses that change their mind."""

from __future__ import annotations

from dataclasses import replace

from envs_calls import call

from agentrl.nano import vocabulary
from bench.changing import Changing
from envs.house_rules import Family, HouseRules, Rule
from envs.terminal import Terminal


def honest(rule: Rule) -> Rule:
    return replace(rule, wrong=())


def test_a_house_that_lies_has_the_rules_of_the_honest_one() -> None:
    for seed in range(20):
        liar = HouseRules.draw(seed, wrong_hints=1.0)
        assert tuple(map(honest, liar.rules)) == HouseRules.draw(seed).rules
        assert liar == HouseRules.draw(seed, wrong_hints=1.0)


def test_the_share_of_lies_is_that_of_each_family() -> None:
    liars = [rule.family for rule in HouseRules.draw(3, wrong_hints=0.5).rules if rule.wrong]
    assert liars == [Family.UNKNOWN] * 3 + [Family.REACHABLE] * 3
    assert not any(rule.wrong for rule in HouseRules.draw(3).rules)


def test_a_wrong_name_is_one_that_could_have_been_right() -> None:
    for seed in range(20):
        rules = HouseRules.draw(seed, 21, 14, wrong_hints=1.0).rules
        right = {rule.new for rule in rules}
        for rule in rules:
            if rule.family is Family.UNKNOWN:
                (name,) = rule.wrong
                assert vocabulary.half_of(name) == "rules"
                assert name not in right
            else:
                assert len(set(rule.wrong)) == 2
                assert set(rule.wrong) <= set(rule.operation.alternatives) - {rule.new}
        invented = [name for rule in rules if rule.family is Family.UNKNOWN for name in rule.wrong]
        assert len(set(invented)) == 21


async def test_a_wrong_hint_names_what_does_not_work_and_the_right_command_works_as_ever(kind: str) -> None:
    rules = HouseRules.draw(5, 21, 14, wrong_hints=1.0)
    env = Terminal(rules=rules, shell=kind, max_steps=9)
    try:
        for index in range(len(vocabulary.OPERATIONS)):
            task = env.task("train", index)
            operation, values = task.data.operation, task.data.values
            rule = rules.rule(operation.key)
            assert rule is not None
            await env.reset(task)
            usual = operation.command if rule.family is Family.UNKNOWN else rule.refused()[0]
            refused = await env.step(call(operation.line(usual, values)))
            said = refused.messages[0]["content"]
            named = usual if operation.key == "order_lines" else usual.split()[0]
            assert said == f"{rule.error(named)}\n[exit code {rule.exit_code}]"
            assert any(way in said for way in rule.wrong)
            if rule.family is Family.UNKNOWN:
                assert rule.new not in said

            await env.reset(task)
            obeyed = await env.step(call(operation.line(rule.wrong[0], values)))
            assert (obeyed.info["misled"], obeyed.info["success"]) == (True, False)
            assert "[exit code" in obeyed.messages[0]["content"]
            done = await env.step(call(operation.line(rule.new, values)))
            assert (done.reward, done.info["misled"], done.info["first_try"]) == (1.0, True, False)

            await env.reset(task)
            right = await env.step(call(operation.line(rule.new, values)))
            assert (right.info["misled"], right.info["first_try"]) == (False, True)
    finally:
        await env.aclose()


async def test_the_solution_of_a_task_does_it() -> None:
    env = Terminal(seed=4, shell="simulated")
    for index in range(12):
        task = env.task("train", index)
        await env.reset(task)
        solution = (await env.step(call("true"))).info["solution"]
        assert (await env.step(call(solution))).reward == 1.0
    await env.aclose()


def test_half_of_each_family_changes_and_the_rest_stays() -> None:
    for seed in range(20):
        before = HouseRules.draw(seed)
        after = before.changed(0.5)
        assert after == before.changed(0.5)
        assert [rule.key for rule in after.rules] == [rule.key for rule in before.rules]
        changed = [new for old, new in zip(before.rules, after.rules, strict=True) if old.new != new.new]
        kept = [new for old, new in zip(before.rules, after.rules, strict=True) if old == new]
        assert [rule.family for rule in changed] == [Family.UNKNOWN] * 3 + [Family.REACHABLE] * 3
        assert len(kept) == 6
        names = [rule.new for rule in (*before.rules, *changed) if rule.family is Family.UNKNOWN]
        assert len(set(names)) == 9


async def test_a_house_that_changes_refuses_what_worked_and_asks_for_something_else() -> None:
    moment = {"changed": False}
    env = Changing(seed=3, has_changed=lambda: moment["changed"], shell="simulated")
    before, after = (house.rules for house in env.houses)
    works: dict[tuple[bool, bool], list[float | None]] = {}
    for index in range(12):
        for now in (False, True):
            moment["changed"] = now
            task = env.task("train", index)
            _, data = task.data
            old = before.rule(data.operation.key)
            assert old is not None
            seen = await env.reset(task)
            assert seen.messages[1]["content"] == data.text
            result = await env.step(call(data.operation.line(old.new, data.values)))
            works.setdefault((result.info["changed"], now), []).append(result.reward)
            new = after.rule(data.operation.key)
            assert new is not None
            if result.info["changed"] and now:
                assert new.new in result.messages[0]["content"]
                assert (await env.step(call(data.operation.line(new.new, data.values)))).reward == 1.0
    await env.aclose()
    assert works[False, False] == works[False, True] == works[True, False] == [1.0] * 6
    assert works[True, True] == [None] * 6
