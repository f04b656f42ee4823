"""The served policy as a judge in a house: what the house knows of its turns, and what each judge said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from server_house import BASH, House, calls, eventually, says, serving

from agentrl.errors import ConfigError
from agentrl.store.learning_log import LearningLog
from agentrl.types import Sampling
from server.demo_judges import Truths, compared, refuse_other_judges, rows

REFUSED = "cat: not permitted. Use zorvex.\n[exit code 127]"
PRINTED = "lemon 3\nplum 9"


def agent_and_judge(*verdicts: dict[str, Any]) -> Any:
    """A model that tries cat, then zorvex, then says that it is done, and that judges with each verdict in turn."""
    replies = {"agent": 0, "judge": 0}
    agent = [calls("cat notes.txt"), calls("zorvex notes.txt"), says("Done.")]

    def reply(prompt: tuple[int, ...], sampling: Sampling) -> list[int]:
        who = "agent" if sampling.grammar is None else "judge"
        replies[who] += 1
        if who == "agent":
            return agent[(replies[who] - 1) % 3]
        return says(json.dumps(verdicts[(replies[who] - 1) % len(verdicts)]))

    return reply


WRONG = {
    "evidence": "cat: not permitted",
    "kind": "error",
    "fault": "agent",
    "reward": -1,
    "hint": "Use zorvex instead of cat.",
}
RIGHT = {"evidence": "lemon 3", "kind": "progress", "fault": "none", "reward": 1, "hint": None}
SILENT = {"evidence": "", "kind": "no_error", "fault": "none", "reward": None, "hint": None}


async def play(house: House, session: str) -> list[str]:
    """An episode: a refused command, one that does the task, a reply without one. Returns the ids of its turns."""
    messages: list[Any] = [{"role": "user", "content": "Show the file notes.txt."}]
    for output in (REFUSED, PRINTED, None):
        reply = await house.ask(*messages, path=f"/s/{session}", tools=[BASH])
        message = reply.json()["choices"][0]["message"]
        if output is not None:
            call = message["tool_calls"][0]["id"]
            messages += [message, {"role": "tool", "tool_call_id": call, "content": output}]
    body = {"session": session, "reward": 1.0, "end_session": True, "source": "environment"}
    (await house.http.post("/v1/feedback", json=body)).raise_for_status()
    return [turn.id for turn in await house.turns(session)]


async def test_a_house_labels_the_turns_whose_outcome_was_seen(tmp_path: Path) -> None:
    async with serving(tmp_path, agent_and_judge()) as house:
        ids = await play(house, "a")
        await play(house, "unknown")
        truths = Truths()
        truths.note("a", "zorvex", [False, True, None])
        found = await truths.turns(house.runtime.log)

    assert [item.id for item in found] == ids[:2]
    assert [item.label.reward for item in found] == [-1, 1]
    assert [item.label.hint_contains for item in found] == [("zorvex",), ()]
    assert [item.next[0]["content"] for item in found] == [REFUSED, PRINTED]


async def test_turns_of_which_the_house_knows_nothing_are_left_out(tmp_path: Path) -> None:
    async with serving(tmp_path, agent_and_judge()) as house:
        ids = await play(house, "a")
        truths = Truths()
        truths.note("a", "zorvex", [None, True, None])
        found = await truths.turns(house.runtime.log)

    assert [item.id for item in found] == [ids[1]]


async def test_no_hint_is_due_where_nothing_named_the_right_command(tmp_path: Path) -> None:
    async with serving(tmp_path, agent_and_judge()) as house:
        await play(house, "a")
        truths = Truths()
        truths.note("a", "drimsol", [False, True, None])
        found = await truths.turns(house.runtime.log)

    assert [item.label.should_hint for item in found] == [False, False]


async def test_the_rules_and_the_policy_are_compared_on_the_same_turns_and_none_of_it_is_trained(
    tmp_path: Path,
) -> None:
    # Live: right, and silent on the second. Asked afresh: without a hint on the first, wrong on the second.
    afresh_said = ({**WRONG, "hint": None}, {**WRONG, "evidence": "lemon 3", "hint": "Use cat."})
    verdicts = (WRONG, SILENT, *afresh_said)
    settings = {
        "judge__backend": "self",
        "judge__when": "always",
        "judge__votes": 1,
        "judge__temperature": 0.0,
        "judge__max_concurrent": 1,
        "judge__max_retries": 0,
    }
    async with serving(tmp_path, agent_and_judge(*verdicts), **settings) as house:
        runtime = house.runtime
        first, second, _ = await play(house, "a")

        async def both_judged() -> bool:
            counts = await runtime.log.counts()
            return counts["turns.off"] == 2 and not await runtime.log.unjudged(10)

        await eventually(both_judged)
        truths = Truths()
        truths.note("a", "zorvex", [False, True, None])
        judges = await compared(runtime.log, truths, runtime.config, base_url=runtime.base_url, versions=[0])
        signals = await runtime.log.signals(first)
        silent = await runtime.log.signals(second)
        counts = await runtime.log.counts()

    assert [(one.source, one.reward, one.hint) for one in signals if one.offered is None] == [
        ("judge", -1.0, 'The judge said: "Use zorvex instead of cat."')
    ]
    assert {one.offered.partition(":")[0] for one in signals if one.offered} == {
        "The tool said",
        "The attempts showed",
    }
    assert silent == []
    afresh, recorded = judges["asked_afresh"], judges["recorded"]
    assert list(afresh) == ["rules", "self@0"]
    assert {row["num_turns"] for row in (*afresh.values(), recorded)} == {2}
    # The rules see the refusal, and no proof that the other command worked.
    assert (afresh["rules"]["accuracy"], afresh["rules"]["coverage"], afresh["rules"]["abstained"]) == (
        1,
        0.5,
        0.5,
    )
    assert afresh["rules"]["hints"]["precision"] == 1
    assert (afresh["self@0"]["accuracy"], afresh["self@0"]["coverage"], afresh["self@0"]["abstained"]) == (
        0.5,
        1,
        0,
    )
    # Without the rules' words in place of those that it did not find.
    assert afresh["self@0"]["hints"]["num_given"] == 1
    assert afresh["self@0"]["hints"]["precision"] == 0
    assert (recorded["accuracy"], recorded["coverage"]) == (1, 0.5)
    assert recorded["decided_by"] == {"judge": 1}
    assert rows(judges) == [
        ("rules", "2", "100 %", "50 %", "50 %", "1", "100 %"),
        ("self@0", "2", "50 %", "100 %", "0 %", "1", "0 %"),
        ("as recorded (nano behind the rules)", "2", "100 %", "50 %", "50 %", "1", "100 %"),
    ]
    # Two questions while it learned, two afterwards; what they were about are the only turns to learn from.
    assert counts["turns.off"] == 4
    assert counts["turns.train"] == 3
    with LearningLog(tmp_path) as log:
        claimed = log.claim(limit=100, needs="any", max_age_s=3600.0)
        assert log.account("default").apart == {"off": 4}
    assert {one.turn.session for one in claimed} == {"a"}


def test_a_judge_that_the_demo_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'openai'.*rules or self"):
        refuse_other_judges("openai")
