"""Which guards and which curriculum a recipe leaves room for. No torch here: the server refuses with it at start."""

from __future__ import annotations

from agentrl.config import Config
from agentrl.errors import ConfigError
from agentrl.recipes.recipe import Recipe


def refuse(config: Config, recipe: Recipe) -> None:
    """Raises ConfigError for guards and a curriculum that a recipe leaves no room for (law 9)."""
    settings = config.guards
    if settings.min_sessions > 1 and (settings.quarantine == "off" or not takes_one_by_one(recipe)):
        raise ConfigError(
            f"guards.min_sessions = {settings.min_sessions} keeps single turns in quarantine, but there is none with "
            f"guards.quarantine = {settings.quarantine!r} and recipe {recipe.name!r}: set it to 1, or quarantine to "
            "'auto' with a recipe that takes turns one by one"
        )
    if takes_one_by_one(recipe):
        return
    if settings.quarantine == "on":
        raise ConfigError(
            f"guards.quarantine = 'on' sets single turns aside, but recipe {recipe.name!r} compares whole groups or "
            "pairs: set guards.quarantine = 'auto', or choose a recipe that takes turns one by one"
        )
    bounds = {"max_session_share": settings.max_session_share, "max_key_share": settings.max_key_share}
    if recipe.uses_pairs:
        bounds["max_source_share"] = settings.max_source_share if settings.max_source_share < 1 else None
    for name, value in bounds.items():
        if value is not None and (recipe.uses_pairs or name == "max_session_share"):
            raise ConfigError(
                f"guards.{name} weighs single turns, but recipe {recipe.name!r} compares whole groups or pairs: leave "
                "it out"
            )
    if recipe.uses_pairs and config.curriculum.tasks != "equal":
        raise ConfigError(
            f"curriculum.tasks weighs single turns, but recipe {recipe.name!r} compares pairs: set it to 'equal'"
        )


def takes_one_by_one(recipe: Recipe) -> bool:
    return recipe.group_size == 1 and not recipe.uses_pairs
