"""What a client sent back in the place of a reply: a person's rewrite, or the reply in another form.

    a text      other words, by `agentrl.text.rewrites`
    a call      run as another one, by `agentrl.text.changed_calls`; what it returned is then nobody's next state

A client that changes most of what it sends back is a program (book.py) and is believed nothing.
"""

from __future__ import annotations

from agentrl.text.changed_calls import changed_calls, message_of_calls
from agentrl.text.rewrites import rewritten
from agentrl.types import End, MatchedBy, ToolCall, Turn
from server.book import Asked, Book, Kept
from server.lookup import Found
from server.outcomes import Outcomes
from server.request import ChatRequest


class Rewrites:
    """Every method may raise StoreError."""

    def __init__(self, outcomes: Outcomes, book: Book) -> None:
        self._outcomes = outcomes
        self._book = book

    async def hear(self, chat: ChatRequest, found: Found, asked: Asked, turn: Turn) -> None:
        """What stands in the place of a turn's reply, and what followed, into the log; the reply rewritten by a user is
        an answer that he prefers, one that the client changed by itself is the reply."""
        scope, place = chat.caller.scope, found.num_messages - 1
        [message] = self._outcomes.redacted(scope, asked, chat.messages[place : place + 1])
        calls = changed_calls(turn, [message])
        is_faithful = self._book.is_faithful(scope, chat.client)
        if calls is not None:
            await self.hear_calls(chat, asked, turn, calls)
        elif rewritten(turn, message, is_faithful=is_faithful) is not None and self._book.kept(
            scope, chat.client, "text", as_told=False
        ):
            await self._outcomes.rewrite(asked, turn, message)
        else:
            news = chat.messages[found.num_messages :]
            await self._outcomes.answer(scope, asked, turn.id, news, MatchedBy.HISTORY)

    def calls(
        self, chat: ChatRequest, found: Found, asked: Asked, inexact: Turn | None
    ) -> tuple[ToolCall, ...] | None:
        """The calls of the turn answered by their ids as somebody had them run, () where nobody can tell how; None
        where they were run as they were sampled.

        Args:
            inexact: the turn, where the history up to its reply is not its own request.
        """
        if found.matched_by is not MatchedBy.TOOL_CALL_ID or inexact is None:
            return None
        first = last = found.num_messages
        while first and chat.messages[first - 1]["role"] == "assistant":
            first -= 1
        replies = self._outcomes.redacted(chat.caller.scope, asked, chat.messages[first:last])
        return changed_calls(inexact, replies)

    async def hear_calls(
        self, chat: ChatRequest, asked: Asked, turn: Turn, calls: tuple[ToolCall, ...]
    ) -> None:
        """Other calls than those sampled were run, so that what they returned says nothing of the turn. A person who
        changed them prefers his; where nobody can tell what they were (()), and where a program does so with every
        call, the turn is ended all the same."""
        is_person = self._book.kept(chat.caller.scope, chat.client, "calls", as_told=False)
        if calls and is_person:
            await self._outcomes.rewrite(asked, turn, message_of_calls(calls, turn.reply.text))
        else:
            await self._outcomes.end(turn.id, End.EDITED, answered_by=asked.request_id)

    def count_as_told(self, chat: ChatRequest, found: Found) -> None:
        for message in chat.messages[found.num_messages - 1 : found.num_messages]:
            if message["role"] == "assistant":
                what: Kept = "calls" if message.get("tool_calls") else "text"
                self._book.kept(chat.caller.scope, chat.client, what, as_told=True)
