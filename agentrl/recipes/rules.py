"""Combinations of options that cannot work. Each rule names both axes and the remedy (law 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from agentrl.recipes import axes
from agentrl.recipes.rules_rl import REWARD_RULES
from agentrl.recipes.rules_routes import ROUTE_RULES, WEIGHTS
from agentrl.recipes.rules_second import SECOND_RULES

if TYPE_CHECKING:
    from agentrl.recipes.recipe import Recipe

Rule = Callable[["Recipe"], Iterator[str]]


def conflicts(recipe: Recipe) -> list[str]:
    """All reasons why a recipe cannot work, each with its remedy; empty when it can."""
    return [reason for rule in RULES for reason in rule(recipe)]


def rewards_are_used_or_absent(recipe: Recipe) -> Iterator[str]:
    none = isinstance(recipe.advantage, axes.NoAdvantage)
    if recipe.uses_rl and none:
        yield (
            f"mix {recipe.mix.name!r} learns from rewards, but advantage is 'none': set advantage = 'raw' or "
            "'group', or mix = 'kd'"
        )
    if not recipe.uses_rl and not none:
        yield (
            f"advantage {recipe.advantage.name!r} would not be used, because mix is {recipe.mix.name!r}: set mix = "
            "'sum', or advantage = 'none'"
        )


def distillation_has_a_teacher(recipe: Recipe) -> Iterator[str]:
    distils = recipe.uses_kd and not isinstance(recipe.mix, axes.RlOnly)
    if distils and isinstance(recipe.teacher, axes.NoTeacher) and not isinstance(recipe.divergence, axes.Ce):
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
        if axis == "context" and recipe.transform.shows_context:
            continue  # it is the policy's, for a second answer
        weighs = axis == "route" and recipe.uses_rl and all(isinstance(r, WEIGHTS) for r in option.parts)
        if option != default and not weighs:
            yield (
                f"{axis} {option.name!r} would not be used, because mix is {recipe.mix.name!r}: remove it, or "
                "set mix = 'sum' with teacher = 'self'"
            )


def cached_teachers_know_sampled_ids_alone(recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe.teacher, axes.CachedTeacher):
        return
    if isinstance(recipe.estimator, axes.Full | axes.TopK):
        yield (
            f"estimator {recipe.estimator.name!r} needs the teacher's whole distribution, but teacher 'cached' "
            "knows the log-probs of the sampled ids alone: set estimator = 'pg', or teacher = 'self'"
        )
    if isinstance(recipe.estimator, axes.Pg) and recipe.estimator.features:
        yield (
            "estimator 'pg' with a baseline or single_step needs the teacher's whole distribution, but teacher "
            "'cached' knows the log-probs of the sampled ids alone: set estimator.baseline = 'none' and "
            "estimator.single_step = false, or teacher = 'self'"
        )
    if not isinstance(recipe.target, axes.TeacherTarget):
        yield (
            f"target {recipe.target.name!r} changes the teacher's whole distribution, but teacher 'cached' knows "
            "the log-probs of the sampled ids alone: set target = 'q', or teacher = 'self'"
        )
    weight = recipe.token_weight
    of_policy = isinstance(weight, axes.TopFrac | axes.BatchTopFrac) and weight.score == "entropy"
    of_sampled = axes.One | axes.CumGap | axes.SigmoidGap | axes.EarlyTokens | axes.SkipFirst
    if not isinstance(weight, of_sampled) and not of_policy:
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


def hints_are_measured_with_a_teacher_at_hand(recipe: Recipe) -> Iterator[str]:
    measures = any(part.params.get("choose", "trusted") != "trusted" for part in recipe.context.parts)
    has_weights = isinstance(recipe.teacher, axes.SelfTeacher | axes.ExternalTeacher | axes.JointTeacher)
    if measures and not has_weights:
        yield (
            f"context.choose measures hints with the teacher, but teacher {recipe.teacher.name!r} has no weights: set "
            "context.choose = 'trusted', or teacher = 'self'"
        )


def wishes_are_practised_by_distillation_alone(recipe: Recipe) -> Iterator[str]:
    if not any(part.params.get("practised") for part in recipe.context.parts):
        return
    other = "or context.practised = 0"
    if recipe.mix.name != "kd":
        yield (
            f"context.practised makes up requests whose answers nobody rewards, but mix {recipe.mix.name!r} learns "
            f"from rewards or pairs: set mix = 'kd', {other}"
        )
    if len(recipe.context.parts) > 1:
        yield (
            "context.practised shows the teacher hints alone, for of a request that was made up nothing else is known, "
            f"but context has other parts: set context to its hindsight_hint alone, {other}"
        )
    if not any(part.params.get("standing") for part in recipe.context.parts):
        yield (
            "context.practised practises standing corrections, but context.standing is 0: set context.standing = 4, "
            f"{other}"
        )
    if not recipe.num_live:
        yield (
            f"context.practised varies what live conversations began with, but rollout {recipe.rollout.name!r} has "
            f"none: set rollout = 'stream', {other}"
        )
    if not isinstance(recipe.teacher, axes.SelfTeacher | axes.ExternalTeacher):
        yield (
            f"context.practised asks the teacher for answers that were never scored, but teacher "
            f"{recipe.teacher.name!r} has no weights: set teacher = 'self', {other}"
        )


def a_live_teacher_without_context_is_the_policy(recipe: Recipe) -> Iterator[str]:
    same_weights = isinstance(recipe.teacher, axes.SelfTeacher) and isinstance(recipe.sync, axes.Live)
    moved = isinstance(recipe.target, axes.Temper | axes.TemperEntropy | axes.Extrap | axes.Geo)
    if recipe.uses_kd and same_weights and isinstance(recipe.context, axes.NoContext) and not moved:
        yield (
            "sync 'live' with context 'none' makes the teacher equal to the policy, so the loss is always 0: set a "
            "context, or sync = 'fixed' or 'ema'"
        )


def a_joint_teacher_sees_more_than_the_policy(recipe: Recipe) -> Iterator[str]:
    joint = isinstance(recipe.teacher, axes.JointTeacher)
    if recipe.uses_kd and joint and isinstance(recipe.context, axes.NoContext):
        yield (
            "teacher 'joint' with context 'none' is the policy itself, so the loss is always 0: set a context, or "
            "teacher = 'self' with sync = 'fixed'"
        )


def a_joint_teacher_is_trained(recipe: Recipe) -> Iterator[str]:
    joint = isinstance(recipe.teacher, axes.JointTeacher)
    if recipe.uses_kd and joint and not isinstance(recipe.mix, axes.Joint):
        yield (
            f"teacher 'joint' is to be trained, but mix {recipe.mix.name!r} has no term that trains a teacher: set "
            "mix = 'joint', or teacher = 'self' with sync = 'live'"
        )


def routing_by_context_needs_a_context(recipe: Recipe) -> Iterator[str]:
    for route in recipe.route.parts:
        asks = isinstance(route, axes.HasContext | axes.ContextOrHeld | axes.WrongWithContext)
        if recipe.uses_kd and asks and isinstance(recipe.context, axes.NoContext):
            yield (
                f"route {route.name!r} distils nothing when context is 'none': set a context such as "
                "'hindsight_hint', or route = 'all'"
            )


def sampled_estimators_have_one_divergence(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.estimator, axes.K3) and not isinstance(recipe.divergence, axes.Fkl):
        yield (
            f"estimator 'k3' has the gradient of 'fkl', but divergence is {recipe.divergence.name!r}: set divergence = "
            "'fkl', or estimator = 'full' or 'pg'"
        )
    if isinstance(recipe.estimator, axes.K2 | axes.IwK3) and not isinstance(recipe.divergence, axes.Rkl):
        yield (
            f"estimator {recipe.estimator.name!r} has the gradient of 'rkl', but divergence is "
            f"{recipe.divergence.name!r}: set divergence = 'rkl', or estimator = 'full' or 'pg'"
        )


def lists_and_hard_tokens_have_their_own_estimator(recipe: Recipe) -> Iterator[str]:
    estimator = recipe.estimator
    if isinstance(recipe.divergence, axes.Rank) and not (
        isinstance(estimator, axes.TopK) and estimator.tail == "drop"
    ):
        yield (
            f"divergence 'rank' orders a list of ids, which estimator {estimator.name!r} does not give: set "
            "estimator = { name = 'topk', k = 10, tail = 'drop' }"
        )
    if isinstance(recipe.divergence, axes.Ce) and estimator != axes.Full():
        yield (
            f"divergence 'ce' reads the sample's own id alone, so estimator {estimator.name!r} has nothing to "
            "estimate: set estimator = 'full' without pointwise_clip"
        )


def hard_tokens_ask_no_teacher(recipe: Recipe) -> Iterator[str]:
    if not (recipe.uses_kd and isinstance(recipe.divergence, axes.Ce)):
        return
    for axis, option in (("teacher", recipe.teacher), ("target", recipe.target)):
        if not isinstance(option, axes.NoTeacher | axes.TeacherTarget):
            yield (
                f"{axis} {option.name!r} would not be used, because divergence is 'ce': remove it, or set divergence = "
                "'fkl'"
            )
    weight = recipe.token_weight
    alone = isinstance(weight, axes.TopFrac | axes.BatchTopFrac) and weight.score == "entropy"
    if not alone and not isinstance(weight, axes.One | axes.EarlyTokens | axes.SkipFirst):
        yield (
            f"token_weight {weight.name!r} looks at a teacher, but divergence 'ce' has none: set token_weight = 'one', "
            "or divergence = 'fkl'"
        )


def lists_are_ordered_once_by_a_teacher(recipe: Recipe) -> Iterator[str]:
    lists = [item for item in recipe.regularisers if isinstance(item, axes.RankOrder)]
    dense = recipe.uses_kd and not isinstance(recipe.teacher, axes.NoTeacher | axes.CachedTeacher)
    if lists and not dense:
        yield (
            f"regulariser 'rank' needs the teacher's whole distribution, but mix is {recipe.mix.name!r} and teacher "
            f"{recipe.teacher.name!r}: set mix = 'kd' or 'sum' with teacher = 'self', or remove it"
        )
    if len(lists) > 1:
        yield "regularisers hold 'rank' twice, but it is computed once at each position: keep one of them"


def baselines_and_credit_belong_to_their_divergence(recipe: Recipe) -> Iterator[str]:
    pg = recipe.estimator
    if not isinstance(pg, axes.Pg):
        return
    if pg.baseline != "none" and not isinstance(recipe.divergence, axes.Rkl):
        yield (
            f"estimator 'pg' with baseline {pg.baseline!r} subtracts the mean of rkl's advantage, but divergence is "
            f"{recipe.divergence.name!r}: set divergence = 'rkl', or estimator.baseline = 'none'"
        )
    if pg.baseline != "none" and pg.single_step:
        yield (
            f"estimator 'pg' has a baseline {pg.baseline!r} for the sampled term of a position, which single_step "
            "replaces by the whole vocabulary: set estimator.baseline = 'none', or estimator.single_step = false"
        )
    if pg.length_norm and pg.gamma == 0:
        yield (
            "estimator 'pg' with length_norm divides a sum over later tokens, but gamma is 0 and there is none: set "
            "estimator.gamma = 1, or estimator.length_norm = false"
        )
    if pg.single_step and not isinstance(recipe.mix, axes.KdOnly | axes.Sum | axes.Convex | axes.Routed):
        yield (
            f"estimator 'pg' with single_step has a loss over the vocabulary, but mix {recipe.mix.name!r} adds "
            "advantages of the sampled id: set mix = 'sum', or estimator.single_step = false"
        )


def added_advantages_are_sampled(recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe.mix, axes.AdvAdd | axes.AdvConvex):
        return
    if not isinstance(recipe.estimator, axes.Pg):
        yield (
            f"mix {recipe.mix.name!r} adds advantages of the sampled id, but estimator {recipe.estimator.name!r} gives "
            "none: set estimator = 'pg', or mix = 'sum'"
        )
    if not isinstance(recipe.token_weight, axes.One):
        yield (
            f"token_weight {recipe.token_weight.name!r} weighs a distillation loss, but mix {recipe.mix.name!r} has "
            "one loss for both: set token_weight = 'one', or mix = 'sum'"
        )


def corrections_correct_something(recipe: Recipe) -> Iterator[str]:
    of_divergence = isinstance(recipe.offpolicy, axes.NoCorrection | axes.IsClip | axes.Split)
    if not recipe.uses_policy_gradient and not of_divergence:
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
        isinstance(recipe.estimator, axes.K2 | axes.K3)
        or (isinstance(recipe.estimator, axes.IwK3) and recipe.estimator.denominator != "sampler")
    ):
        yield (
            f"estimator {recipe.estimator.name!r} does not correct for turns that an older policy sampled, but "
            "limits and batch let them in: set estimator = { name = 'iw_k3', denominator = 'sampler' }, or "
            + needs
        )


def pairs_are_found_turn_by_turn(recipe: Recipe) -> Iterator[str]:
    if recipe.uses_pairs and recipe.group_size > 1:
        yield (
            f"mix {recipe.mix.name!r} compares answers to one prompt wherever they stand, but rollout "
            f"{recipe.rollout.name!r} hands out groups: set rollout = 'stream'"
        )
    if recipe.uses_pairs and not isinstance(recipe.transform, axes.NoTransform):
        yield (
            f"transform {recipe.transform.name!r} makes answers that stand in no pair, but mix {recipe.mix.name!r} "
            "learns from pairs alone: set transform = 'none'"
        )


def a_step_has_room_for_what_comes_beside_it(recipe: Recipe) -> Iterator[str]:
    if 0 < recipe.rollout.beside < 1 and recipe.batch.turns_per_step == 1:
        yield (
            f"rollout {recipe.rollout.name!r} shares each step between live turns and others, but batch.turns_per_step "
            "is 1: set it to 2 or more"
        )


def texts_that_nobody_sampled_take_no_ratio(recipe: Recipe) -> Iterator[str]:
    """Laws 1 and 7: an answer from a file has no sampler's log-probs."""
    if not isinstance(recipe.rollout, axes.Offline | axes.Mixed):
        return
    sampled = isinstance(recipe.estimator, axes.Pg | axes.K2 | axes.IwK3)
    if recipe.uses_rl or (recipe.uses_kd and sampled):
        what = f"mix {recipe.mix.name!r}" if recipe.uses_rl else f"estimator {recipe.estimator.name!r}"
        yield (
            f"{what} weighs ids by how they were sampled, but rollout {recipe.rollout.name!r} brings answers that the "
            "policy did not sample: set mix = 'kd' with estimator = 'full', or rollout = 'stream'"
        )
    if recipe.uses_kd and isinstance(recipe.route, axes.HasContext):
        yield (
            f"route 'has_context' distils nothing of what rollout {recipe.rollout.name!r} reads, because a file brings "
            "no context: set route = 'all'"
        )


