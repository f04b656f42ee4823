"""How a lesson stands with the versions that were asked for it.

    held_by, broken_by, without_effect ─┬─> standing: what people are told of it
                                        └─> rests: whether teachers are shown it

Both read what `agentrl.learner.lesson_probes` found, and nothing else.
"""

from __future__ import annotations

from agentrl.teacher.recall import is_rule
from agentrl.types import Lesson


def standing(lesson: Lesson) -> tuple[str, int | None]:
    """("holds" | "broken" | "not yet" | "no effect" | "-", the version that broke it). "-": nothing could be asked."""
    if lesson.probe is None and not is_rule(lesson):
        return "-", None
    newest = max((*lesson.held_by, *lesson.without_effect), default=-1)
    after = [number for number in lesson.broken_by if number > newest]
    if after:
        return "broken", min(after)
    if newest < 0:
        return "not yet", None
    return ("no effect" if newest in lesson.without_effect else "holds"), None


def rests(lesson: Lesson) -> bool:
    """Whether the weights do what a lesson asks for by themselves: the newest version that said anything held it, or
    none has lost it by far since."""
    return bool(lesson.held_by) and max(lesson.held_by) > max(lesson.broken_by, default=-1)
