"""The client that teaches one rule: always the same words, and errors that say what is right."""

import json

import pytest

from agentrl.types import Reply, ToolCall
from bench.single import Single, drawn, reworded


def called(command: str) -> Reply:
    return Reply(
        text="", tool_calls=(ToolCall(id="c1", name="bash", arguments=json.dumps({"command": command})),)
    )


def test_every_task_is_asked_for_in_one_wording_and_the_others_in_none_of_them() -> None:
    rule = drawn(1)
    assert drawn(1) == rule
    assert rule.operation.wordings == ("Show the file {a}.",)
    env = Single(rule, seed=1)
    texts = [env.task("train", index).data.text for index in range(10)]
    assert all(text.startswith("Show the file ") for text in texts)
    assert len(set(texts)) > 5
    assert "Show the file {a}." not in reworded(rule).operation.wordings


@pytest.mark.parametrize(
    ("strict", "command", "said"),
    [
        (False, "cat {a}", "bash: cat: is not installed, but hevar is"),
        (False, "noise {a}", "noise: command not found"),
        (True, "noise {a}", "bash: noise: is not installed, but hevar is"),
    ],
)
async def test_a_strict_client_says_of_every_wrong_command_what_is_right(
    strict: bool, command: str, said: str
) -> None:
    env = Single(drawn(1), strict=strict, seed=1)
    try:
        task = env.task("train", 0)
        await env.reset(task)
        answer = await env.step(called(command.format(**task.data.values)))
        assert said in answer.messages[0]["content"]
        right = await env.step(called("hevar {a}".format(**task.data.values)))
        assert right.info["success"]
    finally:
        await env.aclose()
