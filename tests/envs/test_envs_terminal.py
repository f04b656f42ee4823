"""The terminal environment: every operation, in every kind of shell that starts here."""

from __future__ import annotations

import pytest
from envs_calls import call

from agentrl.errors import ConfigError
from agentrl.nano import vocabulary
from agentrl.types import Reply, ToolCall
from envs.house_rules import Family, HouseRules
from envs.sandbox.base import CommandResult, Ended
from envs.tasks import draw_task, is_held_out
from envs.terminal import Terminal, tool_text

HOUSE = HouseRules.draw(
    5, num_unknown=len(vocabulary.UNKNOWN_OPERATIONS), num_reachable=len(vocabulary.REACHABLE_OPERATIONS)
)
FREE_HOUSE = HouseRules.draw(5, num_unknown=0, num_reachable=0)


async def test_every_rule_refuses_what_is_usual_and_does_the_work_under_its_own_name(kind: str) -> None:
    env = Terminal(rules=HOUSE, shell=kind, max_steps=9)
    try:
        seen = set()
        for index in range(2 * len(vocabulary.OPERATIONS)):
            task = env.task("train", index)
            operation, values = task.data.operation, task.data.values
            rule = HOUSE.rule(operation.key)
            assert rule is not None
            await env.reset(task)
            for old in rule.refused():
                if old == operation.program:
                    old = operation.command
                result = await env.step(call(operation.line(old, values)))
                named = old if operation.key == "order_lines" else old.split()[0]
                expected = f"{rule.error(named)}\n[exit code {rule.exit_code}]"
                assert result.messages[0]["content"] == expected
                assert not result.info["success"]
                env._num_steps = 0
            result = await env.step(call(operation.line(rule.new, values)))
            assert result.reward == 1.0, (operation.key, task.data, result)
            assert result.done
            assert "[exit code" not in result.messages[0]["content"]
            seen.add(operation.key)
        assert len(seen) == len(vocabulary.OPERATIONS)
    finally:
        await env.aclose()


async def test_without_rules_every_known_way_works_at_the_first_try(kind: str) -> None:
    env = Terminal(rules=FREE_HOUSE, families=[Family.PLAIN], shell=kind)
    try:
        for index in range(len(vocabulary.OPERATIONS)):
            task = env.task("held_out", index)
            operation, values = task.data.operation, task.data.values
            for way in operation.alternatives or (operation.command,):
                await env.reset(task)
                result = await env.step(call(operation.line(way, values)))
                assert (result.reward, result.info["first_try"]) == (1.0, True), (way, task.data, result)
                assert result.info["family"] == "plain"
    finally:
        await env.aclose()


async def test_doing_nothing_or_something_else_is_no_success(kind: str) -> None:
    env = Terminal(rules=FREE_HOUSE, families=[Family.PLAIN], shell=kind, max_steps=2)
    try:
        for index in range(len(vocabulary.OPERATIONS)):
            await env.reset(env.task("train", index))
            first = await env.step(call("true"))
            assert (first.reward, first.done) == (None, False)
            second = await env.step(call("ls; pwd; rm -rf *"))
            if second.info["rule"] not in ("delete_file", "remove_directory"):
                assert (second.reward, second.done) == (0.0, True), (index, second)
    finally:
        await env.aclose()


async def test_deleting_more_than_asked_is_no_success(kind: str) -> None:
    env = Terminal(rules=FREE_HOUSE, families=[Family.PLAIN], shell=kind)
    try:
        index = next(i for i in range(99) if env.task("train", i).data.operation.key == "delete_file")
        await env.reset(env.task("train", index))
        result = await env.step(call("rm *"))
        assert not result.info["success"]
    finally:
        await env.aclose()


async def test_an_episode_ends_with_text_with_success_or_after_the_last_step() -> None:
    env = Terminal(rules=FREE_HOUSE, families=[Family.PLAIN], shell="simulated", max_steps=3)
    task = next(t for i in range(99) if (t := env.task("train", i)).data.operation.key == "make_directory")
    await env.reset(task)
    said = await env.step(Reply(text="Done."))
    assert (said.reward, said.done, said.messages) == (0.0, True, ())

    await env.reset(task)
    assert [(await env.step(call("false"))).done for _ in range(3)] == [False, False, True]

    patient = Terminal(rules=FREE_HOUSE, families=[Family.PLAIN], shell="simulated", end_on_success=False)
    await patient.reset(task)
    worked = await patient.step(call(f"mkdir {task.data.values['a']}"))
    assert (worked.reward, worked.done, worked.info["success"]) == (None, False, True)
    end = await patient.step(Reply(text="Done."))
    assert (end.reward, end.done) == (1.0, True)