def replayed_answers_are_corrected_for(recipe: Recipe) -> Iterator[str]:
    """Law 7."""
    if not isinstance(recipe.rollout, axes.Replay):
        return
    if recipe.uses_policy_gradient and "sampler" not in recipe.pg_denominators:
        yield (
            f"rollout 'replay' brings answers of older versions, which offpolicy {recipe.offpolicy.name!r} does not "
            "correct for: set offpolicy = { name = 'ppo', denominator = 'sampler' }"
        )
    if recipe.uses_pairs:
        yield (
            f"rollout 'replay' brings single answers, but mix {recipe.mix.name!r} learns from pairs: set rollout = "
            "'stream' and batch.uses_per_turn = 2"
        )


RULES: tuple[Rule, ...] = (
    rewards_are_used_or_absent,
    distillation_has_a_teacher,
    reward_alone_asks_no_teacher,
    cached_teachers_know_sampled_ids_alone,
    only_a_self_teacher_is_synchronised,
    hints_are_measured_with_a_teacher_at_hand,
    wishes_are_practised_by_distillation_alone,
    a_live_teacher_without_context_is_the_policy,
    a_joint_teacher_sees_more_than_the_policy,
    a_joint_teacher_is_trained,
    routing_by_context_needs_a_context,
    sampled_estimators_have_one_divergence,
    lists_and_hard_tokens_have_their_own_estimator,
    hard_tokens_ask_no_teacher,
    lists_are_ordered_once_by_a_teacher,
    baselines_and_credit_belong_to_their_divergence,
    added_advantages_are_sampled,
    corrections_correct_something,
    off_policy_is_corrected_or_refused,
    pairs_are_found_turn_by_turn,
    a_step_has_room_for_what_comes_beside_it,
    texts_that_nobody_sampled_take_no_ratio,
    replayed_answers_are_corrected_for,
    *REWARD_RULES,
    *ROUTE_RULES,
    *SECOND_RULES,
)
