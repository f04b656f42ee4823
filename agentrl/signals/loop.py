"""The signal loop: turns whose next state is known go to the judge, what it says goes to the log.

    log.unjudged() -> judge.judge(turn, next state) -> gates -> log.mark_judged(signals)
          ^                  |                           └ a refused hint is left out; the reward stays
          |                  └ JudgeError or time-out: mark_judged(outcome="failed"); the log hands the turn
          └── log.answered()              out again until max_attempts, then counts it as failed for good

A failure is never a signal (law 6). The loop holds no state that matters: kill it at any point and what was not marked
is judged again, and nothing of it stands in the log twice. Turns are judged side by side, so that one that waits for
a model holds up none that does not.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

from agentrl.errors import JudgeError
from agentrl.signals.candidates import candidates, from_judge, of_parent
from agentrl.signals.gates import admit, as_hint, case_of
from agentrl.signals.judge import Judge, Judgement
from agentrl.types import NextState, Purpose, Signal, SignalSource, Turn

logger = logging.getLogger(__name__)

ACCEPTED = "accepted"
MAX_DETAIL = 400
"""Characters of why a judge abstained that are kept."""
MAX_REMEMBERED = 10_000
"""Failed turns whose next time is known."""


class JudgedLog(Protocol):
    """What the loop needs of the signal log."""

    async def answered(self, timeout_s: float, /) -> None: ...

    async def unjudged(self, limit: int, besides: Collection[str], /) -> list[tuple[Turn, NextState]]: ...

    async def mark_judged(
        self, turn_id: str, outcome: str, detail: str = "", signals: Sequence[Signal] = (), /
    ) -> None:
        """Records one attempt of the judge, and with it what it said: both or neither."""
        ...

    async def turn(self, turn_id: str, /) -> Turn | None: ...


class SignalLoop:
    """Owns the task that judges. `run` ends only when cancelled.

    Args:
        timeout_s: of one judgement; None where the judge bounds itself.
        poll_s: how long the log is waited for.
        batch: turns that are judged at the same time.
        retry_s: before a turn whose judge failed is judged again; twice as long before the third time.
        clock: seconds.
        counted: told of every hint what became of it: "accepted", or the gate that refused it.
    """

    def __init__(
        self,
        log: JudgedLog,
        judge: Judge,
        *,
        timeout_s: float | None = 60.0,
        poll_s: float = 0.25,
        batch: int = 64,
        retry_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        counted: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._log = log
        self._judge = judge
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._batch = batch
        self._retry_s = retry_s
        self._clock = clock
        self._counted = counted
        self._running: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, tuple[int, float]] = {}
        """Turn id -> how often its judge failed, and when it may be asked again."""

    async def run(self) -> None:
        """Raises what the log raises; the turns that were being judged are then judged again by the next run."""
        try:
            while True:
                begun = await self._begin()
                if len(self._running) >= self._batch:
                    await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
                elif not begun:
                    await self._log.answered(self._poll_s)
        finally:
            left = list(self._running.values())
            self._running.clear()
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)

    async def step(self) -> int:
        """Judges one batch of turns; returns how many were looked at."""
        begun = await self._begin()
        await asyncio.gather(*begun)
        return len(begun)

    async def _begin(self) -> list[asyncio.Task[None]]:
        """Starts on the turns that wait, as far as there is room."""
        for turn_id, task in list(self._running.items()):
            if task.done():
                del self._running[turn_id]
                task.result()
        now = self._clock()
        resting = [turn_id for turn_id, (_, due) in self._failed.items() if due > now]
        waiting = await self._log.unjudged(
            self._batch - len(self._running), frozenset((*self._running, *resting))
        )
        for turn, state in waiting:
            self._running[turn.id] = asyncio.create_task(
                self._judge_one(turn, state), name=f"judge {turn.id}"
            )
        return [self._running[turn.id] for turn, _ in waiting]

    async def _judge_one(self, turn: Turn, state: NextState) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                said = checked(await self._judge.judge(turn, state))
            judgement, refusal = self._gated(turn, state, said)
        except Exception as error:  # noqa: BLE001 - a judge is anybody's code; law 6 holds whatever it raises
            await self._fail(turn, self._why(error))
            return
        self._failed.pop(turn.id, None)
        if judgement.reward is None and judgement.hint is None:
            await self._log.mark_judged(turn.id, "abstained", refusal or judgement.evidence[:MAX_DETAIL])
            return
        signals = [self._signal(turn, judgement)]
        if judgement.reward is not None and judgement.reward > 0:
            signals += await self._of_parent(turn)
        await self._log.mark_judged(turn.id, "judged", refusal, signals)

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

    async def _of_parent(self, turn: Turn) -> list[Signal]:
        """A turn that was shown to have worked after one that failed without a way out: its own is the way out."""
        way_out = of_parent(turn)
        parent = None if way_out is None or turn.parent is None else await self._log.turn(turn.parent)
        if way_out is None or parent is None or parent.purpose is not Purpose.TRAIN:
            return []
        passage = admit([way_out], case_of(parent))
        self._counted(ACCEPTED if passage.accepted else passage.refused[0].gate)
        if not passage.accepted:
            return []
        return [
            Signal(
                turn_id=parent.id,
                source=SignalSource.RULE,
                hint=as_hint(passage.accepted[0]),
                evidence=f"turn {turn.id} did the same in another way, and it worked",
                created_at=time.time(),
            )
        ]

    def _why(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return (
                "no answer in time" if self._timeout_s is None else f"no answer within {self._timeout_s:g} s"
            )
        return str(error) if isinstance(error, JudgeError) else f"{type(error).__name__}: {error}"

    async def _fail(self, turn: Turn, why: str) -> None:
        times = self._failed.get(turn.id, (0, 0.0))[0]
        self._failed[turn.id] = (times + 1, self._clock() + self._retry_s * 2**times)
        while len(self._failed) > MAX_REMEMBERED:
            del self._failed[next(iter(self._failed))]
        logger.warning("judge %s failed on turn %s: %s", self._judge.name, turn.id, why)
        await self._log.mark_judged(turn.id, "failed", why)

    def _signal(self, turn: Turn, judgement: Judgement) -> Signal:
        return Signal(
            turn_id=turn.id,
            source=judgement.source or self._judge.source,
            reward=judgement.reward,
            hint=judgement.hint,
            votes=judgement.votes,
            evidence=judgement.evidence,
            created_at=time.time(),
        )


def checked(judgement: Judgement) -> Judgement:
    """The judgement as the log takes it. Raises JudgeError: what the log refuses would end the loop again and again."""
    for number in (judgement.reward, *judgement.votes):
        if number is not None and not (isinstance(number, (int, float)) and math.isfinite(number)):
            raise JudgeError(
                f"{number!r} is no reward: give a number from -1 to 1, or None where nothing can be said"
            )
    if judgement.reward is not None and not -1 <= judgement.reward <= 1:
        raise JudgeError(f"reward {judgement.reward:g} lies outside -1 to 1")
    for text in (judgement.evidence, "" if judgement.hint is None else judgement.hint):
        if not isinstance(text, str):
            raise JudgeError(f"hint and evidence are texts, not a {type(text).__name__}")
    return judgement
