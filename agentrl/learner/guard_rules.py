"""Which guards, curriculum and review a recipe leaves room for, and which settings change nothing. No torch here: the
server refuses with it at start."""

from __future__ import annotations

from typing import Final

from agentrl.config import Config, CurriculumConfig, GuardsConfig
from agentrl.errors import ConfigError
from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe
from agentrl.recipes.reviewed import PRESETS, unreviewed

DEFAULT_PENALTY = 1.0
"""`guards.max_penalty` where rewards are advantages as they are and nobody set it."""

_DETAILS: Final[dict[str, tuple[str, object, str]]] = {
    "curriculum.min_weight": ("curriculum.tasks", "equal", "edge"),
    "guards.watch_turns": ("guards.watch", "off", "report"),
    "learn.show_share": ("learn.show_lessons", False, "true"),
    "learn.max_shown": ("learn.show_lessons", False, "true"),
    "learn.max_shown_tokens": ("learn.show_lessons", False, "true"),
    "skills.min_cosine": ("skills.embeddings", None, "the folder of a model"),
}
"""Settings that say how another one works: that one, its value with which they change nothing, and one with which
they do."""


def refuse(config: Config, recipe: Recipe) -> None:
    """Raises ConfigError for guards, a curriculum and a review that a recipe leaves no room for, and for settings that
    change nothing (law 9)."""
    _refuse_idle(config)
    refuse_unreviewed(config, recipe)
    settings = config.guards
    if settings.min_sessions > 1 and not has_quarantine(settings, recipe):
        raise ConfigError(
            f"guards.min_sessions = {settings.min_sessions} keeps turns in quarantine, but there is none with "
            f"guards.quarantine = {settings.quarantine!r} and recipe {recipe.name!r}: set it to 1, or quarantine to "
            "'auto' with a recipe that takes turns one by one"
        )
    _refuse_weights(config, recipe)
    if settings.max_penalty and not takes_rewards_as_they_are(recipe):
        raise ConfigError(
            f"guards.max_penalty bounds rewards that are advantages as they are, one turn at a time, as those of "
            f"'openclaw_rl', and recipe {recipe.name!r} has none: leave it out"
        )
    if takes_one_by_one(recipe):
        return
    if recipe.uses_pairs and config.curriculum.balance != CurriculumConfig().balance:
        raise ConfigError(
            f"curriculum.balance chooses among turns and groups, but recipe {recipe.name!r} compares pairs: leave it "
            "out"
        )
    if recipe.uses_pairs and settings.quarantine == "on":
        raise ConfigError(
            f"guards.quarantine = 'on' sets turns and groups aside, but recipe {recipe.name!r} compares pairs: set "
            "guards.quarantine = 'auto', or choose a recipe that takes turns one by one"
        )
    if settings.max_session_share is not None:
        raise ConfigError(
            f"guards.max_session_share weighs single turns, but recipe {recipe.name!r} compares whole groups or pairs: "
            "leave it out"
        )


def _refuse_idle(config: Config) -> None:
    """Refuses a setting that was changed where it changes nothing."""
    usual = Config()
    for name, (governor, idle, remedy) in _DETAILS.items():
        value = _setting(config, name)
        if value != _setting(usual, name) and _setting(config, governor) == idle:
            without = f"with {governor} = {idle}" if idle else f"without {governor}"
            raise ConfigError(
                f"{name} = {value} has no effect {without}: leave it out, or set {governor} = {remedy}"
            )


def _setting(config: Config, name: str) -> object:
    section, _, field = name.partition(".")
    return getattr(getattr(config, section), field)


def refuse_unreviewed(config: Config, recipe: Recipe) -> None:
    """Raises ConfigError where nothing unapproved is to be trained and a recipe learns from what nobody can approve."""
    found = unreviewed(recipe) if config.learn.approve == "review" else []
    if found:
        raise ConfigError(
            "learn.approve = 'review' trains nothing that nobody approved, and what can be approved are lessons, the "
            f"texts of hints and skills; recipe {recipe.name!r} also learns from {', from '.join(found)}: set "
            f"learn.recipe = {' or '.join(map(repr, PRESETS))}, which learn from lessons alone, or learn.approve = "
            "'auto'"
        )


def _refuse_weights(config: Config, recipe: Recipe) -> None:
    """Refuses what weighs samples where their weights change nothing."""
    if recipe.uses_pairs:
        why = f"recipe {recipe.name!r} compares pairs"
    elif isinstance(recipe.mix, axes.Joint | axes.SelfDistill):
        why = f"mix {recipe.mix.name!r} of recipe {recipe.name!r} takes every one at weight 1"
    else:
        return
    settings = config.guards
    for name, value in {
        "max_session_share": settings.max_session_share,
        "max_key_share": settings.max_key_share,
        "max_source_share": settings.max_source_share if settings.max_source_share < 1 else None,
    }.items():
        if value is not None:
            raise ConfigError(f"guards.{name} weighs single turns, but {why}: leave it out")
    if any(0 < weight < 1 for weight in settings.trust.values()):
        raise ConfigError(
            f"guards.trust between 0 and 1 weighs single turns, but {why}: write 0, not listened to, or 1"
        )
    if config.curriculum.tasks != "equal":
        raise ConfigError(f"curriculum.tasks weighs single turns, but {why}: set it to 'equal'")


def has_quarantine(settings: GuardsConfig, recipe: Recipe) -> bool:
    """Whether turns whose signals are contradicted are set aside. "auto": where turns are taken one by one, and groups
    whose hints a teacher is shown; rewards of a group are there to differ."""
    if settings.quarantine != "auto" or takes_one_by_one(recipe):
        return settings.quarantine != "off"
    return not recipe.uses_pairs and any(isinstance(p, axes.HindsightHint) for p in recipe.context.parts)


def is_its_own_measure(recipe: Recipe) -> bool:
    """Whether what version 0 says, with the teacher's context in view where there is one, tells what is no drift: not
    where another model teaches, for then to leave version 0 behind is what is asked for."""
    return not recipe.uses_kd or isinstance(recipe.teacher, axes.SelfTeacher)


def most_penalty(settings: GuardsConfig, recipe: Recipe) -> float:
    """What penalties may weigh for each unit of praise; 0 where there is no bound."""
    if settings.max_penalty is None:
        return DEFAULT_PENALTY if takes_rewards_as_they_are(recipe) else 0.0
    return settings.max_penalty


def takes_rewards_as_they_are(recipe: Recipe) -> bool:
    return recipe.uses_rl and isinstance(recipe.advantage, axes.Raw) and takes_one_by_one(recipe)


def takes_one_by_one(recipe: Recipe) -> bool:
    return recipe.group_size == 1 and not recipe.uses_pairs
