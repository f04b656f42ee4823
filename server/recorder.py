"""A finished choice into the log: secrets taken out, lineage's keys put in, committed."""

from __future__ import annotations

import logging
import time

from agentrl.errors import StoreError
from agentrl.store.signal_log import SignalLog
from agentrl.text.lineage import Lineage
from agentrl.types import JSON, Reply, Turn
from server.metrics import Metrics
from server.recall import Recall
from server.redacted import SessionRedactor

logger = logging.getLogger(__name__)


class Recorder:
    """Commits turns. `serve_unrecorded`: a turn that the log cannot take is served all the same, and counted."""

    def __init__(
        self,
        log: SignalLog,
        lineage: Lineage,
        redactor: SessionRedactor,
        recall: Recall,
        metrics: Metrics,
        *,
        serve_unrecorded: bool = False,
    ) -> None:
        self._log = log
        self._lineage = lineage
        self._redactor = redactor
        self._recall = recall
        self._metrics = metrics
        self._serve_unrecorded = serve_unrecorded

    async def commit(self, turn: Turn) -> bool:
        """True once the turn is in the log.

        Raises StoreError where it is not, unless the operator chose to serve on; then False.
        """
        # Keys are of the originals: the client will send those again, not the placeholders.
        said = assistant_message(turn.reply)
        history_key = self._lineage.history_key([*turn.messages, said])
        reply_key = self._lineage.reply_key(said)
        redacted = self._redactor.turn(turn)
        began = time.perf_counter()
        try:
            await self._log.record_turn(redacted, history_key=history_key, reply_key=reply_key)
        except (StoreError, ValueError) as error:
            # ValueError: the record cannot be stored as it is. Whichever it was, the turn is not in the log.
            self._metrics.store_failures.inc()
            if not self._serve_unrecorded:
                raise StoreError(str(error)) from error
            self._metrics.unrecorded.inc()
            logger.error("turn %s is served unrecorded: %s", turn.id, error)
            return False
        self._metrics.commit_s.observe(time.perf_counter() - began)
        if redacted.redacted_spans:
            self._recall.put(turn.id, turn.prompt_ids, turn.completion.token_ids)
        return True


def assistant_message(reply: Reply) -> JSON:
    """A reply as the client will send it back."""
    message: JSON = {"role": "assistant", "content": reply.text}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reply.tool_calls
        ]
    return message
