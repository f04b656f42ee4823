"""Combinations of contexts, routes, mixes and corrections that cannot work. See `agentrl.recipes.rules`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentrl.recipes import axes

if TYPE_CHECKING:
    from agentrl.recipes.recipe import Recipe

BOTH_LOSSES = (axes.WrongWithContext, axes.CorrectCeWrongKd)
"""Routes that send each sample to one of two losses."""
OF_GROUPS = (axes.NoCorrectInGroup, axes.PassRate, axes.GaussPassRate, axes.RewardSoftmax)
WEIGHTS = (axes.All, axes.PassRate, axes.GaussPassRate, axes.RewardSoftmax, axes.PplSoftmax)
"""Routes that weigh every loss alike, so that they mean something without distillation too."""


def siblings_need_groups(recipe: Recipe) -> Iterator[str]:
    if recipe.group_size == 1 and any(isinstance(c, axes.SiblingSuccess) for c in recipe.context.parts):
        yield (
            f"context 'sibling_success' shows another attempt of the group, but rollout {recipe.rollout.name!r} gives "
            "groups of one turn: set rollout = { name = 'student', group_size = 8 }, or context = 'env_feedback' or "
            "'hindsight_hint'"
        )


def an_own_attempt_needs_more_beside_it(recipe: Recipe) -> Iterator[str]:
    alone = all(isinstance(part, axes.OwnAttempt) for part in recipe.context.parts)
    if alone and isinstance(recipe.transform, axes.NoTransform | axes.NextAnswer):
        yield (
            f"context 'own_attempt' with transform {recipe.transform.name!r} shows the teacher the very answer that it "
            "scores and nothing else, so it only repeats it: set context = ['own_attempt', 'solution'] or "
            "['own_attempt', 'env_feedback']"
        )


def routes_of_groups_need_groups(recipe: Recipe) -> Iterator[str]:
    if recipe.group_size > 1:
        return
    for route in recipe.route.parts:
        if isinstance(route, OF_GROUPS) or (isinstance(route, axes.PplSoftmax) and route.within == "group"):
            remedy = "route = 'all'"
            if isinstance(route, axes.NoCorrectInGroup):
                remedy = "route = 'wrong_only'"
            if isinstance(route, axes.PplSoftmax):
                remedy = "route.within = 'batch'"
            yield (
                f"route {route.name!r} compares the attempts of one group, but rollout {recipe.rollout.name!r} gives "
                f"groups of one turn: set rollout = {{ name = 'student', group_size = 8 }}, or {remedy}"
            )


def routes_to_two_losses_need_both(recipe: Recipe) -> Iterator[str]:
    for route in recipe.route.parts:
        both = recipe.uses_kd and recipe.uses_rl
        if isinstance(route, BOTH_LOSSES) and not (
            both and isinstance(recipe.mix, axes.Sum | axes.Convex | axes.Routed)
        ):
            yield (
                f"route {route.name!r} sends each sample to reward or to distillation, but mix {recipe.mix.name!r} "
                "has not both as losses of their own: set mix = 'sum', or route = 'wrong_only'"
            )


def what_is_held_is_the_policys_own_and_the_teacher_another(recipe: Recipe) -> Iterator[str]:
    if not (recipe.holds and recipe.uses_kd):
        return
    own = "or route = 'has_context'"
    if isinstance(recipe.teacher, axes.NoTeacher):
        yield (
            "route 'context_or_held' holds turns to what the teacher says of them, but teacher is 'none': set teacher "
            f"= 'self' and divergence = 'fkl', {own}"
        )
    if isinstance(recipe.teacher, axes.SelfTeacher) and isinstance(recipe.sync, axes.Live):
        yield (
            "route 'context_or_held' holds turns to a teacher that sees no more than the policy, which with sync "
            f"'live' is the policy itself, so nothing is held: set sync = 'fixed', {own}"
        )
    if isinstance(recipe.rollout, axes.Replay | axes.Offline | axes.Mixed):
        yield (
            "route 'context_or_held' holds what the policy has just answered, but rollout "
            f"{recipe.rollout.name!r} brings other answers: set rollout = 'stream', {own}"
        )
    if recipe.transform.needs_stage:
        yield (
            "route 'context_or_held' holds answers as they were sampled, but transform "
            f"{recipe.transform.name!r} makes others of them: set transform = 'none', {own}"
        )
    if recipe.kd_needs_reward:
        who = "mix 'adv_mult'" if isinstance(recipe.mix, axes.AdvMult) else "offpolicy 'anchor'"
        yield (
            f"route 'context_or_held' holds turns by a loss of distillation, which {who} does not have: set mix = "
            f"'kd' or 'sum', {own}"
        )


def a_routed_mix_has_a_route_and_one_denominator(recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe.mix, axes.Routed):
        return
    if not any(isinstance(route, BOTH_LOSSES) for route in recipe.route.parts):
        yield (
            f"mix 'routed' adds losses of different samples, but route {recipe.route.name!r} gives a sample both: set "
            "route = 'wrong_with_context', or mix = 'sum'"
        )
    if not isinstance(recipe.aggregate, axes.RoutedTokenMean):
        yield (
            f"mix 'routed' has one denominator for both losses, but aggregate is {recipe.aggregate.name!r}: set "
            "aggregate = 'routed_token_mean', or mix = 'sum'"
        )


def a_joint_denominator_joins_two_losses(recipe: Recipe) -> Iterator[str]:
    two = isinstance(recipe.mix, axes.Sum | axes.Convex | axes.Routed)
    if isinstance(recipe.aggregate, axes.RoutedTokenMean) and not two:
        yield (
            f"aggregate 'routed_token_mean' counts the tokens of two losses, but mix {recipe.mix.name!r} has one: set "
            "aggregate = 'token_mean', or mix = 'sum'"
        )


def a_teacher_that_bends_the_advantage_knows_the_sampled_id(recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe.mix, axes.AdvMult) and not isinstance(recipe.offpolicy, axes.Anchor):
        return
    who = "mix 'adv_mult'" if isinstance(recipe.mix, axes.AdvMult) else "offpolicy 'anchor'"
    for axis, needed in (("estimator", axes.Pg()), ("divergence", axes.Rkl()), ("token_weight", axes.One())):
        if getattr(recipe, axis) != needed:
            yield (
                f"{who} takes log q − log π of the sampled id into the reward's loss and has no distillation loss, so "
                f"{axis} {getattr(recipe, axis).name!r} would not be used: set {axis} = {needed.name!r}"
            )


def an_anchor_replaces_distillation(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.offpolicy, axes.Anchor) and not isinstance(recipe.mix, axes.RlOnly):
        yield (
            f"offpolicy 'anchor' is how the teacher comes in, but mix {recipe.mix.name!r} distils as well: set "
            "mix = 'rl', or offpolicy = { name = 'ppo', denominator = 'sampler' }"
        )
    if isinstance(recipe.offpolicy, axes.Anchor) and isinstance(recipe.teacher, axes.NoTeacher):
        yield (
            "offpolicy 'anchor' divides by a teacher's probabilities, but teacher is 'none': set teacher = 'self' or "
            "'external', or offpolicy = { name = 'ppo', denominator = 'sampler' }"
        )


def each_loss_has_its_own_correction(recipe: Recipe) -> Iterator[str]:
    parts = recipe.offpolicy.parts
    if not any(isinstance(part, axes.IsClip) for part in parts):
        return
    if not recipe.uses_kd or not isinstance(recipe.estimator, axes.Full | axes.TopK):
        yield (
            f"offpolicy 'is_clip' weighs a divergence over the vocabulary, but estimator {recipe.estimator.name!r} "
            f"with mix {recipe.mix.name!r} has none: set offpolicy = {{ name = 'ppo', denominator = 'sampler' }}, or "
            "estimator = 'topk'"
        )
    if recipe.uses_rl and len(parts) == 1:
        yield (
            f"offpolicy 'is_clip' leaves the reward's loss of mix {recipe.mix.name!r} uncorrected: set offpolicy = "
            "{ name = 'split', rl = { name = 'ppo', denominator = 'sampler' }, kd = 'is_clip' }"
        )
    if not recipe.uses_rl and len(parts) > 1:
        yield (
            f"offpolicy 'split' corrects a reward's loss, but mix {recipe.mix.name!r} has none: set offpolicy = "
            "'is_clip', or mix = 'sum' with an advantage"
        )


ROUTE_RULES = (
    siblings_need_groups,
    an_own_attempt_needs_more_beside_it,
    routes_of_groups_need_groups,
    routes_to_two_losses_need_both,
    what_is_held_is_the_policys_own_and_the_teacher_another,
    a_routed_mix_has_a_route_and_one_denominator,
    a_joint_denominator_joins_two_losses,
    a_teacher_that_bends_the_advantage_knows_the_sampled_id,
    an_anchor_replaces_distillation,
    each_loss_has_its_own_correction,
)
