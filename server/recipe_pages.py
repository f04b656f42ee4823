"""What `agentrl recipes` prints: every method in a line, or one with its axes resolved and its formula."""

from __future__ import annotations

import inspect
from typing import Any

from agentrl.recipes import axes
from agentrl.recipes.live import live_line
from agentrl.recipes.recipe import AXES, Recipe, preset_names, read_recipe

ALGEBRA = "L(θ) = (1/Z)·Σ_i Σ_t m_it·[ α_i·RL_it + λ·κ_i·w_it·KD_it ] + Σ_j c_j·Ω_j"
ROLES = {
    "rollout": "collect", "transform": "transform", "context": "contextualise", "teacher": "score",
    "sync": "score", "target": "q", "divergence": "KD", "estimator": "KD", "token_weight": "w_it",
    "route": "α_i, κ_i", "advantage": "RL: A", "mix": "λ", "offpolicy": "RL: ρ", "regularisers": "Ω_j",
    "aggregate": "1/Z",
}  # fmt: skip
"""What each axis fills in."""


def listed() -> list[dict[str, Any]]:
    """All presets: name, paper, evidence, what they need to run; `lacks` where they cannot run yet."""
    rows = []
    for name in preset_names():
        recipe = read_recipe(name)
        rows.append(
            {
                "name": name,
                "paper": recipe.paper,
                "evidence": recipe.evidence,
                "needs": f"not there: {recipe.lacks}" if recipe.lacks else ", ".join(requirements(recipe)),
                "live": live_line(recipe),
                "alias_of": recipe.alias_of,
            }
        )
    return rows


def requirements(recipe: Recipe) -> list[str]:
    """What must be there for a recipe to learn anything, in words."""
    wants = {"hint": "hints", "reward": "rewards", "any": "hints or rewards"}
    found = [wants.get(recipe.needs, recipe.needs)] if recipe.num_live else []
    if "path" in recipe.rollout.params:
        found.append("a file of answers (rollout.path)")
    if recipe.group_size > 1:
        found.append(f"groups of {recipe.group_size} (agentrl rollout --group-size {recipe.group_size})")
    if recipe.needs_behavior_logprobs:
        found.append("raw log-probs of the sampler")
    if recipe.teacher.name not in ("none", "self"):
        found.append(f"a teacher of kind {recipe.teacher.name!r}")
    shown = (part.name for part in recipe.context.parts)
    found += [f"context {name!r}" for name in shown if name not in ("none", "hindsight_hint")]
    if recipe.uses_reference and not recipe.references:
        found.append("version 0 as reference")
    return found + [f"another model for its reference ({setting})" for setting in recipe.references]


def page(name_or_path: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """One method: its axes with what each option does, its schedules and settings, as nested data for people.

    Raises:
        ConfigError: unknown name, unreadable file, or a combination that cannot work.
    """
    recipe = read_recipe(name_or_path, overrides)
    shown: dict[str, Any] = {"name": recipe.name, "summary": recipe.summary}
    for key in ("paper", "evidence", "doubt", "alias_of", "lacks"):
        if getattr(recipe, key):
            shown[key] = getattr(recipe, key)
    shown["needs"] = ", ".join(requirements(recipe))
    shown["single live turns"] = live_line(recipe)
    shown["formula"] = formula(recipe)
    shown["axes"] = {
        f"{axis} ({ROLES[axis]})": [_line(item) for item in value] or ["none"]
        if isinstance(value, tuple)
        else _line(value)
        for axis in AXES
        for value in (getattr(recipe, axis),)
    }
    if recipe.schedules:
        shown["schedules"] = {
            name: " ".join(f"{k}={v}" for k, v in spec.model_dump().items())
            for name, spec in recipe.schedules.items()
        }
    for section in ("optim", "batch", "limits"):
        shown[section] = getattr(recipe, section).model_dump()
    return shown


def formula(recipe: Recipe) -> list[str]:
    """The algebra with this recipe's options in the places they fill."""

    def called(option: axes.Option, *inputs: str) -> str:
        values = [f"{key}={value}" for key, value in option.params.items() if value is not None]
        return f"{option.name}({', '.join([*inputs, *values])})"

    lines = [ALGEBRA, f"λ, α and κ: {called(recipe.mix)} on the samples that {called(recipe.route)} takes"]
    if recipe.uses_kd:
        seen = "x" if recipe.context.name == "none" else f"x ⊕ {called(recipe.context)}"
        lines.append(f"q = {called(recipe.target, f'teacher({seen})')}, the teacher {called(recipe.teacher)}")
    if recipe.uses_kd and recipe.mix.name != "rl":
        lines.append(f"KD = {called(recipe.estimator, called(recipe.divergence, 'π', 'q'))}")
        lines.append(f"w = {called(recipe.token_weight)}")
    if recipe.uses_rl:
        lines.append(f"A = {called(recipe.advantage, 'r')}")
    if recipe.uses_policy_gradient:
        lines.append(f"RL = {called(recipe.offpolicy, 'ρ', 'A')}")
    elif recipe.offpolicy.name != "none":
        lines.append(f"KD is weighed by {called(recipe.offpolicy, 'ρ')}")
    lines += [f"Ω = {called(item)}" for item in recipe.regularisers]
    return [*lines, f"1/Z = {called(recipe.aggregate)}"]


def _line(option: axes.Option) -> str:
    """`name(parameter=value): what it does`, the first paragraph of the option's own words."""
    values = ", ".join(f"{key}={value}" for key, value in option.params.items() if value is not None)
    words = (inspect.getdoc(option) or "").split("\n\n")[0].replace("\n", " ")
    return f"{option.name}({values}): {words}" if values else f"{option.name}: {words}"
