"""The signal loop: turns whose next state is known go to the judge, what it says goes to the log.

    log.unjudged() -> judge.judge(turn, next state) -> gates -> log.record_signal() -> log.mark_judged()
          ^                  |                           └ a refused hint is left out; the reward stays
          |                  └ JudgeError or time-out: mark_judged(outcome="failed"); the log hands the turn
          └── log.answered()              out again until max_attempts, then counts it as failed for good

A failure is never a signal (law 6). The loop holds no state of its own: kill it at any point and what was
not marked is judged again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from agentrl.errors import JudgeError
from agentrl.signals.candidates import candidates, from_judge, of_parent
from agentrl.signals.gates import admit, as_hint, case_of
from agentrl.signals.judge import Judge, Judgement
from agentrl.types import NextState, Purpose, Signal, SignalSource, Turn

logger = logging.getLogger(__name__)

ACCEPTED = "accepted"


class JudgedLog(Protocol):
    """What the loop needs of the signal log."""

    async def answered(self, timeout_s: float, /) -> None: ...

    async def unjudged(self, limit: int, /) -> list[tuple[Turn, NextState]]: ...

    async def record_signal(self, signal: Signal, /) -> None: ...

    async def mark_judged(self, turn_id: str, outcome: str, detail: str = "", /) -> None: ...

    async def turn(self, turn_id: str, /) -> Turn | None: ...


class SignalLoop:
    """Owns the task that judges. `run` ends only when cancelled.

    Args:
        counted: told of every hint what became of it: "accepted", or the gate that refused it.
    """

    def __init__(
        self,
        log: JudgedLog,
        judge: Judge,
        *,
        timeout_s: float = 60.0,
        poll_s: float = 0.25,
        batch: int = 64,
        max_concurrent: int = 8,
        counted: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._log = log
        self._judge = judge
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._batch = batch
        self._slots = asyncio.Semaphore(max_concurrent)
        self._counted = counted

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
                said = await asyncio.wait_for(self._judge.judge(turn, state), self._timeout_s)
                judgement, refusal = self._gated(turn, state, said)
            except TimeoutError:
                await self._fail(turn, f"no answer within {self._timeout_s:g} s")
                return
            except Exception as error:  # noqa: BLE001 - a judge is anybody's code; law 6 holds whatever it raises
                kind = "" if isinstance(error, JudgeError) else f"{type(error).__name__}: "
                await self._fail(turn, f"{kind}{error}")
                return
            if judgement.reward is None and judgement.hint is None:
                await self._log.mark_judged(turn.id, "abstained", refusal or judgement.evidence[:200])
                return
            await self._log.record_signal(self._signal(turn, judgement))
            if judgement.reward is not None and judgement.reward > 0:
                await self._teach_parent(turn)
            await self._log.mark_judged(turn.id, "judged", refusal)

    def _gated(self, turn: Turn, state: NextState, judgement: Judgement) -> tuple[Judgement, str]:
        """The judgement with its hint as a teacher may be shown it, or without; and what was refused and why.

        Where a model's own words are refused, those of the tool or the user may do.
        """
        if judgement.hint is None:
            return judgement, ""
        offered = [from_judge(judgement.hint, state)]
        if offered[0].origin == "judge":
            offered += candidates(turn, state)
        passage = admit(offered, case_of(turn, state, reward=judgement.reward, votes=judgement.votes))
        for refused in passage.refused:
            self._counted(refused.gate)
        if passage.accepted:
            self._counted(ACCEPTED)
        hint = as_hint(passage.accepted[0]) if passage.accepted else None
        why = "; ".join(f"hint refused by {item.gate}: {item.reason}" for item in passage.refused)
        return replace(judgement, hint=hint), why

    async def _teach_parent(self, turn: Turn) -> None:
        """A turn that was shown to have worked after one that failed without a way out: its own is the way out."""
        way_out = of_parent(turn)
        parent = None if way_out is None or turn.parent is None else await self._log.turn(turn.parent)
        if way_out is None or parent is None or parent.purpose is not Purpose.TRAIN:
            return
        passage = admit([way_out], case_of(parent))
        self._counted(ACCEPTED if passage.accepted else passage.refused[0].gate)
        if passage.accepted:
            await self._log.record_signal(
                Signal(
                    turn_id=parent.id,
                    source=SignalSource.RULE,
                    hint=as_hint(passage.accepted[0]),
                    evidence=f"turn {turn.id} did the same in another way, and it worked",
                    created_at=time.time(),
                )
            )

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
