"""The signal loop: turns whose next state is known go to the judge, what it says goes to the log.

    log.unjudged() -> judge.judge(turn, next state) -> log.record_signal() -> log.mark_judged()
          ^                  |
          |                  └ JudgeError or time-out: mark_judged(outcome="failed"); the log hands the turn
          └── log.answered()              out again until max_attempts, then counts it as failed for good

A failure is never a signal (law 6). The loop holds no state of its own: kill it at any point and what was
not marked is judged again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

from agentrl.errors import JudgeError
from agentrl.signals.judge import Judge, Judgement
from agentrl.types import NextState, Signal, Turn

logger = logging.getLogger(__name__)


class JudgedLog(Protocol):
    """What the loop needs of the signal log."""

    async def answered(self, timeout_s: float, /) -> None: ...

    async def unjudged(self, limit: int, /) -> list[tuple[Turn, NextState]]: ...

    async def record_signal(self, signal: Signal, /) -> None: ...

    async def mark_judged(self, turn_id: str, outcome: str, detail: str = "", /) -> None: ...


class SignalLoop:
    """Owns the task that judges. `run` ends only when cancelled."""

    def __init__(
        self,
        log: JudgedLog,
        judge: Judge,
        *,
        timeout_s: float = 60.0,
        poll_s: float = 0.25,
        batch: int = 64,
        max_concurrent: int = 8,
    ) -> None:
        self._log = log
        self._judge = judge
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._batch = batch
        self._slots = asyncio.Semaphore(max_concurrent)

    async def run(self) -> None:
        while True:
            if await self.step() == 0:
                await self._log.answered(self._poll_s)

    async def step(self) -> int:
        """Judges one batch of turns; returns how many were looked at."""
        waiting = await self._log.unjudged(self._batch)
        await asyncio.gather(*(self._judge_one(turn, state) for turn, state in waiting))
        return len(waiting)

    async def _judge_one(self, turn: Turn, state: NextState) -> None:
        async with self._slots:
            try:
                judgement = await asyncio.wait_for(self._judge.judge(turn, state), self._timeout_s)
            except TimeoutError:
                await self._fail(turn, f"no answer within {self._timeout_s:g} s")
                return
            except Exception as error:  # noqa: BLE001 - a judge is anybody's code; law 6 holds whatever it raises
                kind = "" if isinstance(error, JudgeError) else f"{type(error).__name__}: "
                await self._fail(turn, f"{kind}{error}")
                return
            if judgement.reward is None and judgement.hint is None:
                await self._log.mark_judged(turn.id, "abstained", judgement.evidence[:200])
                return
            await self._log.record_signal(self._signal(turn, judgement))
            await self._log.mark_judged(turn.id, "judged")

    async def _fail(self, turn: Turn, why: str) -> None:
        logger.warning("judge %s failed on turn %s: %s", self._judge.name, turn.id, why)
        await self._log.mark_judged(turn.id, "failed", why)

    def _signal(self, turn: Turn, judgement: Judgement) -> Signal:
        return Signal(
            turn_id=turn.id,
            source=self._judge.source,
            reward=judgement.reward,
            hint=judgement.hint,
            votes=judgement.votes,
            evidence=judgement.evidence,
            created_at=time.time(),
        )
