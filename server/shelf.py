"""What the files say of lessons, for whoever shows them: read on from where the last look ended, never written.

learning.db ──lessons, what probes found, the hints that belong to them, turns set aside──┐
log.db ──hints that the learner, which may be in a long step, has not gathered yet────────┴──> Shelf
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from agentrl.signals.candidates import said_by_user
from agentrl.signals.lessons import lesson_of, merged_into, state_of
from agentrl.store.learning_log import LearningLog
from agentrl.store.lesson_log import Approve
from agentrl.store.lesson_rows import Given, NewHint
from agentrl.teacher.recall import MAX_REMEMBERED, num_arguments, request_words
from agentrl.types import Lesson, LessonState, SignalSource

MAX_GIVEN: Final = 64
"""Newest hints of a lesson that are known by their request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Who gave a hint, and after which request."""

    turn_id: str
    session: str
    source: SignalSource
    at: float
    """When the request came, Unix seconds."""
    words: frozenset[str]
    """Of the request, its arguments marked."""
    num_arguments: int
    by_user: bool
    """Whether a user said it in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The files as they stood at one look."""

    approved: dict[str, Lesson] = field(default_factory=dict)
    given: dict[str, tuple[Said, ...]] = field(default_factory=dict)
    """By lesson, in the order of their signals."""
    doubted: frozenset[str] = frozenset()
    """Turns whose hints are not to be believed."""
    lessons: tuple[Lesson, ...] = ()
    """Of learning.db, in whatever state."""
    gathered: dict[str, tuple[Said, ...]] = field(default_factory=dict)
    """`given`, as far as learning.db knows."""
    waiting: dict[int, tuple[Lesson, Said]] = field(default_factory=dict)
    """Hints that have no lesson there yet, by signal, each as a lesson of its own."""
    seen: int = 0
    """The newest signal in `gathered`."""
    asked: int = 0
    """The newest signal that was ever in `waiting`."""
    changes: tuple[int, int] | None = None


def look(log: LearningLog, before: Shelf, *, policy: str, approve: Approve) -> Shelf:
    """What is there now. Raises StoreError.

    Args:
        before: the shelf of the last look, or an empty one.
        approve: whether hints become lessons by themselves; in review those that wait are shown to nobody.
    """
    changes = log.changes()
    if changes == before.changes:
        return before
    now = replace(before, changes=changes)
    if before.changes is None or changes[0] != before.changes[0]:
        now = _gathered(log, now, policy)
    fresh = log.new_hints(policy, after=before.asked)
    state = state_of(approve)
    waiting = now.waiting | {item.signal: (lesson_of(item, state), _said(item)) for item in fresh}
    asked = fresh[-1].signal if fresh else before.asked
    newest = dict(list(waiting.items())[-MAX_REMEMBERED:])
    return _joined(replace(now, waiting=newest, asked=asked), approve)


def _gathered(log: LearningLog, before: Shelf, policy: str) -> Shelf:
    """What learning.db says."""
    news = log.given(before.seen, policy, limit=MAX_REMEMBERED)
    gathered = dict(before.gathered)
    for one in news:
        gathered[one.lesson] = (*gathered.get(one.lesson, ()), _said(one))[-MAX_GIVEN:]
    known = {one.signal for one in news}
    return replace(
        before,
        lessons=tuple(log.with_results(log.bare_lessons(policy), policy)),
        gathered=gathered,
        doubted=log.doubted(),
        waiting={signal: item for signal, item in before.waiting.items() if signal not in known},
        seen=news[-1].signal if news else before.seen,
    )


def _joined(shelf: Shelf, approve: Approve) -> Shelf:
    """The waiting hints beside the lessons, as the learner will gather them (`agentrl.signals.lessons.gather`)."""
    lessons, given = list(shelf.lessons), dict(shelf.gathered)
    for lesson, said in shelf.waiting.values():
        same = merged_into(lesson, lessons, in_other_words=approve == "auto")
        if same is None:
            lessons.append(lesson)
        name = (same or lesson).id
        given[name] = (*given.get(name, ()), said)
    return replace(shelf, approved=_approved(lessons), given=given)


def _approved(lessons: Iterable[Lesson]) -> dict[str, Lesson]:
    return {lesson.id: lesson for lesson in lessons if lesson.state is LessonState.APPROVED}


def _said(item: Given | NewHint) -> Said:
    turn = item.turn
    return Said(
        turn_id=turn.id,
        session=turn.session,
        source=item.source,
        at=turn.received_at,
        words=request_words(turn),
        num_arguments=num_arguments(turn),
        by_user=said_by_user(item.hint, item.source, item.next_state),
    )
