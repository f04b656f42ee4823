"""What the files say of lessons, for whoever shows them: read on from where the last look ended, never written.

learning.db ──approved lessons, what probes found, the newest hints of each, turns set aside──┐
log.db ──hints in users' own words that have no lesson yet────────────────────────────────────┴──> Shelf

A hint counts once it was gathered into a lesson: then the learner, unless it was the command line, has begun to look at
its turn, and what its guards set aside is doubted. Nothing is waited for beyond that, since the files do not tell what
the guards have looked at: a claim is recorded before they look and leaves nothing behind when it is released, and a
turn in whose prompt a lesson stood is never claimed. A user's own words count at once: the guards set them aside for
other users' words alone, and the learner may be in a long step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from agentrl.signals.candidates import said_by_user
from agentrl.signals.lessons import Known, done_in, lesson_of, state_of
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

    signal: int
    """The hint's number in log.db."""
    turn_id: str
    session: str
    source: SignalSource
    at: float
    """When the request came, Unix seconds."""
    words: frozenset[str]
    """Of the request, its arguments marked."""
    num_arguments: int
    done: frozenset[str]
    """Words of the turn's actions."""
    by_user: bool
    """Whether a user said it in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The files as they stood at one look; of lessons the approved ones, since nobody is shown the many others."""

    approved: dict[str, Lesson] = field(default_factory=dict)
    given: dict[str, tuple[Said, ...]] = field(default_factory=dict)
    """By lesson, in the order of their signals."""
    doubted: frozenset[str] = frozenset()
    """Turns whose hints are not to be believed."""
    lessons: dict[str, Lesson] = field(default_factory=dict)
    """`approved`, as far as learning.db knows."""
    gathered: dict[str, tuple[Said, ...]] = field(default_factory=dict)
    """`given`, as far as learning.db knows; every one of `lessons` has an entry."""
    waiting: dict[int, tuple[Lesson, Said]] = field(default_factory=dict)
    """Users' hints that have no lesson there yet, by signal, each as a lesson of its own."""
    asked: int = 0
    """The newest signal with a hint without a lesson that was ever met."""
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
    state, asked, waiting = state_of(approve), before.asked, dict(now.waiting)
    while fresh := log.new_hints(policy, after=asked):
        asked = fresh[-1].signal
        for item in fresh:
            if said_by_user(item.hint, item.source, item.next_state):
                waiting[item.signal] = (lesson_of(item, state), _said(item, by_user=True))
    if now.lessons is before.lessons and waiting.keys() == before.waiting.keys():
        return replace(now, asked=asked)
    newest = dict(list(waiting.items())[-MAX_REMEMBERED:])
    return _joined(log, replace(now, waiting=newest, asked=asked), policy, approve)


def _gathered(log: LearningLog, before: Shelf, policy: str) -> Shelf:
    """What learning.db says."""
    # Before the hints of lessons are read: what is gathered in between is met twice for one look, never lost.
    done = log.gathered({signal: said.turn_id for signal, (_, said) in before.waiting.items()})
    approved = log.with_results(log.bare_lessons(policy, LessonState.APPROVED), policy)
    gathered = {lesson.id: before.gathered.get(lesson.id, ()) for lesson in approved}
    newest = {name: given[-1].signal if given else 0 for name, given in gathered.items()}
    for one in log.given(newest, most=MAX_GIVEN):
        by_user = said_by_user(one.hint, one.source, one.next_state)
        gathered[one.lesson] = (*gathered[one.lesson], _said(one, by_user=by_user))[-MAX_GIVEN:]
    return replace(
        before,
        lessons={lesson.id: lesson for lesson in approved},
        gathered=gathered,
        doubted=log.doubted(),
        waiting={signal: item for signal, item in before.waiting.items() if signal not in done},
    )


def _joined(log: LearningLog, shelf: Shelf, policy: str, approve: Approve) -> Shelf:
    """The waiting hints beside the lessons, as the learner will gather them."""
    if not shelf.waiting:
        return replace(shelf, approved=shelf.lessons, given=shelf.gathered)
    approved, given = dict(shelf.lessons), dict(shelf.gathered)
    known = Known(log.bare_lessons(policy))
    for lesson, said in shelf.waiting.values():
        same = known.same(lesson, done=said.done, in_other_words=approve == "auto")
        if same is None:
            known.add(lesson)
            if lesson.state is LessonState.APPROVED:
                approved[lesson.id] = lesson
        name = (same or lesson).id
        if name in approved:
            given[name] = (*given.get(name, ()), said)[-MAX_GIVEN:]
    return replace(shelf, approved=approved, given=given)


def _said(item: Given | NewHint, *, by_user: bool) -> Said:
    turn = item.turn
    return Said(
        signal=item.signal,
        turn_id=turn.id,
        session=turn.session,
        source=item.source,
        at=turn.received_at,
        words=request_words(turn),
        num_arguments=num_arguments(turn),
        done=done_in(turn),
        by_user=by_user,
    )
