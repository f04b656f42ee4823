"""The loop that judges: nobody waits for a slow judge, a failed one rests, a broken log ends the run."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from judge_bench import CORRECTED, SILENT, made
from judge_endpoint import endpoint, verdict
from judge_turns import make_turn

from agentrl.errors import JudgeError
from agentrl.signals.judge import Judgement, ScriptedJudge
from agentrl.signals.loop import SignalLoop
from agentrl.types import NextState, Signal, SignalSource, Turn


class Log:
    """The log that the loop needs, with turns that wait."""

    def __init__(self, *waiting: tuple[Turn, NextState]) -> None:
        self.due = {turn.id: (turn, state) for turn, state in waiting}
        self.signals: list[Signal] = []
        self.marks: list[tuple[str, str]] = []
        self.marked = asyncio.Condition()
        self.looked = asyncio.Semaphore(0)

    async def answered(self, timeout_s: float, /) -> None:
        self.looked.release()
        async with self.marked:
            await self.marked.wait()

    async def unjudged(self, limit: int, besides: Any, /) -> list[tuple[Turn, NextState]]:
        return [pair for name, pair in self.due.items() if name not in besides][:limit]

    async def mark_judged(
        self, turn_id: str, outcome: str, detail: str = "", signals: Sequence[Signal] = (), /
    ) -> None:
        self.signals += signals
        self.marks.append((turn_id, outcome))
        if outcome != "failed":
            del self.due[turn_id]
        async with self.marked:
            self.marked.notify_all()

    async def until(self, num: int) -> None:
        async with asyncio.timeout(10), self.marked:
            await self.marked.wait_for(lambda: len(self.marks) >= num)

    async def turn(self, turn_id: str, /) -> Turn | None:
        return None


def named(turn_id: str, state: NextState) -> tuple[Turn, NextState]:
    return make_turn("Ok.", id=turn_id), NextState(turn_id=turn_id, messages=state.messages)


async def test_a_turn_that_waits_for_the_model_holds_up_none_that_the_rules_judge() -> None:
    async with endpoint(lambda body: [verdict()] * 3) as served:
        served.gate.clear()
        bench = made(served)
        log = Log(named("slow", SILENT), named("quick", CORRECTED))
        task = asyncio.create_task(SignalLoop(log, bench.judge, timeout_s=None, batch=4).run())
        await served.asked.acquire()
        await log.until(1)
        log.due["later"] = named("later", CORRECTED)
        async with log.marked:
            log.marked.notify_all()
        await log.until(2)
        assert log.marks == [("quick", "judged"), ("later", "judged")]
        served.gate.set()
        await log.until(3)
        task.cancel()
        await asyncio.wait([task])
        await bench.aclose()

    assert len(served.bodies) == 1
    assert {signal.turn_id: signal.source for signal in log.signals} == {
        "quick": SignalSource.RULE,
        "later": SignalSource.RULE,
        "slow": SignalSource.JUDGE,
    }


async def test_a_turn_whose_judge_failed_rests_before_it_is_judged_again() -> None:
    now = [100.0]
    log = Log(named("t", SILENT))

    def fail(turn: Turn, state: NextState) -> Judgement:
        raise JudgeError("no answer")

    loop = SignalLoop(log, ScriptedJudge(fail), retry_s=10.0, clock=lambda: now[0])
    tried = []
    for now[0] in (100.0, 109.0, 110.0, 129.0, 130.0, 169.0, 170.0):
        tried.append(await loop.step())

    # after 10, 20 and 40 seconds
    assert tried == [1, 0, 1, 0, 1, 0, 1]
    assert log.marks == [("t", "failed")] * 4


async def test_a_log_that_fails_ends_the_run_and_leaves_no_judge_at_work() -> None:
    class Broken(Log):
        async def mark_judged(self, *_: object) -> None:
            raise OSError("disk full")

        async def answered(self, timeout_s: float, /) -> None:
            await asyncio.sleep(0)

    async with endpoint(lambda body: [verdict()] * 3) as served:
        served.gate.clear()
        bench = made(served)
        log = Broken(named("slow", SILENT), named("quick", CORRECTED))
        with pytest.raises(OSError, match="disk full"):
            await SignalLoop(log, bench.judge, timeout_s=None).run()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("judge ")]
        await bench.aclose()
