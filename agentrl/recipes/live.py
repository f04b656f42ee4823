"""How a method runs on single live turns: what of it compares a group gives way, and the baseline is said.

on_live_turns(read_recipe("grpo"))  ->  {"rollout": "stream", "advantage": "raw"}
"""

from __future__ import annotations

from typing import Any

from agentrl.errors import ConfigError
from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe
from agentrl.recipes.rules_rl import COMPARES
from agentrl.recipes.rules_routes import OF_GROUPS


def on_live_turns(recipe: Recipe) -> dict[str, Any] | None:
    """Settings to change so that a recipe runs on single live turns; none where it does as it is.

    An advantage of groups becomes the reward itself, a route, a context or a regulariser of groups falls away.

    Returns:
        Values by dotted name, or None where the comparison is the method: answers of a group are replaced, edited or
        chosen among each other, right ones are set against wrong ones, or the group says how hard its task is.
    """
    if recipe.group_size == 1:
        return {}
    rehearsal = getattr(recipe.rollout, "rehearsal", 0.0)
    changes: dict[str, Any] = {
        "rollout": {"name": "stream", "rehearsal": rehearsal} if rehearsal else "stream",
        **_transform(recipe),
        **_context(recipe),
        **_route(recipe),
        **_advantage(recipe),
        **_regularisers(recipe),
    }
    by_difficulty = any(
        isinstance(x, axes.WeightedKlRef) and x.by == "difficulty" for x in recipe.regularisers
    )
    if isinstance(recipe.advantage, axes.Discriminative) or by_difficulty:
        return None
    try:
        recipe.replaced(changes)
    except ConfigError:
        return None
    return changes


def live_line(recipe: Recipe) -> str:
    """The same in a line, with the baseline: what is taken off a turn's reward."""
    if recipe.num_live == 0:
        return "takes none: it reads its file alone"
    changes = on_live_turns(recipe)
    if changes is None:
        return "needs groups: it compares the attempts of one with each other"
    baseline = "baseline 0" if recipe.uses_rl else "no baseline, for it uses no reward"
    if isinstance(recipe.mix, axes.SelfDistill):
        baseline += ", and the first answer's reward for what is learnt from the second"
    if not changes:
        return f"as it is, {baseline}"
    return f"with {', '.join(f'{name} = {_shown(value)}' for name, value in changes.items())}: {baseline}"


def _shown(value: Any) -> str:
    """A value as a line of TOML has it, near enough to be read."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_shown(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_shown(item) for item in value)}]"
    return str(value)


def _transform(recipe: Recipe) -> dict[str, Any]:
    """A group of one has no spread, so that none would be left of those that must have some."""
    return {"transform": "none"} if isinstance(recipe.transform, axes.DropConstant) else {}


def _context(recipe: Recipe) -> dict[str, Any]:
    parts = recipe.context.parts
    kept = [part for part in parts if not isinstance(part, axes.SiblingSuccess)]
    if len(kept) == len(parts):
        return {}
    if not kept:
        return {"context": "env_feedback"}
    return {"context": _named(kept[0]) if len(kept) == 1 else [_named(part) for part in kept]}


def _route(recipe: Recipe) -> dict[str, Any]:
    if any(isinstance(part, axes.NoCorrectInGroup) for part in recipe.route.parts):
        return {"route": "wrong_only"}
    kept = [
        part
        for part in recipe.route.parts
        if not isinstance(part, OF_GROUPS)
        and not (isinstance(part, axes.PplSoftmax) and part.within == "group")
    ]
    if len(kept) == len(recipe.route.parts):
        return {}
    return {"route": _named(kept[0]) if len(kept) == 1 else [_named(part) for part in kept] or "all"}


def _advantage(recipe: Recipe) -> dict[str, Any]:
    """The outermost option that compares a group becomes `raw`; those around it stay."""
    option, setting = recipe.advantage, "advantage"
    while isinstance(option, axes.Based) and not isinstance(option, COMPARES):
        option, setting = option.base, f"{setting}.base"
    return {setting: "raw"} if isinstance(option, COMPARES) else {}


def _regularisers(recipe: Recipe) -> dict[str, Any]:
    kept = [item.model_dump() for item in recipe.regularisers if not isinstance(item, axes.Length)]
    found: dict[str, Any] = {"regularisers": kept} if len(kept) < len(recipe.regularisers) else {}
    for number, item in enumerate(recipe.regularisers):
        share = f"regularisers.{number}.share"
        if isinstance(item, axes.LastTokenMse) and share in recipe.schedules:
            found["schedules"] = {
                name: spec.model_dump() for name, spec in recipe.schedules.items() if name != share
            }
        if isinstance(item, axes.LastTokenMse) and item.share:
            found[share] = 0.0
    return found


def _named(option: axes.Option) -> Any:
    """Its name, or a table where it has settings of its own."""
    own = option.model_dump(exclude_defaults=True)
    return {"name": option.name, **own} if own else option.name
