"""What the sessions of this process asked lately: enough to tell a retry, a regeneration, an edit, a dropped reply.

The log knows what answered what; it is asked again after a restart. This only remembers questions: hashes and ids.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agentrl.types import End, Purpose, Sampling

MAX_ASKED = 64
MAX_SESSIONS = 2_000
"""One that comes back after it was forgotten is read from the log again."""
MAX_QUESTIONS = 4_000


@dataclass(slots=True, kw_only=True)
class Asked:
    """One main request. Its turns' ids are known before they are sampled."""

    request_id: str
    session: str
    question: str
    """Key of all its messages but the system's."""
    frame: str
    """Keyed hash of its system messages and tools."""
    sampling: Sampling
    """As the client asked for it."""
    purpose: Purpose
    num_messages: int
    parent: str | None
    turn_ids: tuple[str, ...]
    in_flight: set[str] = field(default_factory=set)
    failed: bool = False
    """A choice was not served to its end, so the same request again is a retry."""
    answered: bool = False
    """Another request went on from it."""
    end: End | None = None
    """An end that came while the turns were still being sampled; recorded once they are in the log."""


@dataclass(slots=True)
class Session:
    has_tools: bool = False
    asked: deque[Asked] = field(default_factory=lambda: deque(maxlen=MAX_ASKED))


class Book:
    """Sessions and questions by scope, the least used forgotten first."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._questions: OrderedDict[tuple[str, str], list[Asked]] = OrderedDict()

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
        session = self.session(scope, asked.session) or self.open(scope, asked.session)
        session.asked.append(asked)
        same = self._questions.setdefault((scope, asked.question), [])
        same.append(asked)
        del same[:-MAX_ASKED]
        self._questions.move_to_end((scope, asked.question))
        if len(self._questions) > MAX_QUESTIONS:
            self._questions.popitem(last=False)

    def same_question(self, scope: str, question: str, frame: str) -> list[Asked]:
        """Requests with this very history, in any session, oldest first."""
        return [asked for asked in self._questions.get((scope, question), ()) if asked.frame == frame]

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
