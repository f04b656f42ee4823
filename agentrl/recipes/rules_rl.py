"""Combinations of reward options that cannot work: advantages, trust regions and regularisers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentrl.recipes import axes

if TYPE_CHECKING:
    from agentrl.recipes.recipe import Recipe


COMPARES = (
    axes.Group,
    axes.LeaveOneOut,
    axes.PositiveOnly,
    axes.StepIndexGroup,
    axes.FirstTurn,
    axes.Conflict,
    axes.EntropyRank,
    axes.Discriminative,
)
"""Advantages that are differences within one group."""


def group_advantages_need_groups(recipe: Recipe) -> Iterator[str]:
    if recipe.group_size > 1:
        return
    found = [part for part in recipe.advantage.parts if isinstance(part, COMPARES)]
    if found:
        yield (
            f"advantage {found[0].name!r} compares the turns of one group, but rollout "
            f"{recipe.rollout.name!r} gives groups of one turn, where it is always 0: set rollout = "
            "{ name = 'student', group_size = 8 } or advantage = 'raw'"
        )


def bounds_of_the_batch_are_the_rewards(recipe: Recipe) -> Iterator[str]:
    option = recipe.offpolicy
    if (
        isinstance(option, axes.Corrections)
        and option.whole_batch
        and not isinstance(recipe.mix, axes.RlOnly)
    ):
        yield (
            f"offpolicy {option.name!r} looks at the rewards' advantages of the whole batch, but mix "
            f"{recipe.mix.name!r} has other losses beside them: set mix = 'rl', or offpolicy = {{ name = 'ppo', "
            "denominator = 'sampler' }"
        )
    adds = axes.KlConstraint | axes.KlCov
    if isinstance(option, adds) and not isinstance(recipe.route, axes.All):
        yield (
            f"offpolicy {option.name!r} adds a loss over all tokens alike, but route {recipe.route.name!r} weighs "
            "them: set route = 'all', or offpolicy = { name = 'ppo', denominator = 'sampler' }"
        )


def discriminative_scores_are_means_of_sequences(recipe: Recipe) -> Iterator[str]:
    if not any(isinstance(part, axes.Discriminative) for part in recipe.advantage.parts):
        return
    if not isinstance(recipe.aggregate, axes.SeqMean):
        yield (
            "advantage 'discriminative' compares the mean scores of sequences, but aggregate "
            f"{recipe.aggregate.name!r} weighs them by their lengths: set aggregate = 'seq_mean'"
        )
    if not isinstance(recipe.offpolicy, axes.NoCorrection | axes.Ratio | axes.KlConstraint):
        yield (
            "advantage 'discriminative' is the gradient of a score, log π or ρ, but offpolicy "
            f"{recipe.offpolicy.name!r} clips it: set offpolicy = {{ name = 'kl_constraint', denominator = 'sampler' }}"
        )


def a_reference_is_compared_where_it_is_known(recipe: Recipe) -> Iterator[str]:
    for item in recipe.regularisers:
        if not isinstance(item, axes.KlRef):
            continue
        if item.to == "sampler" and item.estimator != "iw_k3":
            yield (
                f"regularisers kl_ref with to 'sampler' has estimator {item.estimator!r}, but the sampler is known at "
                "the ids alone that it sampled itself, which the ratio of rollout and policy must correct: set "
                "estimator = 'iw_k3'"
            )
        if item.to == "sampler" and item.soup:
            yield (
                "regularisers kl_ref with soup changes version 0, but to is 'sampler', which is the policy's own: set "
                "to = 'version_0', or remove soup"
            )
        if item.direction == "forward" and item.estimator != "full":
            yield (
                f"regularisers kl_ref with direction 'forward' has estimator {item.estimator!r}, whose direction is "
                "its own (k3 is forward on the policy's samples): set estimator = 'full'"
            )


def there_is_one_reference(recipe: Recipe) -> Iterator[str]:
    found = recipe.references
    weighted = found.get("token_weight.reference")
    if len(set(found.values())) > 1 or (weighted is not None and len(found) > 1):
        yield (
            f"{' and '.join(found)} put several models in the place of version 0, but a recipe has one reference: keep "
            "one of them"
        )


def regularisers_of_rewards_have_rewards(recipe: Recipe) -> Iterator[str]:
    of_rewards = axes.Length | axes.LastTokenMse | axes.WeightedKlRef
    for item in recipe.regularisers:
        if isinstance(item, of_rewards) and not recipe.uses_rl:
            yield (
                f"regularisers {item.name!r} goes by rewards, but mix {recipe.mix.name!r} uses none: set mix = 'rl' "
                "or 'sum' with an advantage, or remove it"
            )


def regularisers_of_groups_need_groups(recipe: Recipe) -> Iterator[str]:
    if recipe.group_size > 1:
        return
    for number, item in enumerate(recipe.regularisers):
        compares, remedy = "", "remove it"
        if isinstance(item, axes.Length):
            compares = "compares the lengths of one group, all equal where it is one turn, so it is always 0"
        if isinstance(item, axes.WeightedKlRef) and item.by == "difficulty":
            compares = "goes by the share of a group that is wrong, 0 where one right turn is the group"
            remedy = f"set regularisers.{number}.by = 'reward'"
        if isinstance(item, axes.LastTokenMse) and item.share > 0:
            compares = (
                f"compares the self-scores of one group, so that share = {item.share:g} would only make the rewards' "
                "advantage smaller"
            )
            remedy = f"set regularisers.{number}.share = 0, and no schedule for it"
        if compares:
            yield (
                f"regularisers {item.name!r} {compares}, but rollout {recipe.rollout.name!r} gives groups of one turn: "
                f"set rollout = {{ name = 'student', group_size = 8 }}, or {remedy}"
            )


def regularisers_of_the_batch_stand_once(recipe: Recipe) -> Iterator[str]:
    names = [item.name for item in recipe.regularisers if item.whole_batch]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"regularisers {name!r} stands twice, but regularisers of the batch have one place each: remove one"


def what_is_rehearsed_comes_from_somewhere(recipe: Recipe) -> Iterator[str]:
    asked = any(isinstance(item, axes.JsRehearsal) for item in recipe.regularisers)
    share = getattr(recipe.rollout, "rehearsal", 0.0)
    if asked and share == 0:
        yield (
            f"regularisers 'js_rehearsal' rehearses answers of version 0, but rollout {recipe.rollout.name!r} brings "
            "none: set rollout = { name = 'student', rehearsal = 0.25 }, or remove it"
        )
    if share > 0 and not asked:
        yield (
            f"rollout {recipe.rollout.name!r} brings answers of version 0 that no loss takes, because regularisers has "
            "no 'js_rehearsal': add it, or set rehearsal = 0"
        )


def steps_are_compared_where_there_are_steps(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.advantage, axes.FirstTurn) and not isinstance(recipe.transform, axes.SecondTurn):
        yield (
            f"advantage 'first_turn' compares second answers with first ones, but transform {recipe.transform.name!r} "
            "asks for no second: set transform = 'second_turn', or advantage = 'group'"
        )
    name = recipe.advantage.parts[0].name
    if recipe.reward_weights == (0, 0):
        yield (
            f"advantage {name!r} has outcome = 0 and process = 0, so that no turn has a reward: set one of "
            "them above 0"
        )
    if recipe.reward_weights and recipe.group_size > 1 and recipe.transform.needs_stage:
        yield (
            f"advantage {name!r} counts the turns of an episode, but transform "
            f"{recipe.transform.name!r} makes new ones: set transform = 'none', or advantage = 'group'"
        )


REWARD_RULES = (
    group_advantages_need_groups,
    bounds_of_the_batch_are_the_rewards,
    discriminative_scores_are_means_of_sequences,
    a_reference_is_compared_where_it_is_known,
    there_is_one_reference,
    regularisers_of_rewards_have_rewards,
    regularisers_of_groups_need_groups,
    regularisers_of_the_batch_stand_once,
    what_is_rehearsed_comes_from_somewhere,
    steps_are_compared_where_there_are_steps,
)
