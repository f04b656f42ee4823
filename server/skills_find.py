"""`agentrl skills find`: what a task never seen would choose from, and how like the skills are to it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from server.run_files import settings_of
from server.skills_pages import library_of, root_of
from skills.bank import SkillBank
from skills.embed import Embedder
from skills.request import Request
from skills.retrieve import SkillIndex
from skills.skill_file import SkillState
from skills.source import MAX_FOUND


def found(run_dir: Path, scope: str, text: str) -> list[dict[str, Any]]:
    """The active skills that a request finds, the likest first, then the nearest of the others.

    Raises ConfigError where the model of `skills.embeddings` cannot be loaded.
    """
    settings = settings_of(run_dir).skills
    embedder = None if settings.embeddings is None else Embedder(settings.embeddings)
    skills = library_of(run_dir, scope).all(SkillState.ACTIVE)
    about = {skill.name: skill.description for skill in skills}
    with (
        closing(SkillBank(root_of(run_dir))) as bank,
        closing(SkillIndex(skills, bank.requests(scope), embedder)) as index,
    ):
        matches = index.matches(Request.written(text), settings, MAX_FOUND)
    return [
        {
            "name": match.name,
            "found": match.is_found,
            "likeness": round(match.likeness, 3),
            "cosine": match.cosine,
            "description": about[match.name],
        }
        for match in matches
    ]
