"""Whether a turn may be trained under a recipe at all, judged from its record alone (laws 5, 7 and 10)."""

from __future__ import annotations

from agentrl.recipes.recipe import Recipe
from agentrl.types import RedactedSpan, Sampling, Turn

GREEDY = "greedy sample"
"""Every id was the only one allowed: temperature 0, top_k 1, a grammar (law 7)."""
GREEDY_PARTNER = "greedy partner"
"""The answer that it was to be compared with is such a one."""


def refusal(recipe: Recipe, turn: Turn, *, newest_version: int) -> str | None:
    """Why this turn must not be trained; None when it may. The text is the reason that is counted.

    Args:
        recipe: the recipe in force.
        turn: as recorded.
        newest_version: the newest version that the learner knows of.
    """
    completion, sampling = turn.completion, turn.sampling
    if not completion.token_ids:
        return "nothing sampled"
    oldest = min(span.version for span in completion.version_spans)
    if newest_version - oldest > recipe.limits.max_version_lag:
        return "version lag"
    if turn.block_spans:
        return "privileged context in the prompt"
    if recipe.needs_behavior_logprobs and completion.raw_logprobs is None:
        return "no raw log-probs"
    if recipe.needs_behavior_logprobs and not all(_in_prompt(span) for span in turn.redacted_spans):
        return "redacted sample"
    # Without support sizes a forced id cannot be told from a chosen one; here all of them were forced.
    if recipe.uses_sampled_ids and completion.num_allowed is None and _greedy(sampling):
        return GREEDY
    return None


def _in_prompt(span: RedactedSpan) -> bool:
    return span.path.startswith(("messages.", "tools."))


def _greedy(sampling: Sampling) -> bool:
    return sampling.temperature == 0 or sampling.top_k == 1
