"""The signal loop: turns whose next state is known go to the judge, what it says goes to the log.

    log.unjudged() -> judge.judge(turn, next state) -> gates -> log.mark_judged(signals)
          ^                  |                           ├ a refused hint is left out; the reward stays
          |                  |                           ├ what passed beside the hint is offered, a signal of its own
          |                  |                           └ words that speak of an earlier call are that turn's hint
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
from agentrl.signals.candidates import (
    BEHIND,
    Candidate,
    WayOut,
    action,
    candidates,
    from_judge,
    spoken_of,
    ways_out,
    worked,
)
from agentrl.signals.gates import Case, Passage, Refused, admit, as_hint, asked, case_of
from agentrl.signals.judge import Judge, Judgement
from agentrl.text.observations import as_heard, made_calls
from agentrl.types import NextState, Purpose, Signal, SignalSource, ToolCall, Turn

logger = logging.getLogger(__name__)

ACCEPTED, OFFERED, SHORTENED = "accepted", "offered", "shortened"
MAX_HINTS = 4
"""Of a turn, with its own: each that is offered is one more to be measured for every update."""
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
        counted: told of every hint what became of it: "accepted", "offered" beside the accepted one, or the gate that
            refused it; and "shortened" where a gate left something of it out.
        refused: told of every hint that a gate refused.
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
        refused: Callable[[Refused], None] = lambda refused: None,
    ) -> None:
        self._log = log
        self._judge = judge
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._batch = batch
        self._retry_s = retry_s
        self._clock = clock
        self._counted = counted
        self._refused = refused
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
            turn, state = as_heard(turn, state)
            async with asyncio.timeout(self._timeout_s):
                said = checked(await self._judge.judge(turn, state))
            if said.evidence.startswith(BEHIND):  # an output may begin so
                said = replace(said, evidence=f"it says: {said.evidence}")
            judgement, refusal, others = self._gated(turn, state, said)
        except Exception as error:  # noqa: BLE001 - a judge is anybody's code; law 6 holds whatever it raises
            await self._fail(turn, self._why(error))
            return
        self._failed.pop(turn.id, None)
        is_shown = judgement.reward is not None and judgement.reward > 0
        ways = await self._ways_out(turn, is_shown=is_shown) if is_shown or worked(state) else []
        meant = await self._spoken_of(turn, state, judgement)
        if meant is not None:
            refusal = f"{refusal}; said of the call of turn {meant}"
            judgement = replace(judgement, evidence=f"{BEHIND}{turn.id}: {judgement.evidence}")
            # -1 whatever else was said of it: a call that its tool has confirmed is called wrong now
            spoken = replace(self._signal(turn, judgement), turn_id=meant, reward=-1.0)
            moved = [spoken, *(replace(other, turn_id=meant) for other in others), *ways]
            await self._log.mark_judged(turn.id, "judged", refusal, moved)
            return
        if judgement.reward is None and judgement.hint is None:
            detail = refusal or judgement.evidence[:MAX_DETAIL]
            await self._log.mark_judged(turn.id, "abstained", detail, ways)
            return
        signals = [self._signal(turn, judgement), *others, *ways]
        await self._log.mark_judged(turn.id, "judged", refusal, signals)

    def _gated(
        self, turn: Turn, state: NextState, judgement: Judgement
    ) -> tuple[Judgement, str, list[Signal]]:
        """The judgement with its hint as a teacher may be shown it, or without; what was refused and why; and what may
        be offered beside the hint.

        Where a model's own words are refused, or a user's beside an output, those of the tool or the user may do. Where
        the judge repeated anybody else's and they are refused, nothing else of the turn stands in their place.
        """
        if judgement.hint is None:
            return judgement, "", []
        first = from_judge(judgement.hint, state)
        others = [other for other in candidates(state) if other.text != first.text.strip()]
        case = case_of(turn, state, reward=judgement.reward, votes=judgement.votes)
        passage = admit([first, *others], case)
        is_refused = any(item.candidate is first for item in passage.refused)
        is_alone = first.origin == "error_text" or (first.origin == "correction" and first.trusted)
        left = () if is_refused and is_alone else passage.accepted[:MAX_HINTS]
        self._turn_down(passage)
        for _ in passage.shortened:
            self._counted(SHORTENED)
        for place in range(len(left)):
            self._counted(OFFERED if place else ACCEPTED)
        hint = as_hint(left[0]) if left else None
        said = [f"hint refused by {item.gate}: {item.reason}" for item in passage.refused]
        said += [f"hint shortened by {item.gate}: {item.reason}" for item in passage.shortened]
        said += [f"hint passed {', '.join(asked(case))}"] * (hint is not None)
        return replace(judgement, hint=hint), "; ".join(said), [_offered(turn, one, case) for one in left[1:]]

    async def _ways_out(self, turn: Turn, *, is_shown: bool) -> list[Signal]:
        """A turn that worked is the way out for those before it that failed. Offered beside the hint of those that were
        told what to do; the hint of the others, once the turn was shown to have worked: that it reported no failure is
        no proof. Nobody waits for it: a turn that was claimed before has its hint for others like it."""
        ways = {way.num_back: way for way in ways_out(turn) if way.is_told or is_shown}
        found: list[Signal] = []
        at = turn
        for num_back in range(1, max(ways, default=0) + 1):
            before = None if at.parent is None else await self._log.turn(at.parent)
            if before is None:
                break
            at = before
            if num_back in ways and at.purpose is Purpose.TRAIN and _made(at, ways[num_back].wrong):
                found += self._way_out(at, ways[num_back], turn)
        return found

    async def _spoken_of(self, turn: Turn, state: NextState, judgement: Judgement) -> str | None:
        """The id of the turn whose call a user speaks of who corrects the reply that closed a request. Shown with that
        reply the hint would teach nothing: the reply is as it should be. A turn that was trained before has it for
        others like it."""
        found = None if judgement.hint is None or state.end is not None else spoken_of(turn, judgement.hint)
        if found is None:
            return None
        num_back, calls = found
        at: Turn | None = turn
        for _ in range(num_back):
            at = None if at is None or at.parent is None else await self._log.turn(at.parent)
        if at is None or (at.session, at.purpose, at.arm) != (turn.session, Purpose.TRAIN, turn.arm):
            return None
        return at.id if _made(at, calls) else None

    def _way_out(self, turn: Turn, way: WayOut, success: Turn) -> list[Signal]:
        case = case_of(turn)
        passage = admit([way.candidate], case)
        if not passage.accepted:
            self._turn_down(passage)
            return []
        self._counted(OFFERED if way.is_told else ACCEPTED)
        evidence = f"turn {success.id} did the same in another way, and it worked"
        if way.is_told:
            return [_offered(turn, way.candidate, case, evidence)]
        return [
            Signal(
                turn_id=turn.id,
                source=SignalSource.RULE,
                hint=as_hint(way.candidate),
                evidence=evidence,
                created_at=time.time(),
            )
        ]

    def _turn_down(self, passage: Passage) -> None:
        for refused in passage.refused:
            self._counted(refused.gate)
            self._refused(refused)

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
            preferred=judgement.preferred,
            votes=judgement.votes,
            evidence=judgement.evidence,
            created_at=time.time(),
        )


def _offered(turn: Turn, candidate: Candidate, case: Case, evidence: str = "") -> Signal:
    """A candidate that passed, as a signal of its own."""
    passed = f"{candidate.origin}; passed {', '.join(asked(case))}"
    return Signal(
        turn_id=turn.id,
        source=SignalSource.RULE,
        offered=as_hint(candidate),
        evidence=f"{passed}; {evidence}" if evidence else passed,
        created_at=time.time(),
    )


def _made(turn: Turn, calls: Sequence[ToolCall]) -> bool:
    """Whether it was this turn that made the calls: a history may have been rewritten."""
    return [action(call) for call in made_calls(turn.reply)] == [action(call) for call in calls]


def checked(judgement: Judgement) -> Judgement:
    """The judgement as the log takes it. Raises JudgeError: what the log refuses would end the loop again and again."""
    for number in (judgement.reward, *judgement.votes):
        if number is not None and not (isinstance(number, (int, float)) and math.isfinite(number)):
            raise JudgeError(
                f"{number!r} is no reward: give a number from -1 to 1, or None where nothing can be said"
            )
    if judgement.reward is not None and not -1 <= judgement.reward <= 1:
        raise JudgeError(f"reward {judgement.reward:g} lies outside -1 to 1")
    said = [text for text in (judgement.hint, judgement.preferred) if text is not None]
    for text in (judgement.evidence, *said):
        if not isinstance(text, str):
            raise JudgeError(f"hint, preferred and evidence are texts, not a {type(text).__name__}")
    return judgement