async def test_it_is_known_of_each_reply_whether_its_commands_did_the_task() -> None:
    env = Terminal(
        rules=FREE_HOUSE, families=[Family.PLAIN], shell="simulated", max_steps=9, end_on_success=False
    )
    task = next(t for i in range(99) if (t := env.task("train", i)).data.operation.key == "make_directory")
    await env.reset(task)
    for command in ("false", f"mkdir {task.data.values['a']}", "false"):
        await env.step(call(command))
    end = await env.step(Reply(text="Done."))
    assert end.info["did_it"] == [False, True, None, None]
    await env.reset(task)
    assert (await env.step(Reply(text="Done."))).info["did_it"] == [None]


async def test_a_call_that_cannot_be_run_is_answered_and_not_raised() -> None:
    env = Terminal(shell="simulated", max_steps=9)
    await env.reset(env.task("train", 0))
    for name, arguments in (("shell", "{}"), ("bash", "{"), ("bash", "[]"), ("bash", '{"command": 3}')):
        result = await env.step(
            Reply(text="", tool_calls=(ToolCall(id="c", name=name, arguments=arguments),))
        )
        assert result.messages[0]["content"].startswith("error: ")
        assert result.messages[0]["content"].endswith("\n[exit code 2]")
        assert result.messages[0]["tool_call_id"] == "c"


def test_the_tool_message_has_the_format_that_nano_knows() -> None:
    assert tool_text(CommandResult(output="", exit_code=0)) == "(no output)"
    assert tool_text(CommandResult(output="a\nb\n", exit_code=0)) == "a\nb"
    assert tool_text(CommandResult(output="no\n", exit_code=127)) == "no\n[exit code 127]"
    assert tool_text(CommandResult(output="", exit_code=1)) == "(no output)\n[exit code 1]"
    assert tool_text(CommandResult(output="x" * 9999, exit_code=1)) == "x" * 2000 + "\n[exit code 1]"
    # Bytes, of which no tokenizer makes more ids; a letter is not cut in two.
    assert tool_text(CommandResult(output="äöü", exit_code=0), 5) == "äö"
    assert tool_text(CommandResult(output="\udcff\udcff", exit_code=0), 1) == "?"
    stopped = CommandResult(output="a", exit_code=124, ended=Ended.TIMED_OUT)
    assert tool_text(stopped) == "a\nthe command took too long and was stopped\n[exit code 124]"


def test_the_observation_is_the_demo_agents() -> None:
    env = Terminal(shell="simulated")
    task = env.task("train", 3)
    assert task == env.task("train", 3)
    assert task.data.text in {wording.format(**task.data.values) for wording in task.data.operation.wordings}


def test_no_name_is_in_both_splits() -> None:
    names: dict[str, set[str]] = {"train": set(), "held_out": set()}
    for split, found in names.items():
        for index in range(300):
            operation = vocabulary.OPERATIONS[index % len(vocabulary.OPERATIONS)]
            found |= set(draw_task(1, split, index, operation, ()).values.values())  # type: ignore[arg-type]
    assert not names["train"] & names["held_out"]
    assert all(map(is_held_out, names["held_out"]))


def test_a_house_is_fixed_by_its_seed() -> None:
    assert HouseRules.draw(7) == HouseRules.draw(7)
    assert HouseRules.draw(7).rules != HouseRules.draw(8).rules
    assert [rule.family for rule in HouseRules.draw(7).rules] == [Family.UNKNOWN] * 6 + [Family.REACHABLE] * 6


def test_invented_names_come_from_the_half_that_training_never_draws() -> None:
    for seed in range(20):
        names = [rule.new for rule in HouseRules.draw(seed).rules if rule.family is Family.UNKNOWN]
        assert len(set(names)) == len(names)
        assert all(vocabulary.half_of(name) == "rules" for name in names)


def test_known_and_withheld_wordings_both_occur() -> None:
    withheld = [rule.withheld for seed in range(40) for rule in HouseRules.draw(seed).rules]
    assert 0.15 < sum(withheld) / len(withheld) < 0.35


def test_settings_that_cannot_work_are_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match="there are 21 such"):
        HouseRules.draw(0, num_unknown=99)
    with pytest.raises(ConfigError, match="a share from 0 to 1"):
        HouseRules.draw(0, wrong_hints=2.0)
    with pytest.raises(ConfigError, match="it goes from 0 to 1"):
        HouseRules.draw(0).changed(1.5)
    with pytest.raises(ConfigError, match="wrong_hints is for a house that is drawn here"):
        Terminal(rules=FREE_HOUSE, wrong_hints=0.5)
    with pytest.raises(ConfigError, match="use unknown, reachable, plain"):
        Terminal(families=["easy"])
    with pytest.raises(ConfigError, match="use train or held_out"):
        Terminal().task("test", 0)  # type: ignore[arg-type]
