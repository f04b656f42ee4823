"""The rule judge on lines that people and tools may say next, imagined before the rules that read them were written.

None of them stands in the labelled set. The bounds are of whole kinds, so that nobody fits a rule to a line.
"""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from judge_turns import followed, make_turn, tool, user

from agentrl.signals.outputs import failed, is_outage
from agentrl.signals.rules import RuleJudge
from agentrl.signals.wording import approves, corrects
from agentrl.types import JSON, NextState, Reply, ToolCall, Turn

LINES = [
    json.loads(line) for line in Path(__file__).with_name("judge_lines.jsonl").read_text("utf-8").splitlines()
]


def called(name: str, call: str, number: int) -> ToolCall:
    arguments = call if call.startswith("{") else json.dumps({"command": call})
    return ToolCall(id=f"c{number}", name=name, arguments=arguments)


def ran(call: ToolCall, output: str) -> tuple[JSON, JSON]:
    function = {"name": call.name, "arguments": call.arguments}
    asked = {"role": "assistant", "tool_calls": [{"id": call.id, "function": function}]}
    return asked, {"role": "tool", "tool_call_id": call.id, "content": output}


def case(line: JSON) -> tuple[Turn, NextState]:
    if "said" in line:
        return make_turn(line["reply"], messages=(user(line["asked"]),)), followed(user(line["said"]))
    history: tuple[JSON, ...] = (user("Do it."),)
    if line["kind"] == "repair":
        history += ran(called("bash", line["check"], 2), line["failed"])
        history += ran(called("bash", line["change"], 3), "")
        call = called("bash", line["check"], 1)
    else:
        call = called(line["tool"], line["call"], 1)
    reply = Reply(text="", tool_calls=(call,))
    return replace(make_turn(messages=history), reply=reply), followed(tool(line["output"]))


def rewards(kind: str) -> list[float | None]:
    return [asyncio.run(RuleJudge().judge(*case(line))).reward for line in LINES if line["kind"] == kind]


@pytest.mark.parametrize(
    ("kind", "num", "reward", "least"),
    [
        ("correction", 36, -1.0, 0.85),
        ("praise", 14, 1.0, 0.9),
        ("error", 24, -1.0, 0.9),
        ("progress", 8, 1.0, 0.85),
        ("repair", 4, 1.0, 1.0),
    ],
)
def test_what_is_plain_to_a_reader_is_judged_right_and_the_rest_is_left(
    kind: str, num: int, reward: float, least: float
) -> None:
    given = rewards(kind)

    assert len(given) == num
    assert given.count(reward) >= least * num
    assert given.count(reward) + given.count(None) == num


@pytest.mark.parametrize(("kind", "num"), [("new_task", 36), ("outage", 26), ("plain", 13)])
def test_new_tasks_that_begin_like_corrections_outages_and_plain_output_are_not_judged(
    kind: str, num: int
) -> None:
    given = rewards(kind)

    assert len(given) == num
    assert given.count(None) >= 0.95 * num


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "piece", ["no ", "you ", "the a ", "not ", "your a-", "so, ", "that's ", "but ", "connection ", "a.b(1,"]
)
def test_a_long_message_is_read_in_no_time(piece: str) -> None:
    text = piece * 40_000
    for said in (text, text + "wrong"):
        assert corrects(said, reply=said, asked=said) in (True, False)
        assert approves(said) in (True, False)
        assert failed(said) in (True, False)
        assert is_outage(said) in (True, False)
