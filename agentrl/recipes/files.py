"""Files and folders that a recipe reads. They are looked for before anything is served (law 9), and again by whoever
opens one, who says what is wrong inside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentrl.errors import ConfigError
from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe
from agentrl.teacher.scores import HASHED
from agentrl.text.vocabulary import check_vocabulary

UNNAMED = ("", "?")
"""What a preset holds where only the user can say which file it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    setting: str
    """Below learn.overrides."""
    what: str
    value: str
    otherwise: str
    """What to do for whoever has no such file."""


def refuse_missing_files(recipe: Recipe) -> None:
    """Raises ConfigError, naming the setting and the remedy, where a file is not named or not there."""
    for wanted in _wanted(recipe):
        _checked(recipe, wanted)


def refuse_foreign_vocabulary(recipe: Recipe, policy: Path) -> None:
    """Raises ConfigError, naming both models and the remedy, where a teacher's ids are not the policy's.

    Args:
        recipe: whose files are there (`refuse_missing_files`).
        policy: the folder of the model that is to be served and trained.
    """
    if not (recipe.uses_kd and isinstance(recipe.teacher, axes.ExternalTeacher)):
        return
    try:
        check_vocabulary(path_of(recipe, "teacher.path"), policy)
    except ConfigError as error:
        raise ConfigError(
            f"recipe {recipe.name!r} cannot work: teacher 'external' scores the ids of the answers that rollout "
            f"{recipe.rollout.name!r} brings, but {error}"
        ) from error


def path_of(recipe: Recipe, setting: str) -> Path:
    """The file or folder that a setting of the recipe names.

    Args:
        recipe: one that reads it.
        setting: below learn.overrides, "rollout.path" for example.

    Raises:
        ConfigError: it is not named or not there.
    """
    (wanted,) = (wanted for wanted in _wanted(recipe) if wanted.setting == setting)
    return _checked(recipe, wanted)


def _checked(recipe: Recipe, wanted: _Wanted) -> Path:
    name, path = f"learn.overrides.{wanted.setting}", Path(wanted.value).expanduser()
    if wanted.value in UNNAMED:
        raise ConfigError(
            f"recipe {recipe.name!r} reads {wanted.what}, and nobody says which: --set {name}=PATH, or "
            f"{wanted.otherwise}"
        )
    if not wanted.value.startswith(HASHED) and not path.exists():
        raise ConfigError(
            f"recipe {recipe.name!r} reads {wanted.what}, but {name} = {wanted.value!r} is not there: name one that "
            f"is, or {wanted.otherwise}"
        )
    return path


def _wanted(recipe: Recipe) -> Iterator[_Wanted]:
    teacher, rollout = recipe.teacher, recipe.rollout
    if recipe.uses_kd and isinstance(teacher, axes.ExternalTeacher):
        yield _Wanted(
            setting="teacher.path",
            what="the folder of another model as its teacher",
            value=teacher.path,
            otherwise="set teacher = 'self'",
        )
    if recipe.uses_kd and isinstance(teacher, axes.CachedTeacher):
        yield _Wanted(
            setting="teacher.path",
            what="a file of a teacher's scores",
            value=teacher.path,
            otherwise="write one with agentrl.learner.external_teacher.score_turns",
        )
        yield _Wanted(
            setting="teacher.model",
            what="the fingerprint of the model that has given those scores, or its folder",
            value=teacher.model,
            otherwise="set teacher = 'self'",
        )
    if isinstance(rollout, axes.Offline | axes.Mixed):
        yield _Wanted(
            setting="rollout.path",
            what="a file of answers",
            value=rollout.path,
            otherwise="set rollout = 'stream'",
        )
    if recipe.transform.params.get("source") == "teacher_trace":
        yield _Wanted(
            setting="transform.path",
            what="a file of a teacher's answers",
            value=str(recipe.transform.params["path"]),
            otherwise="set transform.source = 'retry'",
        )
    for setting, path in recipe.references.items():
        yield _Wanted(
            setting=setting,
            what="the folder of another model of the policy's shape",
            value=path,
            otherwise="remove it",
        )
