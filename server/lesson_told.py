"""One lesson in plain words: what its state means, where it is asked for, what to do next."""

from __future__ import annotations

from agentrl.signals.suspicion import suspicion
from agentrl.teacher.recall import is_rule
from agentrl.types import Lesson, LessonState


def means(lesson: Lesson, why_kept: str | None) -> str:
    """What a lesson's state is for.

    Args:
        why_kept: why it is taught to nobody, whatever its state.
    """
    if lesson.state is LessonState.REJECTED:
        return "it is never taught"
    if lesson.state is LessonState.RETIRED:
        return "it is taught no more; weights already trained stay"
    if lesson.state is LessonState.PROPOSED:
        return "it waits for somebody to read it; nothing is taught of it until then"
    if why_kept is not None:
        return f"it is kept for export and not taught: {why_kept}"
    if is_rule(lesson):
        return "it is taught with every request of its scope, for it names none; it rests while a version holds it"
    return "it is taught with requests like the one that it came from"


def next_step(lesson: Lesson) -> str:
    """What somebody may do about a lesson now."""
    mark = suspicion(lesson)
    if lesson.state is LessonState.PROPOSED:
        careful = "" if mark is None else f"read it with care ({mark}); "
        return f"{careful}`agentrl lessons approve {lesson.id}` or `agentrl lessons reject {lesson.id}`"
    if lesson.state is LessonState.APPROVED:
        return f"`agentrl progress` says whether it holds; `agentrl lessons retire {lesson.id}` ends it"
    return f"`agentrl lessons approve {lesson.id}` takes that back"


def asked_where(lesson: Lesson) -> str:
    """Where versions are asked for a lesson, without having it in view."""
    probe = lesson.probe
    if is_rule(lesson):
        num = len((probe or {}).get("turn_ids", ()))
        if not num:
            return (
                "no probe yet: once it is approved, and requests were served, some of the newest are chosen"
            )
        return f"in {num} of the newest requests of its scope, every few versions"
    if probe is None:
        return "nowhere: it came with no request"
    apart = "nothing is trained on it" if probe.get("held_out") else "it is trained on as well"
    return f"in {'the request of a turn' if 'turn_id' in probe else 'the request that came with it'}; {apart}"
