"""Combinations with a transform, or with a mix that needs one, that cannot work. See `agentrl.recipes.rules`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentrl.recipes import axes
from agentrl.recipes.rules_routes import WEIGHTS

if TYPE_CHECKING:
    from agentrl.recipes.recipe import Recipe

OF_GROUPS = (axes.DropConstant, axes.SubsetMaxVar, axes.ConfidenceRewrite, axes.Replace)


def transforms_of_groups_need_groups(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.transform, OF_GROUPS) and recipe.group_size == 1:
        yield (
            f"transform {recipe.transform.name!r} compares the attempts of one group, but rollout "
            f"{recipe.rollout.name!r} gives groups of one turn: set rollout = {{ name = 'student', group_size = 8 }}, "
            "or transform = 'none'"
        )


def a_new_answer_is_made_behind_a_context(recipe: Recipe) -> Iterator[str]:
    if _shows_context(recipe) and isinstance(recipe.context, axes.NoContext):
        yield (
            f"transform {recipe.transform.name!r} samples behind the recipe's context, but context is 'none': set "
            "context = 'hindsight_hint' or 'own_attempt', or transform = 'none'"
        )


def edited_answers_take_no_ratio(recipe: Recipe) -> Iterator[str]:
    """Laws 1 and 7."""
    if not recipe.transform.keeps_logprobs and recipe.needs_behavior_logprobs:
        yield (
            f"transform {recipe.transform.name!r} leaves ids without the log-probs that offpolicy "
            f"{recipe.offpolicy.name!r} or estimator {recipe.estimator.name!r} divides by: set offpolicy = 'none' and "
            "estimator = 'full', or transform = 'none'"
        )


def answers_behind_a_context_are_not_taken_for_the_policys_own(recipe: Recipe) -> Iterator[str]:
    """Laws 5 and 7: unless the method itself does so, and says that it does."""
    if not _shows_context(recipe) or recipe.doubt:
        return
    transform, estimator = recipe.transform.name, recipe.estimator
    if (
        recipe.uses_policy_gradient
        and "sampler" not in recipe.pg_denominators
        and not isinstance(recipe.offpolicy, axes.Shape)
    ):
        yield (
            f"transform {transform!r} samples behind a context that the policy does not see, but offpolicy "
            f"{recipe.offpolicy.name!r} takes the answers for the policy's own: set offpolicy = {{ name = 'ppo', "
            "denominator = 'sampler' }, or say in `doubt` that the method is meant so"
        )
    by_trainer = isinstance(estimator, axes.IwK3) and estimator.denominator != "sampler"
    if recipe.uses_kd and (by_trainer or isinstance(estimator, axes.K2 | axes.K3)):
        yield (
            f"transform {transform!r} samples behind a context that the policy does not see, but estimator "
            f"{estimator.name!r} takes the answers for the policy's own: set estimator = 'full', or say in `doubt` "
            "that the method is meant so"
        )


def second_turns_have_their_own_mix(recipe: Recipe) -> Iterator[str]:
    is_second = isinstance(recipe.transform, axes.SecondTurn)
    is_learnt = isinstance(recipe.mix, axes.SelfDistill)
    if is_second and not is_learnt:
        yield (
            "transform 'second_turn' gives samples an advantage of their own for what is learnt without the critique, "
            f"which mix {recipe.mix.name!r} does not know: set mix = 'self_distill'"
        )
    if is_learnt and not is_second:
        yield (
            f"mix 'self_distill' learns what a critique led to, but transform is {recipe.transform.name!r}: set "
            "transform = 'second_turn', or mix = 'sum'"
        )
    if is_learnt and not isinstance(recipe.divergence, axes.Ce):
        yield (
            f"mix 'self_distill' has a cross entropy of its own, so divergence {recipe.divergence.name!r} would not be "
            "used: set divergence = 'ce'"
        )


def a_joint_mix_trains_both_sides_of_one_divergence(recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe.mix, axes.Joint):
        return
    for axis, needed in (
        ("teacher", axes.JointTeacher()),
        ("divergence", axes.Fkl()),
        ("estimator", axes.Full()),
    ):
        if getattr(recipe, axis) != needed:
            yield (
                f"mix 'joint' trains the teacher with the policy, by KL(π_T‖π_S) over the vocabulary, but {axis} is "
                f"{getattr(recipe, axis).name!r}: set {axis} = {needed.name!r}, or mix = 'sum'"
            )
    if recipe.pg_denominators != {"sampler"}:
        yield (
            "mix 'joint' divides both sides by the teacher that has sampled, but offpolicy "
            f"{recipe.offpolicy.name!r} does not: set offpolicy = {{ name = 'ppo', denominator = 'sampler' }}"
        )
    if not (isinstance(recipe.transform, axes.Retry) and recipe.transform.by == "teacher"):
        yield (
            f"mix 'joint' learns from what the teacher samples, but transform is {recipe.transform.name!r}: set "
            "transform = { name = 'retry', by = 'teacher' }"
        )


def mixes_that_weigh_nothing_are_asked_for_no_weights(recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe.mix, axes.SelfDistill | axes.Joint):
        return
    every = f"but mix {recipe.mix.name!r} takes every one at weight 1"
    if not isinstance(recipe.token_weight, axes.One):
        yield f"token_weight {recipe.token_weight.name!r} weighs tokens, {every}: set token_weight = 'one'"
    for route in recipe.route.parts:
        if isinstance(route, WEIGHTS) and not isinstance(route, axes.All):
            yield f"route {route.name!r} weighs samples, {every}: set route = 'all', or a route that selects"
    if isinstance(recipe.mix, axes.SelfDistill):
        return  # what weighs the reward's loss alone weighs its first term
    for part in recipe.advantage.parts:
        leaves_out = isinstance(part, axes.EntropyShift) and part.max_entropy is not None
        if leaves_out or isinstance(part, axes.Conflict | axes.TopTokens):
            remedy = "remove advantage.max_entropy" if leaves_out else "set advantage = 'group'"
            yield f"advantage {part.name!r} weighs tokens, {every}: {remedy}"


def _shows_context(recipe: Recipe) -> bool:
    transform = recipe.transform
    elsewhere = isinstance(transform, axes.Replace) and transform.source in ("teacher_trace", "replay")
    return transform.shows_context and not elsewhere


SECOND_RULES = (
    transforms_of_groups_need_groups,
    a_new_answer_is_made_behind_a_context,
    edited_answers_take_no_ratio,
    answers_behind_a_context_are_not_taken_for_the_policys_own,
    second_turns_have_their_own_mix,
    a_joint_mix_trains_both_sides_of_one_divergence,
    mixes_that_weigh_nothing_are_asked_for_no_weights,
)
