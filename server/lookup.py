"""Which recorded turn a request answers, as far as the log can tell (design, section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentrl.store.queries import TurnRef
from agentrl.store.signal_log import SignalLog
from agentrl.text.lineage import Lineage, call_ids, decide, next_messages
from agentrl.types import JSON, MatchedBy, Turn
from server.request import ChatRequest

MAX_OLDER = 8
"""Earlier points of a history that are looked up when its newest reply is not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    turn_id: str | None
    """The turn that the request answers."""
    matched_by: MatchedBy
    session: str | None
    """Named by the client, else that of the turn answered, else that of an earlier turn of the history."""
    num_messages: int
    """Messages up to and with the newest reply in the history; 0 where there is none."""
    reply_key: str
    """Lineage's key of the history up to there; "" where there is no reply."""
    is_exact: bool
    """The history up to that reply is the turn's own request, message for message."""


class Lookup:
    def __init__(self, log: SignalLog, lineage: Lineage) -> None:
        self._log = log
        self._lineage = lineage

    async def find(self, chat: ChatRequest) -> Found:
        """Raises StoreError."""
        scope, named, messages = chat.caller.scope, chat.marks.session, chat.messages
        keys = self._lineage.prefix_keys(messages)
        num_messages, key = keys[0] if keys else (0, "")
        called = await self._called(scope, messages)
        same_history = await self._log.by_history(scope, key) if key else []
        same_reply: list[TurnRef] = []
        if key and named is not None and not called and not same_history:
            same_reply = await self._log.by_reply(
                scope, named, self._lineage.reply_key(messages[num_messages - 1])
            )
        match = decide(
            messages,
            session=named,
            called=unanswered(called, named),
            same_history=unanswered(same_history, named),
            same_reply=unanswered(same_reply, named),
        )
        session = named or match.session
        if session is None:
            session = await self._earlier_session(scope, messages[:num_messages], keys[1:])
        return Found(
            turn_id=match.turn_id,
            matched_by=match.matched_by,
            session=session,
            num_messages=num_messages,
            reply_key=key,
            is_exact=any(ref.id == match.turn_id for ref in same_history),
        )

    async def inexact(self, found: Found) -> Turn | None:
        """The turn answered, where the history up to its reply is not its own request. Raises StoreError."""
        return None if found.is_exact or found.turn_id is None else await self._log.turn(found.turn_id)

    async def _called(self, scope: str, messages: Sequence[JSON]) -> list[TurnRef]:
        """The turns whose calls these messages answer, each once."""
        found: dict[str, TurnRef] = {}
        for call_id in call_ids(messages):
            for turn_id in await self._log.by_call_id(scope, call_id):
                if turn_id not in found and (ref := await self._log.turn_ref(turn_id)) is not None:
                    found[turn_id] = ref
        return list(found.values())

    async def _earlier_session(
        self, scope: str, messages: Sequence[JSON], keys: Sequence[tuple[int, str]]
    ) -> str | None:
        """The session of the newest turn in a history that is known: clients rewrite what lies behind it."""
        replies = [message for message in messages if message["role"] == "assistant"]
        for reply in replies[: -MAX_OLDER - 1 : -1]:
            for ref in await self._called(scope, [reply]):
                return ref.session
        for _, key in keys[:MAX_OLDER]:
            sessions = {ref.session for ref in await self._log.by_history(scope, key)}
            if len(sessions) == 1:
                return sessions.pop()
        return None


def news_of(found: Found, messages: Sequence[JSON], inexact: Turn | None) -> tuple[JSON, ...]:
    """The messages that followed the turn answered.

    Args:
        inexact: that turn, where the history up to its reply is not its own request.
    """
    # A client that rewrote its history may have moved an old message behind the reply; that is no news.
    if inexact is not None:
        return next_messages(messages, found.num_messages, inexact.messages)
    return tuple(messages[found.num_messages :])


def unanswered(refs: Iterable[TurnRef], session: str | None) -> list[TurnRef]:
    """Those of the session where there are any, and of these the ones that nothing answered yet where there are any.

    Two turns may have said the same in the same place, one of them asked for again: of one session the newest is meant.
    """
    refs = list(refs)
    inside = [ref for ref in refs if ref.session == session] or refs
    left = [ref for ref in inside if not ref.answered] or inside
    if len({ref.session for ref in left}) != 1:
        return left
    newest = max(ref.received_at for ref in left)
    return [ref for ref in left if ref.received_at == newest]
