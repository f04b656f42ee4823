"""What the sessions of this process asked lately: enough to tell a retry, a regeneration, an edit, a dropped reply.

When is the same question, asked again, a user who wants another answer, and when is it a client or a program? Nobody
says so. It is taken for a regeneration (of `Asked.replaces`) only where

- the earlier answer had been delivered whole before, nothing marks the request as a retry, and both may be trained on;
- the session is known: the client named it, or the history holds an earlier reply of ours. Users behind one frontend
  begin their conversations alike, so the beginning of one that nobody named says nothing of another;
- at the beginning of a named conversation nothing else was asked in between;
- no more than MAX_AGAIN earlier answers would be replaced: whoever wants more samples on purpose;
- the conversation then goes on from the last answer, with words of a user's (conversations.py). Whoever samples for
  an evaluation, a vote or a group does not go on, or goes on from any of them;
- or with what a tool returned, where the earlier answers were calls that the client could have run as well, and other
  ones: who asks again because a reply holds no usable call is an agent, who gets the same call again is a retry.

The log knows what answered what; it is asked again after a restart. This only remembers questions: hashes and ids.
What a client keeps is counted anew then: the log has what a program wrote anew as answered, like what was kept, and to
compare every reply with what came back would hold up the start. A client may change MAX_UNPROVEN more replies by that.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from agentrl.types import End, Purpose

Kept = Literal["text", "calls", "answer"]
"""What a client may keep or not: a text and a call as they were told, the first answer to a question."""

MAX_ASKED = 64
MAX_SESSIONS = 2_000
"""One that comes back after it was forgotten is read from the log again."""
MAX_QUESTIONS = 4_000
MAX_CLIENTS = 2_000
MAX_AGAIN = 4
"""Answers to one question that a user may have replaced."""
MAX_UNPROVEN = 3
"""Replies that a client may hand back changed, or have replaced, before it has kept any."""
CHANGE_COSTS = 3
"""Replies kept that stand for one that was not: a client that changes more than every fourth is a program that writes
its history anew, or samples."""
MAX_CREDIT = 3
"""What a client may save up: however long it changed nothing, it is soon taken for a program once it begins to."""


@dataclass(slots=True, kw_only=True)
class Asked:
    """One main request. Its turns' ids are known before they are sampled."""

    request_id: str
    session: str
    question: str
    """Key of all its messages but the system's."""
    frame: str
    """Keyed hash of its system messages and tools."""
    purpose: Purpose
    is_known: bool
    """The client named the session, or an earlier reply in the history told it."""
    is_retry: bool
    """The client says that it sent this before."""
    num_messages: int
    parent: str | None
    turn_ids: tuple[str, ...]
    in_flight: set[str] = field(default_factory=set)
    failed: bool = False
    """A choice was not served to its end, so the same request again is a retry."""
    answered: bool = False
    """Another request went on from it."""
    replaces: tuple[str, ...] = ()
    """Turns that answered the same before: regenerated, once the conversation goes on from this request."""
    is_replaced: bool = False
    """It was asked again after it had been answered whole."""
    end: tuple[End, str] | None = None
    """An end that came while turns were not in the log yet, and the request that told it; recorded once they are."""

    @property
    def is_whole(self) -> bool:
        """All its choices were sampled to their end and delivered."""
        return not self.in_flight and not self.failed


@dataclass(slots=True)
class Session:
    has_tools: bool = False
    asked: deque[Asked] = field(default_factory=lambda: deque(maxlen=MAX_ASKED))


