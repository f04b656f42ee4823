"""What followed a turn, into the log: the messages after it, or how it ended. Each turn has one such record."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from agentrl.errors import StoreError
from agentrl.signals.rules import judge_end
from agentrl.store.signal_log import SignalLog
from agentrl.types import JSON, End, MatchedBy, NextState, Purpose, Signal, SignalSource, Turn
from server.book import Asked
from server.metrics import Metrics
from server.redacted import SessionRedactor

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Outcomes:
    """Writes next states and counts them.

    `serve_unrecorded`: a record that the log cannot take is counted and lost, instead of raising StoreError.
    """

    def __init__(
        self,
        log: SignalLog,
        redactor: SessionRedactor,
        metrics: Metrics,
        *,
        serve_unrecorded: bool = False,
    ) -> None:
        self._log = log
        self._redactor = redactor
        self._metrics = metrics
        self._serve_unrecorded = serve_unrecorded

    async def answer(
        self, scope: str, asked: Asked, turn_id: str, messages: Sequence[JSON], how: MatchedBy
    ) -> None:
        """The messages of a request that followed a turn. The first to come stay; later ones are counted."""
        if not messages:
            return
        state = NextState(
            turn_id=turn_id,
            messages=self.redacted(scope, asked, messages),
            matched_by=how,
            answered_by=asked.request_id,
            received_at=time.time(),
        )
        if await self._record(state) is False:
            self._metrics.late_states.inc()

    async def rewrite(self, asked: Asked, turn: Turn, message: JSON) -> None:
        """The message, redacted, that a user put in the place of a turn's reply. Where the turn has a next state
        already, because he went on before he went back, the signal is written at once."""
        state = NextState(
            turn_id=turn.id,
            messages=(message,),
            matched_by=MatchedBy.HISTORY,
            end=End.EDITED,
            answered_by=asked.request_id,
            received_at=time.time(),
        )
        is_first = await self._record(state)
        if is_first:
            self._metrics.ends.labels(End.EDITED).inc()
        elif is_first is False:
            self._metrics.late_states.inc()
            if asked.purpose is Purpose.TRAIN:
                await self._tried(self._log.record_signal(_signal(turn, state)), turn.id)

    def meet(self, scope: str, asked: Asked, messages: Sequence[JSON]) -> None:
        """The history of a request, before anything is written of it."""
        self._redactor.meet(scope, asked.session, messages)

    def redacted(self, scope: str, asked: Asked, messages: Sequence[JSON]) -> tuple[JSON, ...]:
        """Messages as the log may hold them."""
        return self._redactor.messages(scope, asked.session, messages)[0]

    async def end(self, turn_id: str, end: End, *, answered_by: str | None = None) -> bool:
        """Ends a turn unless it has a next state already. A turn that was never recorded has nothing to end."""
        state = NextState(turn_id=turn_id, end=end, answered_by=answered_by, received_at=time.time())
        if await self._log.turn_ref(turn_id) is None or not await self._record(state):
            return False
        self._metrics.ends.labels(end).inc()
        return True

    async def abandon_idle(self, before: float) -> int:
        """Ends the open turns of sessions without a request since `before` (Unix seconds)."""
        ended = 0
        for turn_id in await self._log.idle_turns(before):
            ended += await self.end(turn_id, End.ABANDONED)
        return ended

    async def _record(self, state: NextState) -> bool | None:
        """Whether this was the turn's first next state; None where the log could not take it and we serve on."""
        return await self._tried(self._log.record_next_state(state), state.turn_id)

    async def _tried(self, writing: Awaitable[T], turn_id: str) -> T | None:
        try:
            return await writing
        except StoreError as error:
            self._metrics.store_failures.inc()
            if not self._serve_unrecorded:
                raise
            logger.error("what followed turn %s is lost: %s", turn_id, error)
            return None


def _signal(turn: Turn, state: NextState) -> Signal:
    """What the rules say of an end, for a turn whose story had another one; no hint, which no gate has seen."""
    said = judge_end(turn, state)
    return Signal(
        turn_id=state.turn_id,
        source=SignalSource.RULE,
        reward=said.reward,
        preferred=said.preferred,
        evidence=said.evidence,
        created_at=state.received_at,
    )
