"""Combinations of options that cannot work. Each rule names both axes and the remedy (law 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from agentrl.recipes import axes

if TYPE_CHECKING:
    from agentrl.recipes.recipe import Recipe

Rule = Callable[["Recipe"], Iterator[str]]


def conflicts(recipe: Recipe) -> list[str]:
    """All reasons why a recipe cannot work, each with its remedy; empty when it can."""
    return [reason for rule in RULES for reason in rule(recipe)]


def group_advantages_need_groups(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.advantage, axes.Group | axes.LeaveOneOut) and recipe.group_size == 1:
        yield (
            f"advantage {recipe.advantage.name!r} compares the turns of one group, but rollout "
            f"{recipe.rollout.name!r} gives groups of one turn, where it is always 0: set rollout = "
            "{ name = 'student', group_size = 8 } or advantage = 'raw'"
        )


def rewards_are_used_or_absent(recipe: Recipe) -> Iterator[str]:
    none = isinstance(recipe.advantage, axes.NoAdvantage)
    if recipe.uses_rl and none:
        yield (
            f"mix {recipe.mix.name!r} learns from rewards, but advantage is 'none': set advantage = 'raw' or "
            "'group', or mix = 'kd'"
        )
    if not recipe.uses_rl and not none:
        yield (
            f"advantage {recipe.advantage.name!r} would not be used, because mix is 'kd': set mix = 'sum', or "
            "advantage = 'none'"
        )


def distillation_has_a_teacher(recipe: Recipe) -> Iterator[str]:
    if recipe.uses_kd and isinstance(recipe.teacher, axes.NoTeacher):
        yield (
            f"mix {recipe.mix.name!r} distils, but teacher is 'none': set teacher = 'self', or mix = 'rl' with an "
            "advantage"
        )


def reward_alone_asks_no_teacher(recipe: Recipe) -> Iterator[str]:
    if recipe.uses_kd:
        return
    unused = {
        "context": axes.NoContext(),
        "teacher": axes.NoTeacher(),
        "sync": axes.Fixed(),
        "target": axes.TeacherTarget(),
        "divergence": axes.Fkl(),
        "estimator": axes.Full(),
        "token_weight": axes.One(),
        "route": axes.All(),
    }
    for axis, default in unused.items():
        option = getattr(recipe, axis)
        if option != default:
            yield (
                f"{axis} {option.name!r} would not be used, because mix is 'rl': remove it, or set mix = 'sum' "
                "with teacher = 'self'"
            )


def cached_teachers_know_sampled_ids_alone(recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe.teacher, axes.CachedTeacher):
        return
    if isinstance(recipe.estimator, axes.Full | axes.TopK):
        yield (
            f"estimator {recipe.estimator.name!r} needs the teacher's whole distribution, but teacher 'cached' "
            "knows the log-probs of the sampled ids alone: set estimator = 'pg', or teacher = 'self'"
        )
    if not isinstance(recipe.target, axes.TeacherTarget):
        yield (
            f"target {recipe.target.name!r} changes the teacher's whole distribution, but teacher 'cached' knows "
            "the log-probs of the sampled ids alone: set target = 'q', or teacher = 'self'"
        )
    entropy_alone = isinstance(recipe.token_weight, axes.TopFrac) and recipe.token_weight.score == "entropy"
    if not isinstance(recipe.token_weight, axes.One) and not entropy_alone:
        yield (
            f"token_weight {recipe.token_weight.name!r} compares whole distributions, but teacher 'cached' knows "
            "the log-probs of the sampled ids alone: set token_weight = 'one', or teacher = 'self'"
        )


def only_a_self_teacher_is_synchronised(recipe: Recipe) -> Iterator[str]:
    if recipe.uses_kd and not isinstance(recipe.teacher, axes.SelfTeacher) and recipe.sync != axes.Fixed():
        yield (
            f"sync {recipe.sync.name!r} has no weights to follow, because teacher is {recipe.teacher.name!r}: set "
            "teacher = 'self', or remove sync"
        )


def a_live_teacher_without_context_is_the_policy(recipe: Recipe) -> Iterator[str]:
    same_weights = isinstance(recipe.teacher, axes.SelfTeacher) and isinstance(recipe.sync, axes.Live)
    if recipe.uses_kd and same_weights and isinstance(recipe.context, axes.NoContext):
        yield (
            "sync 'live' with context 'none' makes the teacher equal to the policy, so the loss is always 0: set a "
            "context, or sync = 'fixed' or 'ema'"
        )


def routing_by_context_needs_a_context(recipe: Recipe) -> Iterator[str]:
    if (
        recipe.uses_kd
        and isinstance(recipe.route, axes.HasContext)
        and isinstance(recipe.context, axes.NoContext)
    ):
        yield (
            "route 'has_context' distils nothing when context is 'none': set a context such as 'hindsight_hint', "
            "or route = 'all'"
        )


def sampled_estimators_have_one_divergence(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.estimator, axes.K2 | axes.IwK3) and not isinstance(recipe.divergence, axes.Rkl):
        yield (
            f"estimator {recipe.estimator.name!r} has the gradient of 'rkl', but divergence is "
            f"{recipe.divergence.name!r}: set divergence = 'rkl', or estimator = 'full' or 'pg'"
        )


def added_advantages_are_sampled(recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe.mix, axes.AdvAdd):
        return
    if not isinstance(recipe.estimator, axes.Pg):
        yield (
            f"mix 'adv_add' adds advantages of the sampled id, but estimator {recipe.estimator.name!r} gives none: "
            "set estimator = 'pg', or mix = 'sum'"
        )
    if not isinstance(recipe.token_weight, axes.One):
        yield (
            f"token_weight {recipe.token_weight.name!r} weighs a distillation loss, but mix 'adv_add' has one loss "
            "for both: set token_weight = 'one', or mix = 'sum'"
        )


def corrections_correct_something(recipe: Recipe) -> Iterator[str]:
    if not recipe.uses_policy_gradient and not isinstance(recipe.offpolicy, axes.NoCorrection):
        yield (
            f"offpolicy {recipe.offpolicy.name!r} corrects policy-gradient losses, but estimator "
            f"{recipe.estimator.name!r} with mix {recipe.mix.name!r} has none: set offpolicy = 'none', or "
            "estimator = 'pg'"
        )


def off_policy_is_corrected_or_refused(recipe: Recipe) -> Iterator[str]:
    """Law 7: a loss that assumes that the policy itself has sampled may not meet older samples."""
    batch, limits = recipe.batch, recipe.limits
    if limits.max_version_lag == 0 and batch.uses_per_turn == 1 and batch.steps_per_version == 1:
        return
    needs = "set limits.max_version_lag = 0, batch.uses_per_turn = 1 and batch.steps_per_version = 1"
    if recipe.uses_policy_gradient and "sampler" not in recipe.pg_denominators:
        yield (
            f"offpolicy {recipe.offpolicy.name!r} does not correct for turns that an older policy sampled, but "
            "limits and batch let them in: set offpolicy = { name = 'ppo', denominator = 'sampler' }, or "
            + needs
        )
    if recipe.uses_kd and (
        isinstance(recipe.estimator, axes.K2)
        or (isinstance(recipe.estimator, axes.IwK3) and recipe.estimator.denominator != "sampler")
    ):
        yield (
            f"estimator {recipe.estimator.name!r} does not correct for turns that an older policy sampled, but "
            "limits and batch let them in: set estimator = { name = 'iw_k3', denominator = 'sampler' }, or "
            + needs
        )


RULES: tuple[Rule, ...] = (
    group_advantages_need_groups,
    rewards_are_used_or_absent,
    distillation_has_a_teacher,
    reward_alone_asks_no_teacher,
    cached_teachers_know_sampled_ids_alone,
    only_a_self_teacher_is_synchronised,
    a_live_teacher_without_context_is_the_policy,
    routing_by_context_needs_a_context,
    sampled_estimators_have_one_divergence,
    added_advantages_are_sampled,
    corrections_correct_something,
    off_policy_is_corrected_or_refused,
)
