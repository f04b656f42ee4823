"""What a judge says is recorded together with the mark that it was asked, or not at all, wherever the process stops."""

from collections.abc import Callable
from typing import Any

import pytest
from store_samples import answer, make_turn, record

from agentrl.errors import StoreError
from agentrl.signals.judge import Judgement, ScriptedJudge
from agentrl.signals.loop import SignalLoop
from agentrl.store.signal_log import SignalLog
from agentrl.types import Signal, SignalSource


class Stopped(SignalLog):
    """Writes so many times more, as a process does that is killed."""

    left = 10**9

    async def _write(self, write: Callable[..., Any]) -> Any:
        self.left -= 1
        if self.left < 0:
            raise StoreError("killed")
        return await super()._write(write)


@pytest.mark.parametrize("num_writes", [0, 1, 2])
async def test_a_stop_anywhere_in_a_judgement_leaves_one_signal_after_the_next_start(
    tmp_path, num_writes: int
) -> None:
    judge = ScriptedJudge(lambda turn, state: Judgement(reward=-1.0, evidence="wrong"))
    async with await Stopped.open(tmp_path) as log:
        await record(log, make_turn("t1"))
        await answer(log, "t1")
        log.left = num_writes
        try:
            await SignalLoop(log, judge).step()
        except StoreError:
            assert num_writes == 0, "one transaction holds all that a judgement leaves"

    async with await SignalLog.open(tmp_path) as log:
        await SignalLoop(log, judge).step()
        assert [signal.reward for signal in await log.signals("t1")] == [-1.0]
        assert await log.unjudged(10) == []
        assert (await log.counts())["judgements.judged"] == 1


async def test_what_a_judgement_cannot_record_takes_all_of_it_along(log) -> None:
    await record(log, make_turn("t1"))
    await answer(log, "t1")
    said = [
        Signal(turn_id="t1", source=SignalSource.RULE, reward=1.0),
        Signal(turn_id="nobody", source=SignalSource.RULE, hint="use ls"),
    ]

    with pytest.raises(StoreError):
        await log.mark_judged("t1", "judged", signals=said)

    assert await log.signals("t1") == []
    assert [turn.id for turn, _ in await log.unjudged(10)] == ["t1"]
