"""One lesson in plain words: what its state means, where it is asked for, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agentrl.signals.transcripts import NO_CORRECTION, Dropped
from agentrl.teacher.recall import is_rule
from agentrl.types import Lesson, LessonState
from server.typed import command

MAX_DROPPED: Final = 10
"""Lines of what became no lesson that people are shown."""
MAX_UNREAD: Final = 3
"""Those of users whose words were read as no correction."""


def in_lines(dropped: Sequence[Dropped], rest: str = "") -> list[str]:
    """What became no lesson, a line each and as many as people read; where a user was read as not correcting, a few:
    most answers to an agent are the next task.

    Args:
        rest: behind how many more there are.
    """
    unread = [one for one in dropped if one.reason == NO_CORRECTION]
    others = [one for one in dropped if one.reason != NO_CORRECTION]
    return [
        *_first(others, MAX_DROPPED, f"more{rest}"),
        *_first(unread, MAX_UNREAD, f"more {NO_CORRECTION}{rest}"),
    ]


def _first(dropped: Sequence[Dropped], most: int, more: str) -> list[str]:
    lines = [f"{one.where}: {one.reason}" + f": {one.text}" * bool(one.text) for one in dropped[:most]]
    left = len(dropped) - most
    return [*lines, f"and {left} {more}"] if left > 0 else lines


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
        kept = (
            "kept for export and not taught"
            if lesson.origin == "import"
            else "held back, not taught or exported"
        )
        return f"it is {kept}: {why_kept}"
    if is_rule(lesson):
        return "it is taught with every request of its scope, for it names none; it rests while a version holds it"
    return "it is taught with requests like the one that it came from"


def next_step(lesson: Lesson, run_dir: Path, mark: str | None) -> str:
    """What somebody may do about a lesson now.

    Args:
        mark: what of it reads like an attack.
    """

    def to(decision: str) -> str:
        return command(f"lessons {decision} {lesson.id}", run_dir, lesson.scope)

    if lesson.state is LessonState.PROPOSED:
        careful = "" if mark is None else f"read it with care ({mark}); "
        return f"{careful}{to('approve')} or {to('reject')}"
    if lesson.state is LessonState.APPROVED:
        return f"{command('progress', run_dir)} says whether it holds; {to('retire')} ends it"
    return f"{to('approve')} takes that back"


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
