"""Which conversation a request continues, which turn it answers, and what that says of the turns before it.

    request ──> session, turn answered, kind           (read from the log)
            └─> next state of the turn answered        (written before the engine is asked)
            └─> ends: retried, regenerated, edited, not chosen

A client resends its history and says nothing else, so all of this is inferred. Real clients rewrite theirs: one moves
a message behind the newest, one drops an assistant turn it could not parse and answers it all the same, several send
titles and summaries under the same session. A reply that came back with other words is a user's rewrite only where all
before it is what it answered, a user's message follows, and the session is known: the client named it, or an earlier
reply of ours stands unchanged before it (text/rewrites.py, and book.py for the same asked again). Of two users who
begin alike behind one frontend, neither speaks of the other's reply. A call is known by its id wherever it stands; one
that was run with other arguments (text/changed_calls.py) is a rewrite too, and its result belongs to nobody's sample.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from agentrl.store.signal_log import SignalLog
from agentrl.text.changed_calls import same_calls, usable
from agentrl.text.lineage import Lineage
from agentrl.text.observations import heard
from agentrl.text.redaction import redact_messages
from agentrl.types import JSON, End, MatchedBy, Purpose, Turn, TurnKind
from server.book import MAX_AGAIN, Asked, Book, Session
from server.lookup import Found, Lookup, news_of
from server.metrics import Metrics
from server.outcomes import Outcomes
from server.request import ChatRequest
from server.rewrites import Rewrites
from server.side import kind_of_turn

MAX_REREAD = 16
"""Newest requests of a session that are looked at again after a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request stands."""

    session: str
    parent: str | None
    """The turn that it answers."""
    matched_by: MatchedBy
    kind: TurnKind
    kind_reason: str
    task_key: str
    found: Found
    asked: Asked | None
    """None for side requests: nothing that follows is about them."""


class Conversations:
    """One for the whole server. Every method may raise StoreError."""

    def __init__(
        self, log: SignalLog, lineage: Lineage, outcomes: Outcomes, metrics: Metrics, *, secret: bytes
    ) -> None:
        self._log = log
        self._lineage = lineage
        self._outcomes = outcomes
        self._metrics = metrics
        self._secret = secret
        self._lookup = Lookup(log, lineage)
        self._book = Book()
        self._rewrites = Rewrites(outcomes, self._book)

    async def place(self, chat: ChatRequest, request_id: str, turn_ids: tuple[str, ...]) -> Place:
        """Finds where a request stands and records what it says of earlier turns."""
        scope = chat.caller.scope
        found = await self._lookup.find(chat)
        asked = Asked(
            request_id=request_id,
            session=found.session or "",
            question=self._question(chat.messages, found.num_messages, found.reply_key),
            frame=self._frame(chat.messages, chat.tools),
            purpose=chat.marks.purpose,
            is_known=found.session is not None,
            is_retry=chat.marks.is_retry,
            num_messages=len(chat.messages),
            parent=found.turn_id,
            turn_ids=turn_ids,
            in_flight=set(turn_ids),
        )
        asked.session = asked.session or self._known_session(chat, found, asked)
        if asked.session:
            entry = await self._entry(scope, asked.session)
        else:
            asked.session = new_session()
            entry = self._book.open(scope, asked.session)
        self._outcomes.meet(scope, asked, chat.messages)
        kind, reason = kind_of_turn(
            chat.marks.kind, chat.messages, has_tools=chat.has_tools, session_has_tools=entry.has_tools
        )
        if kind is TurnKind.SIDE:
            await self._observe_tools(chat, found, asked)
        else:
            entry.has_tools = entry.has_tools or chat.has_tools
            await self._settle(chat, found, asked)
            self._book.note(scope, asked)
        # A dropped reply is answered without being repeated, so the history alone did not find it.
        matched_by = found.matched_by if asked.parent == found.turn_id else MatchedBy.HISTORY
        self._metrics.matches.labels(matched_by).inc()
        return Place(
            session=asked.session,
            parent=asked.parent,
            matched_by=matched_by,
            kind=kind,
            kind_reason=reason,
            task_key=chat.marks.task_key or self._task_key(chat.messages),
            found=found,
            asked=None if kind is TurnKind.SIDE else asked,
        )

    async def withdraw(self, place: Place) -> None:
        """The request never came to be sampled."""
        for turn_id in place.asked.turn_ids if place.asked else ():
            await self.close_choice(place.asked, turn_id, recorded=False, failed=True)

    async def close_choice(self, asked: Asked | None, turn_id: str, *, recorded: bool, failed: bool) -> None:
        """A choice is over. An end that came while it was being sampled is recorded now."""
        if asked is None:
            return
        asked.in_flight.discard(turn_id)
        asked.failed = asked.failed or failed
        if recorded and asked.end is not None:
            end, request_id = asked.end
            await self._end([turn_id], end, request_id)

    # what a request says of earlier turns

    async def _settle(self, chat: ChatRequest, found: Found, asked: Asked) -> None:
        """Records next state and ends; `asked.parent` becomes the turn that is really answered."""
        scope, parent, request_id = chat.caller.scope, found.turn_id, asked.request_id
        if found.matched_by is MatchedBy.AMBIGUOUS or not await self._may_speak_of(parent, asked.purpose):
            return
        rivals = self._book.rivals(scope, asked)
        dropped = next((one for one in reversed(rivals) if self._goes_on(chat, found, asked, one)), None)
        if dropped is not None and await self._log.turn_ref(dropped.turn_ids[0]) is not None:
            dropped.answered = True
            asked.parent = dropped.turn_ids[0]
            news: Sequence[JSON] = chat.messages[dropped.num_messages :]
            await self._outcomes.answer(scope, asked, asked.parent, news, MatchedBy.HISTORY)
            return
        changed = await self._changed(chat, found, asked)
        if changed is not None:
            before, turn = changed
            asked.parent = parent = turn.id
            rivals = self._book.rivals(scope, asked)
            await self._go_on(chat, found, before)
            if not any(rival.question == asked.question for rival in rivals):
                await self._rewrites.hear(chat, found, asked, turn)
        elif parent is not None:
            chosen = self._book.request_of(scope, asked.session, parent)
            if chosen is not None:
                others = [turn_id for turn_id in chosen.turn_ids if turn_id != parent]
                await self._end(others, End.NOT_CHOSEN, request_id)
                await self._go_on(chat, found, chosen)
            other = await self._lookup.inexact(found)
            calls = self._rewrites.calls(chat, found, asked, other)
            if other is not None and calls is not None:
                if not any(rival.question == asked.question for rival in rivals):
                    await self._rewrites.hear_calls(chat, asked, other, calls)
            elif not rivals:
                news = news_of(found, chat.messages, other)
                await self._outcomes.answer(scope, asked, parent, news, found.matched_by)
                self._rewrites.count_as_told(chat, found)
        for rival in rivals:
            end = how_it_ended(rival, asked)
            if end is not None:
                await self._end_asked(rival, end, request_id)
            if end is End.EDITED:
                for later in self._book.descendants(scope, asked.session, rival.turn_ids):
                    await self._end_asked(later, end, request_id)

    async def _go_on(self, chat: ChatRequest, found: Found, chosen: Asked) -> None:
        """The conversation goes on from a request: a user who does so from the last of several answers wanted another
        in the place of the earlier ones (book.py says what else must hold)."""
        if chosen.answered:
            return
        chosen.answered = True
        if chosen.is_replaced or len(chosen.replaces) > MAX_AGAIN:
            return
        behind = found.num_messages
        messages = heard(chat.messages, chat.tools, start=max(behind - 1, 0))
        if any(message["role"] == "user" for message in messages[behind:]):
            await self._end(chosen.replaces, End.REGENERATED, chosen.request_id)
            return
        is_person = self._book.kept(chat.caller.scope, chat.client, "answer", as_told=not chosen.replaces)
        if chosen.replaces:
            await self._end_calls(chosen, is_person=is_person)

    async def _end_calls(self, chosen: Asked, *, is_person: bool) -> None:
        """The earlier answers, where a tool was run for the last."""
        taken = await self._log.turn(chosen.turn_ids[0])
        for turn_id in chosen.replaces:
            turn = await self._log.turn(turn_id)
            if turn is None or taken is None or not usable(turn) or not taken.reply.tool_calls:
                continue
            if same_calls(turn.reply.tool_calls, taken.reply.tool_calls):
                await self._end([turn_id], End.RETRIED, chosen.request_id)
            elif is_person:
                await self._end([turn_id], End.REGENERATED, chosen.request_id)

    # a reply that stands changed in the history

    async def _changed(self, chat: ChatRequest, found: Found, asked: Asked) -> tuple[Asked, Turn] | None:
        """The request whose reply was the newest of this history and is no longer, with a user's words behind it, or
        behind other calls what tools returned; and the turn of that reply.

        It is looked for only in the session that the client named or that an earlier reply of the history told.
        """
        place, messages, session = found.num_messages - 1, chat.messages, found.session
        if (
            session is None
            or found.matched_by is not MatchedBy.NONE
            or place < 1
            or messages[place - 1]["role"] == "assistant"
        ):
            return None
        said = {message["role"] for message in heard(messages, chat.tools, start=place)[place + 1 :]}
        if not said & {"user", "tool"}:
            return None
        before = messages[:place]
        num_messages, reply_key = next(iter(self._lineage.prefix_keys(before)), (0, ""))
        question = self._question(before, num_messages, reply_key)
        one = self._book.asked_in(chat.caller.scope, session, question, asked.purpose)
        # Of several choices nobody knows which was changed.
        if one is None or len(one.turn_ids) != 1:
            return None
        turn = await self._log.turn(one.turn_ids[0])
        if turn is None or ("user" not in said and not turn.reply.tool_calls):
            return None
        return one, turn

    async def _may_speak_of(self, turn_id: str | None, purpose: Purpose) -> bool:
        """What is said in an evaluation or off the record must not teach a turn that may be trained on."""
        if turn_id is None or purpose is Purpose.TRAIN:
            return True
        turn = await self._log.turn(turn_id)
        return turn is not None and turn.purpose is not Purpose.TRAIN

    def _goes_on(self, chat: ChatRequest, found: Found, asked: Asked, rival: Asked) -> bool:
        """Whether this request has all messages of `rival` and more, but not its reply: the client dropped that."""
        if not found.num_messages < rival.num_messages < asked.num_messages:
            return False
        if rival.failed or len(rival.turn_ids) > 1:
            return False
        messages = chat.messages[: rival.num_messages]
        return self._question(messages, found.num_messages, found.reply_key) == rival.question

    def _known_session(self, chat: ChatRequest, found: Found, asked: Asked) -> str:
        """The session of a request that names none and repeats no reply of ours, "" where nothing tells it.

        It is a marked retry of an earlier request, or goes on from one whose reply its client could not use.
        """
        scope = chat.caller.scope
        if chat.marks.is_retry:
            same = self._book.same_question(scope, asked.question, asked.frame)
            if same:
                return same[-1].session
        for end in range(len(chat.messages) - 1, found.num_messages, -1):
            question = self._question(chat.messages[:end], found.num_messages, found.reply_key)
            before = self._book.same_question(scope, question, asked.frame)
            open_sessions = {one.session for one in before if not one.answered and not one.failed}
            if len(open_sessions) == 1:
                return open_sessions.pop()
        return ""

    async def _observe_tools(self, chat: ChatRequest, found: Found, asked: Asked) -> None:
        """A side request in the middle of a task still brings the results of the calls made before it."""
        if found.turn_id is None or found.matched_by is not MatchedBy.TOOL_CALL_ID:
            return
        if not await self._may_speak_of(found.turn_id, asked.purpose):
            return
        if self._rewrites.calls(chat, found, asked, await self._lookup.inexact(found)) is not None:
            return
        observed = []
        for message in chat.messages[found.num_messages :]:
            if message["role"] != "tool":
                break
            observed.append(message)
        await self._outcomes.answer(chat.caller.scope, asked, found.turn_id, observed, found.matched_by)

    # keys

    def _question(self, messages: Sequence[JSON], num_messages: int, reply_key: str) -> str:
        """Key of what is asked: the history up to its newest reply, whose key is known, and what follows it."""
        return reply_key + self._lineage.history_key(messages[num_messages:])

    def _frame(self, messages: Sequence[JSON], tools: Sequence[JSON]) -> str:
        """Keyed hash of what lineage leaves out: system messages and tools."""
        system = [message["content"] for message in messages if message["role"] == "system"]
        text = json.dumps([system, tools], sort_keys=True, separators=(",", ":"))
        return hmac.new(self._secret, text.encode(), hashlib.blake2s).hexdigest()

    def _task_key(self, messages: Sequence[JSON]) -> str:
        """Of the redacted message: the key is a plain hash, and short secrets could be found by trying."""
        first = [message for message in messages if message["role"] == "user"][:1]
        return self._lineage.task_key(redact_messages(first)[0])

    async def _end_asked(self, asked: Asked, end: End, request_id: str) -> None:
        # Kept for choices that are being sampled, or were cut and are not in the log yet when their client asks again.
        asked.end = asked.end or (end, request_id)
        await self._end(
            [turn_id for turn_id in asked.turn_ids if turn_id not in asked.in_flight], end, request_id
        )

    async def _end(self, turn_ids: Iterable[str], end: End, request_id: str) -> None:
        for turn_id in turn_ids:
            await self._outcomes.end(turn_id, end, answered_by=request_id)

    # after a restart

    async def _entry(self, scope: str, session: str) -> Session:
        """What is known of a session; read from the log again where this process has not met it yet."""
        known = self._book.session(scope, session)
        if known is not None:
            return known
        entry = self._book.open(scope, session)
        requests: dict[str, list[Turn]] = {}
        for turn in await self._log.turns_of(session, scope):
            entry.has_tools = entry.has_tools or bool(turn.tools)
            if turn.kind is TurnKind.MAIN:
                requests.setdefault(turn.request_id, []).append(turn)
        parents = {turns[0].parent for turns in requests.values()}
        for turns in list(requests.values())[-MAX_REREAD:]:
            self._book.note(scope, self._reread(turns, parents))
        return entry

    def _reread(self, turns: Sequence[Turn], parents: Collection[str | None]) -> Asked:
        """A request as its turns tell. Of messages with secrets the log has another text, so their keys differ."""
        turn = turns[0]
        keys = self._lineage.prefix_keys(turn.messages)
        num_messages, reply_key = keys[0] if keys else (0, "")
        return Asked(
            request_id=turn.request_id,
            session=turn.session,
            question=self._question(turn.messages, num_messages, reply_key),
            frame=self._frame(turn.messages, turn.tools),
            purpose=turn.purpose,
            is_known=True,
            is_retry=False,
            num_messages=len(turn.messages),
            parent=turn.parent,
            turn_ids=tuple(one.id for one in turns),
            failed=any(one.error is not None for one in turns),
            answered=any(one.id in parents for one in turns),
        )


def how_it_ended(rival: Asked, asked: Asked) -> End | None:
    """What a new request says of an earlier one that answers the same turn; None where it says nothing yet."""
    if rival.question == asked.question and rival.frame == asked.frame:
        return End.RETRIED if asked.is_retry or not rival.is_whole else None
    # Two beginnings in one session may be two conversations: only what answers the same turn was edited.
    return End.EDITED if asked.parent is not None else None


def new_session() -> str:
    return "i" + secrets.token_hex(10)
