"""Files and folders that a recipe reads. They are looked for before anything is served (law 9); whoever reads one says
what is wrong inside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agentrl.errors import ConfigError
from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe


def refuse_missing_files(recipe: Recipe) -> None:
    """Raises ConfigError, naming the setting, where a file is not named or not there."""
    for setting, what, path in _wanted(recipe):
        name = f"learn.overrides.{setting}"
        if not path:
            raise ConfigError(f"recipe {recipe.name!r} reads {what}, and nobody says which: set {name}")
        if not Path(path).expanduser().exists():
            raise ConfigError(f"recipe {recipe.name!r} reads {what}, but {name} = {path!r} is not there")


def _wanted(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """(setting, what it names, its value)."""
    teacher = recipe.teacher
    if recipe.uses_kd and isinstance(teacher, axes.ExternalTeacher):
        yield "teacher.path", "the folder of another model as its teacher", teacher.path
    if recipe.uses_kd and isinstance(teacher, axes.CachedTeacher):
        yield "teacher.path", "a file of a teacher's scores", teacher.path
    if isinstance(recipe.rollout, axes.Offline | axes.Mixed):
        yield "rollout.path", "a file of answers", recipe.rollout.path
    if recipe.transform.params.get("source") == "teacher_trace":
        yield "transform.path", "a file of a teacher's answers", str(recipe.transform.params["path"])
