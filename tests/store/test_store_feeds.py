"""What a feed of the log brings, and from where it goes on."""

import json
from pathlib import Path

import pytest
from store_samples import make_turn

from agentrl.store.feeds import HintedTurns, SignalledTurns
from agentrl.store.signal_log import SignalLog
from agentrl.types import Purpose, Reply, Signal, SignalSource, ToolCall


@pytest.fixture
async def log(tmp_path: Path):
    async with await SignalLog.open(tmp_path) as log:
        yield log


async def turn(
    log: SignalLog, name: str, session: str, command: str, purpose: Purpose = Purpose.TRAIN
) -> None:
    call = ToolCall(id="c", name="bash", arguments=json.dumps({"command": command}))
    made = make_turn(name, session=session, reply=Reply(text="", tool_calls=(call,)), purpose=purpose)
    await log.record_turn(made, history_key=f"h-{name}", reply_key=f"r-{name}")


async def rewards(log: SignalLog, name: str, reward: float, source: SignalSource) -> None:
    await log.record_signal(Signal(turn_id=name, source=source, reward=reward, created_at=2000.0))


async def test_an_episode_that_failed_comes_once_with_the_calls_of_all_its_turns(
    tmp_path: Path, log: SignalLog
) -> None:
    for place, command in enumerate(("cat a", "musstor a")):
        await turn(log, f"failed{place}", "s1", command)
    await turn(log, "looked", "s1", "blorp a", Purpose.EVAL)
    await turn(log, "later", "s1", "zorp a")  # of the next task
    await turn(log, "right", "s2", "nl a")
    await turn(log, "asked", "s3", "ls", Purpose.EVAL)
    await rewards(log, "failed1", 0.0, SignalSource.ENVIRONMENT)
    await rewards(log, "right", 1.0, SignalSource.ENVIRONMENT)
    await rewards(log, "right", 0.0, SignalSource.USER)  # says nothing of the episode
    await rewards(log, "asked", 0.0, SignalSource.ENVIRONMENT)

    with HintedTurns(tmp_path, "default", most=100) as hinted:
        failed, right = hinted.outcomes()

        assert (failed.scope, failed.session, failed.reward) == ("default", "s1", 0.0)
        assert {json.loads(call.arguments)["command"] for call in failed.calls} == {"cat a", "musstor a"}
        assert (right.session, right.reward, right.calls) == ("s2", 1.0, ())
        assert hinted.outcomes() == []


async def test_hints_that_are_merely_offered_push_no_turn_out_of_a_new_feed(
    tmp_path: Path, log: SignalLog
) -> None:
    for name in ("first", "second"):
        await turn(log, name, name, "cat a")
        await rewards(log, name, -1.0, SignalSource.RULE)
        for text in ("use musstor", "use zorp"):
            await log.record_signal(
                Signal(turn_id=name, source=SignalSource.RULE, offered=text, created_at=2000.0)
            )

    with SignalledTurns(tmp_path, "default", most=2) as feed:
        assert [said.turn.id for said in feed.new()] == ["first", "second"]
