"""What the lessons of a run are marked for, before somebody approves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentrl.signals.lessons import name_of_skill
from agentrl.signals.suspicion import suspicion
from agentrl.store.learning_log import LearningLog
from agentrl.types import Lesson
from server.skills_pages import library_of
from skills import marks


def marked(run_dir: Path, lessons: Sequence[Lesson]) -> dict[str, str]:
    """By the id of a lesson what of it reads like an attack; those of which nothing does are left out. Raises
    StoreError."""
    found: dict[str, str] = {}
    with LearningLog(run_dir) as log:
        for lesson in lessons:
            if lesson.origin == "skill":
                mark = marks.suspicion(library_of(run_dir, lesson.scope).get(name_of_skill(lesson)))
            else:
                mark = suspicion(lesson, log.records)
            if mark is not None:
                found[lesson.id] = mark
    return found