class Book:
    """Sessions and questions by scope, the least used forgotten first."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._questions: OrderedDict[tuple[str, str], list[Asked]] = OrderedDict()
        self._balance: OrderedDict[tuple[str, str, Kept], int] = OrderedDict()
        """By scope, client and what is kept: how often it was, less what the other times cost."""

    def session(self, scope: str, name: str) -> Session | None:
        found = self._sessions.get((scope, name))
        if found is not None:
            self._sessions.move_to_end((scope, name))
        return found

    def open(self, scope: str, name: str) -> Session:
        """A new, empty entry."""
        session = self._sessions[scope, name] = Session()
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def note(self, scope: str, asked: Asked) -> None:
        """Remembers a request whose place is known."""
        asked.replaces = self._asked_again(scope, asked)
        session = self.session(scope, asked.session) or self.open(scope, asked.session)
        session.asked.append(asked)
        same = self._questions.setdefault((scope, asked.question), [])
        same.append(asked)
        del same[:-MAX_ASKED]
        self._questions.move_to_end((scope, asked.question))
        if len(self._questions) > MAX_QUESTIONS:
            self._questions.popitem(last=False)

    def kept(self, scope: str, client: str, what: Kept, *, as_told: bool) -> bool:
        """Counts what a client did with a reply; where it did not keep it, whether a person may have done so."""
        balance = self._balance.get((scope, client, what), 0) + (1 if as_told else -CHANGE_COSTS)
        self._balance[scope, client, what] = min(balance, MAX_CREDIT)
        self._balance.move_to_end((scope, client, what))
        if len(self._balance) > MAX_CLIENTS:
            self._balance.popitem(last=False)
        return balance >= -MAX_UNPROVEN * CHANGE_COSTS

    def is_faithful(self, scope: str, client: str) -> bool:
        """Whether the client handed the last MAX_CREDIT texts back as they were."""
        return self._balance.get((scope, client, "text"), 0) >= MAX_CREDIT

    def same_question(self, scope: str, question: str, frame: str) -> list[Asked]:
        """Requests with this very history, in any session, oldest first."""
        return [asked for asked in self._questions.get((scope, question), ()) if asked.frame == frame]

    def asked_in(self, scope: str, session: str, question: str, purpose: Purpose) -> Asked | None:
        """The newest request of a session that asked this and was answered whole."""
        entry = self.session(scope, session)
        for asked in reversed(entry.asked if entry else ()):
            if asked.question == question and asked.purpose is purpose and asked.is_whole:
                return asked
        return None

    def request_of(self, scope: str, session: str, turn_id: str) -> Asked | None:
        """The request that a turn belongs to, if it was asked lately."""
        entry = self.session(scope, session)
        return next((asked for asked in entry.asked if turn_id in asked.turn_ids), None) if entry else None

    def rivals(self, scope: str, asked: Asked) -> list[Asked]:
        """Earlier requests of the session that answer the same turn for the same purpose."""
        entry = self.session(scope, asked.session)
        return [
            other
            for other in (entry.asked if entry else ())
            if other.parent == asked.parent and other.purpose is asked.purpose
        ]

    def descendants(self, scope: str, session: str, turn_ids: Iterable[str]) -> Iterator[Asked]:
        """Requests that answer these turns, and those that answer theirs."""
        doomed = set(turn_ids)
        entry = self.session(scope, session)
        for asked in entry.asked if entry else ():
            if asked.parent in doomed:
                doomed.update(asked.turn_ids)
                yield asked

    def _asked_again(self, scope: str, asked: Asked) -> tuple[str, ...]:
        """The turns in whose place this request may want another answer."""
        if not asked.is_known:
            return ()
        if asked.parent is not None:
            before = next((one for one in reversed(self.rivals(scope, asked)) if _is_same(one, asked)), None)
        else:
            entry = self.session(scope, asked.session)
            before = entry.asked[-1] if entry and entry.asked else None
        if before is None or not _is_same(before, asked) or before.answered or before.in_flight:
            return ()
        if before.failed:
            return before.replaces
        if asked.purpose is not Purpose.TRAIN or before.purpose is not Purpose.TRAIN:
            return ()
        before.is_replaced = True
        return (*before.replaces, *before.turn_ids)[-MAX_AGAIN - 1 :]


def _is_same(one: Asked, other: Asked) -> bool:
    return one.question == other.question and one.frame == other.frame
