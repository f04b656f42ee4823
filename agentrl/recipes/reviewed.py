"""What of a recipe can learn from something that nobody could have approved; empty where all it learns is a lesson.

With `learn.approve = "review"` a turn is trained only behind an approved lesson, the text of a hint or of a skill. A
reward, the words of an environment, a preferred answer and a file are no lessons: there is nothing in them to approve.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe
from agentrl.recipes.routes import BY_CONTEXT

LESSONS = ("hindsight_hint", "skill")
"""The contexts whose texts are lessons."""
PRESETS = ("hint_opsd", "openclaw_rl_hint", "personal")
"""Those that learn from lessons alone."""


def unreviewed(recipe: Recipe) -> list[str]:
    """What a recipe learns from beside lessons, each named with its axis."""
    return list(_found(recipe))


def _found(recipe: Recipe) -> Iterator[str]:
    if recipe.uses_rl:
        yield f"rewards (mix {recipe.mix.name!r})"
    if recipe.uses_pairs:
        yield f"preferred answers (mix {recipe.mix.name!r})"
    if recipe.rollout.beside > 0:
        yield f"answers from elsewhere (rollout {recipe.rollout.name!r})"
    if not isinstance(recipe.transform, axes.NoTransform | axes.NextAnswer):
        yield f"answers that it makes itself (transform {recipe.transform.name!r})"
    if recipe.uses_kd:
        yield from _of_the_teacher(recipe)


def _of_the_teacher(recipe: Recipe) -> Iterator[str]:
    shown = [part.name for part in recipe.context.parts]
    for name in shown:
        if name not in LESSONS and name != "none":
            yield f"what its teacher is shown (context {name!r})"
    if isinstance(recipe.divergence, axes.Ce):
        yield "answers as they are (divergence 'ce')"
    routes = {part.name for part in recipe.route.parts}
    for part in recipe.context.parts:
        if isinstance(part, axes.HindsightHint) and part.choose != "trusted":
            yield f"preferred answers, which it measures beside hints (context.choose {part.choose!r})"
    if set(shown) <= {"none"} or not routes & BY_CONTEXT:
        yield f"turns behind which no lesson stands (context {recipe.context.name!r}, route {recipe.route.name!r})"
    elif recipe.holds and not isinstance(recipe.teacher, axes.SelfTeacher):
        # Held to the policy's own earlier weights, a turn teaches nothing; held to another model, it teaches that one.
        yield f"what another model says to right answers (teacher {recipe.teacher.name!r}, route 'context_or_held')"
