"""What followed a turn, into the log: the messages after it, or how it ended. Each turn has one such record."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from agentrl.errors import StoreError
from agentrl.store.signal_log import SignalLog
from agentrl.types import JSON, End, MatchedBy, NextState
from server.book import Asked
from server.metrics import Metrics
from server.redacted import SessionRedactor

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
            messages=self._redactor.messages(scope, asked.session, messages)[0],
            matched_by=how,
            answered_by=asked.request_id,
            received_at=time.time(),
        )
        if await self._record(state) is False:
            self._metrics.late_states.inc()

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
        try:
            return await self._log.record_next_state(state)
        except StoreError as error:
            self._metrics.store_failures.inc()
            if not self._serve_unrecorded:
                raise
            logger.error("what followed turn %s is lost: %s", state.turn_id, error)
            return None
