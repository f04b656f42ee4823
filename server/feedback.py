"""What users and environments say of turns: rewards, words, a better answer, the end of a session."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentrl.signals.hints import directive
from agentrl.store.queries import TurnRef
from agentrl.store.signal_log import SignalLog
from agentrl.types import JSON, End, Signal, SignalSource
from server.metrics import Metrics
from server.outcomes import Outcomes
from server.redacted import SessionRedactor
from server.wire.bad_body import refused_body
from server.wire.errors import Refused

MAX_TEXT = 2000
RESPONSE_PREFIX = "chatcmpl-"


class FeedbackBody(BaseModel):
    """Unknown fields are refused here: a misspelt `reward` must not look like a success."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    turn_id: str | None = None
    response_id: str | None = None
    session: str | None = None
    reward: float | None = Field(default=None, ge=-1, le=1)
    text: str | None = Field(default=None, max_length=MAX_TEXT)
    preferred: str | None = None
    end_session: bool = False
    source: Literal["user", "environment"] = "user"


def read_feedback(data: bytes, *, url_session: str | None) -> FeedbackBody:
    """Raises Refused (400) for a body that names no target, several, or says nothing."""
    try:
        body = FeedbackBody.model_validate_json(data)
    except ValidationError as error:
        raise refused_body(error, data, FeedbackBody) from error
    targets = [body.turn_id, body.response_id, body.session]
    if not any(targets) and url_session:
        body = body.model_copy(update={"session": url_session})
    elif sum(target is not None for target in targets) != 1:
        raise Refused(
            "Name exactly one of turn_id, response_id and session.", param="turn_id", code="invalid_target"
        )
    if body.preferred and body.preferred.strip().startswith(RESPONSE_PREFIX):
        raise Refused(
            "preferred is the text of the better answer, not an id: it would be learned letter by letter. Send the "
            "answer itself, or reward -1 for the worse and 1 for the better answer.",
            param="preferred",
            code="invalid_preferred",
        )
    if body.reward is None and not body.text and not body.preferred and not body.end_session:
        raise Refused(
            "The feedback says nothing. Send reward, text, preferred or end_session.", code="empty_feedback"
        )
    return body


class Feedback:
    """Writes feedback into the log, for turns of the caller's scope only."""

    def __init__(
        self, log: SignalLog, redactor: SessionRedactor, outcomes: Outcomes, metrics: Metrics
    ) -> None:
        self._log = log
        self._redactor = redactor
        self._outcomes = outcomes
        self._metrics = metrics

    async def record(self, body: FeedbackBody, scope: str) -> JSON:
        """What is said of a session is written at its newest main turn; credit.py spreads it over the episode.

        Raises Refused (404) for a target that is not in the caller's scope, StoreError.
        """
        turn = await self._target(body, scope)
        said = body.reward is not None or body.text or body.preferred
        if said:
            await self._log.record_signal(self._signal(body, scope, turn))
            self._metrics.signals.labels(body.source).inc()
        closed = await self._close(turn.session, scope) if body.end_session else 0
        return {
            "turn_id": turn.id,
            "session": turn.session,
            "num_signals": int(bool(said)),
            "num_closed": closed,
        }

    async def _target(self, body: FeedbackBody, scope: str) -> TurnRef:
        turn_id = await self._log.feedback_target(
            scope, turn_id=body.turn_id, response_id=body.response_id, session=body.session
        )
        turn = None if turn_id is None else await self._log.turn_ref(turn_id)
        if turn is None:
            # The same words for a turn of another scope and for no turn at all: they must not be told apart.
            name, value = next(
                (name, value)
                for name in ("turn_id", "response_id", "session")
                if (value := getattr(body, name)) is not None
            )
            raise Refused(
                f"There is no {name} {value!r} in your scope.", status=404, code="not_found", param=name
            )
        if body.response_id is not None and turn.id != body.response_id.removeprefix(RESPONSE_PREFIX):
            raise Refused(
                f"{body.response_id} holds several choices. Send the turn_id of the one you mean: it stands in "
                "choices[i].agentrl.turn_id.",
                param="response_id",
                code="ambiguous_target",
            )
        return turn

    def _signal(self, body: FeedbackBody, scope: str, turn: TurnRef) -> Signal:
        text, preferred = (
            self._redactor.text(scope, turn.session, said) if said else None
            for said in (body.text, body.preferred)
        )
        return Signal(
            turn_id=turn.id,
            source=SignalSource(body.source),
            reward=body.reward,
            # "Great, thanks" beside a good reward is praise and no advice.
            hint=text if text and (body.reward is None or body.reward <= 0) else directive(text or ""),
            preferred=preferred,
            evidence=text or "",
            created_at=time.time(),
        )

    async def _close(self, session: str, scope: str) -> int:
        closed = 0
        for turn_id in await self._log.open_turns(session, scope):
            closed += await self._outcomes.end(turn_id, End.CLOSED)
        return closed
