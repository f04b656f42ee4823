"""The core presets on fixture F, each against its paper's formula enumerated here.

Identities of the algebra: I2 (Skill-SD), I7 (RLAD), I12 (SRPO), I13 (SCOPE), I14 (PACED), I18 (RLSD), I24
(OpenClaw-RL), I34 (OPSD).
"""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log, sqrt

import pytest
import torch
from presets_cases import MU, PI, Q, Sampled, check, on_f, on_f_samples, samples_of

from agentrl.errors import ConfigError
from agentrl.recipes.recipe import Recipe, load_recipe

Row = list[float]


# Plain arithmetic: [3] lists, gradients in the policy's logits.


def score(y: int, policy: Sequence[float] = PI) -> Row:
    """∇ log π(y)."""
    return [(v == y) - p for v, p in enumerate(policy)]


def times(factor: float, row: Sequence[float]) -> Row:
    return [factor * value for value in row]


def gap(y: int) -> float:
    """ℓ = log π(y) − log q(y)."""
    return log(PI[y]) - log(Q[y])


def ratio(y: int, policy: Sequence[float] = PI) -> float:
    """ρ = π(y)/μ(y)."""
    return policy[y] / MU[y]


def clipped(y: int, advantage: float, low: float, high: float) -> tuple[float, Row]:
    """−min(ρA, clip(ρ)A) and its gradient."""
    rho = ratio(y)
    bound = min(max(rho, 1 - low), 1 + high)
    if bound * advantage < rho * advantage:
        return -bound * advantage, [0.0, 0.0, 0.0]
    return -rho * advantage, times(-rho * advantage, score(y))


def kl(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * log(x / y) for x, y in zip(a, b, strict=True))


def rkl_gradient(policy: Sequence[float] = PI) -> Row:
    """π_v·(ℓ_v − KL(π‖q))."""
    return [p * (log(p / q) - kl(policy, Q)) for p, q in zip(policy, Q, strict=True)]


def jsd(policy: Sequence[float]) -> tuple[float, Row]:
    """JSD at β = ½ and its gradient ½·π_v·(log(π_v/m_v) − KL(π‖m))."""
    middle = [(p + q) / 2 for p, q in zip(policy, Q, strict=True)]
    value = 0.5 * kl(Q, middle) + 0.5 * kl(policy, middle)
    return value, [0.5 * p * (log(p / m) - kl(policy, middle)) for p, m in zip(policy, middle, strict=True)]


def grouped(rewards: Sequence[float], eps: float = 1e-6) -> Row:
    """(R − mean)/(std + eps) with the population's standard deviation."""
    mean = sum(rewards) / len(rewards)
    std = sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    return [(r - mean) / (std + eps) for r in rewards]


def added(terms: Sequence[tuple[float, tuple[float, Row]]]) -> tuple[float, list[Row]]:
    """Σ of factor·loss, and each position's factor·gradient."""
    return sum(f * value for f, (value, _) in terms), [times(f, row) for f, (_, row) in terms]


# The presets


def test_openclaw_rl_adds_the_vote_to_the_teachers_log_ratio() -> None:
    """A = r + (log q − log π), a missing signal 0 (I24); ε .2/.28; mean over tokens, then over sequences."""
    found = on_f(
        load_recipe("openclaw_rl"),
        [
            Sampled(ids=(0, 1), reward=1.0),
            Sampled(ids=(2,)),
            Sampled(ids=(1, 0), reward=-1.0, has_context=False),
        ],
    )
    terms = [
        (1 / 6, clipped(0, 1.0 - gap(0), 0.2, 0.28)),
        (1 / 6, clipped(1, 1.0 - gap(1), 0.2, 0.28)),
        (1 / 3, clipped(2, -gap(2), 0.2, 0.28)),
        (1 / 6, clipped(1, -1.0, 0.2, 0.28)),
        (1 / 6, clipped(0, -1.0, 0.2, 0.28)),
    ]
    check(found, *added(terms))


def test_openclaw_rl_hint_is_the_log_ratio_alone() -> None:
    found = on_f(
        load_recipe("openclaw_rl_hint"),
        [Sampled(ids=(0, 1)), Sampled(ids=(2,)), Sampled(ids=(1,), has_context=False)],
    )
    terms = [
        (1 / 4, clipped(0, -gap(0), 0.2, 0.28)),
        (1 / 4, clipped(1, -gap(1), 0.2, 0.28)),
        (1 / 2, clipped(2, -gap(2), 0.2, 0.28)),
        (0.0, clipped(1, 0.0, 0.2, 0.28)),
    ]
    check(found, *added(terms))


def test_openclaw_rl_binary_is_the_vote_alone() -> None:
    found = on_f(
        load_recipe("openclaw_rl_binary"), [Sampled(ids=(0, 1), reward=-1.0), Sampled(ids=(2,), reward=1.0)]
    )
    terms = [
        (1 / 4, clipped(0, -1.0, 0.2, 0.28)),
        (1 / 4, clipped(1, -1.0, 0.2, 0.28)),
        (1 / 2, clipped(2, 1.0, 0.2, 0.28)),
    ]
    check(found, *added(terms))


def test_a_turn_with_both_signals_is_the_sum_of_both_while_no_clip_acts() -> None:
    """I24: linearity, at id 2 where ρ = 1; at id 1, where ρ = .75 is clipped for one sign only, it does not hold."""
    both, hint, vote = (
        load_recipe(name) for name in ("openclaw_rl", "openclaw_rl_hint", "openclaw_rl_binary")
    )

    def gradients(y: int) -> list[torch.Tensor]:
        return [on_f(recipe, [Sampled(ids=(y,), reward=-0.5)]).gradient for recipe in (both, hint, vote)]

    merged, from_hint, from_vote = gradients(2)
    assert torch.allclose(merged, from_hint + from_vote)
    merged, from_hint, from_vote = gradients(1)
    assert not torch.allclose(merged, from_hint + from_vote)


def test_a_turn_with_a_vote_alone_has_no_teacher_term() -> None:
    """I24. A broken variant, a teacher term without a hint, is another gradient."""
    only_vote = [Sampled(ids=(0, 2), reward=1.0, has_context=False)]
    merged = on_f(load_recipe("openclaw_rl"), only_vote).gradient
    assert torch.allclose(merged, on_f(load_recipe("openclaw_rl_binary"), only_vote).gradient)
    assert not torch.allclose(merged, on_f(load_recipe("openclaw_rl", {"route": "all"}), only_vote).gradient)


def test_opsd_clips_the_terms_of_the_forward_kl() -> None:
    """I34 on F at τ = .05: terms (−.160944, .415888, .121640), of which the last two are cut."""
    terms = [q * log(q / p) for p, q in zip(PI, Q, strict=True)]
    row = [0.0, 0.0, 0.0]
    for v, term in enumerate(terms):
        if term < 0.05:
            row = [old - Q[v] * g for old, g in zip(row, score(v), strict=True)]
    value = sum(min(term, 0.05) for term in terms)
    found = on_f(load_recipe("opsd"), [Sampled(ids=(0, 1)), Sampled(ids=(2,))])
    check(found, *added([(1 / 4, (value, row)), (1 / 4, (value, row)), (1 / 2, (value, row))]))


@pytest.mark.parametrize("recipe", ["hint_opsd"])
def test_hint_opsd_is_the_forward_kl_over_the_vocabulary(recipe: str) -> None:
    row = [p - q for p, q in zip(PI, Q, strict=True)]
    found = on_f(load_recipe(recipe), [Sampled(ids=(0, 1)), Sampled(ids=(2,), has_context=False)])
    check(found, *added([(1 / 2, (kl(Q, PI), row)), (1 / 2, (kl(Q, PI), row)), (0.0, (0.0, row))]))


HOLD = {"route": "context_or_held", "route.weight": 0.5, "route.min_logprob": log(0.2)}
"""On F the teacher gives id 0 a probability of .1, too little, the others .6 and .3."""


def test_what_was_right_is_held_up_to_the_first_id_that_the_teacher_finds_unlikely() -> None:
    """½·KL(q‖π) at the first id of (1, 0, 2), nothing at the unlikely one and behind it; Z counts all four ids."""
    row = [p - q for p, q in zip(PI, Q, strict=True)]
    learned, right = Sampled(ids=(0,)), Sampled(ids=(1, 0, 2), reward=1.0, has_context=False)
    found = on_f(load_recipe("hint_opsd", HOLD), [learned, right])
    whole, half, none = (1 / 4, (kl(Q, PI), row)), (1 / 8, (kl(Q, PI), row)), (0.0, (0.0, row))
    check(found, *added([whole, half, none, none]))
    assert found.output.not_held == ()
    # a broken variant holds what follows the unlikely id too
    assert found.loss != pytest.approx(added([whole, half, none, half])[0])


def test_an_answer_that_the_teacher_would_have_begun_otherwise_is_not_held() -> None:
    row = [p - q for p, q in zip(PI, Q, strict=True)]
    learned, other = Sampled(ids=(0,)), Sampled(ids=(0, 1), reward=1.0, has_context=False)
    found = on_f(load_recipe("hint_opsd", HOLD), [learned, other])
    none = (0.0, (0.0, row))
    check(found, *added([(1 / 3, (kl(Q, PI), row)), none, none]))
    assert found.output.not_held == (1,)


def test_what_is_held_pulls_nothing_where_the_policy_is_the_teacher() -> None:
    right = Sampled(ids=(1, 2), reward=1.0, has_context=False)
    found = on_f(load_recipe("hint_opsd", HOLD), [right], teacher=PI)
    assert found.output.metrics["num_tokens"] == 2
    assert found.loss == 0.0
    assert not found.gradient.any()


def test_without_weight_nothing_is_held_bit_for_bit() -> None:
    sequences = [Sampled(ids=(0, 1)), Sampled(ids=(1, 2), reward=1.0, has_context=False)]
    found = on_f(load_recipe("hint_opsd", HOLD | {"route.weight": 0.0}), sequences)
    plain = on_f(load_recipe("hint_opsd", {"route": "has_context"}), sequences)
    assert found.loss == plain.loss
    assert torch.equal(found.gradient, plain.gradient)
    held = on_f(load_recipe("hint_opsd", HOLD), sequences)
    assert not torch.equal(held.gradient, plain.gradient)


def test_skill_sd_adds_a_weak_weighted_k3_to_grpo() -> None:
    """L_GRPO + 10⁻³·(1/N)Σ ρ·k3, whose gradient is ρ·ℓ·∇ log π."""
    advantages = grouped([1.0, 0.0], 1e-8)
    found = on_f(
        load_recipe("skill_sd"),
        [Sampled(ids=(0, 1), reward=1.0, group="g"), Sampled(ids=(2,), reward=0.0, group="g")],
    )
    terms = []
    for y, advantage in ((0, advantages[0]), (1, advantages[0]), (2, advantages[1])):
        value, row = clipped(y, advantage, 0.2, 0.28)
        k3 = exp(-gap(y)) - 1 + gap(y)
        row = [a + 1e-3 * ratio(y) * gap(y) * g for a, g in zip(row, score(y), strict=True)]
        terms.append((1 / 3, (value + 1e-3 * ratio(y) * k3, row)))
    check(found, *added(terms))


SKILL_KD = {"mix": "kd", "advantage": "none", "offpolicy": "none"}


@pytest.mark.parametrize("sampler", [MU, PI, Q, (0.2, 0.2, 0.6)])
def test_skill_sds_distillation_is_the_reverse_kl_whoever_sampled(sampler: Sequence[float]) -> None:
    """I2: Σ_y μ·ρ·k3 = RKL = .515682 and Σ_y μ·∇ = (.546878, −.362649, −.184229), for any μ."""
    recipe = load_recipe("skill_sd", SKILL_KD | {"limits.max_logprob_gap": 1e9})
    loss, gradient = sampled_from(sampler, recipe)
    assert loss == pytest.approx(0.515682, abs=1e-6)
    assert gradient == pytest.approx([0.546878, -0.362649, -0.184229], abs=1e-6)


def test_without_the_samplers_ratio_skill_sds_distillation_is_something_else() -> None:
    """I2, a broken variant: ρ = 1 in value, as when the trainer divides by itself."""
    estimator = {"name": "iw_k3", "denominator": "trainer"}
    strict = {"limits.max_version_lag": 0, "estimator": estimator, "limits.max_logprob_gap": 1e9}
    _, gradient = sampled_from(MU, load_recipe("skill_sd", SKILL_KD | strict))
    assert gradient != pytest.approx([0.546878, -0.362649, -0.184229], abs=1e-3)


def sampled_from(sampler: Sequence[float], recipe: Recipe) -> tuple[float, Row]:
    """Loss and gradient averaged over what the sampler would say."""
    loss, gradient = 0.0, torch.zeros(3, dtype=torch.float64)
    for y, probability in enumerate(sampler):
        (one,) = samples_of(recipe, [Sampled(ids=(y,))])
        found = on_f_samples(recipe, [replace(one, behavior_logprobs=(0.0, log(probability)))])
        loss += probability * found.loss
        gradient += probability * found.gradient[0]
    return loss, gradient.tolist()


FAR = (0.9, 0.05, 0.05)
"""A policy that has left its sampler: ρ = 2.25 at id 0, above SDPO's cap of 2."""


def test_sdpo_is_a_jensen_shannon_divergence_with_capped_weights() -> None:
    """(1/N)Σ sg[min(ρ, 2)]·JSD_½ over turns that have a context."""
    recipe = load_recipe("sdpo", {"limits.max_logprob_gap": 1e9})
    sequences = [Sampled(ids=(0, 1)), Sampled(ids=(2,)), Sampled(ids=(0,), has_context=False)]
    found = on_f(recipe, sequences, policy=FAR)
    terms = [(weight / 3, jsd(FAR)) for weight in (2.0, 0.05 / 0.4, 0.05 / 0.2)]
    check(found, *added([*terms, (0.0, jsd(FAR))]))
    uncapped = on_f(
        load_recipe("sdpo", {"limits.max_logprob_gap": 1e9, "offpolicy.cap": 3.0}), sequences, policy=FAR
    )
    assert uncapped.loss == pytest.approx(found.loss + 0.25 / 3 * jsd(FAR)[0])


def test_srpo_sends_the_wrong_with_context_to_the_teacher_and_the_rest_to_reward() -> None:
    """I12: one denominator for 5 tokens; w = 1 where all teachers are equally sure."""
    a = grouped([1.0, 0.0, 0.0])
    found = on_f(
        load_recipe("srpo"),
        [
            Sampled(ids=(0, 2), reward=1.0, group="g"),
            Sampled(ids=(2, 1), reward=0.0, group="g"),
            Sampled(ids=(1,), reward=0.0, group="g", has_context=False),
        ],
    )
    terms = [
        (1 / 5, clipped(0, a[0], 0.2, 0.28)),
        (1 / 5, clipped(2, a[0], 0.2, 0.28)),
        (1 / 5, jsd(PI)),
        (0.75 / 5, jsd(PI)),
        (1 / 5, clipped(1, a[2], 0.2, 0.28)),
    ]
    check(found, *added(terms))


def test_kdrl_adds_half_the_squared_gap_to_grpo() -> None:
    """GRPO + β·½ℓ² with β = 5·10⁻³ at first."""
    a = grouped([1.0, 0.0])
    found = on_f(
        load_recipe("kdrl"),
        [Sampled(ids=(0, 1), reward=1.0, group="g"), Sampled(ids=(2,), reward=0.0, group="g")],
    )
    terms = []
    for y, advantage in ((0, a[0]), (1, a[0]), (2, a[1])):
        value, row = clipped(y, advantage, 0.2, 0.2)
        row = [old + 5e-3 * gap(y) * g for old, g in zip(row, score(y), strict=True)]
        terms.append((1 / 3, (value + 5e-3 * 0.5 * gap(y) ** 2, row)))
    check(found, *added(terms))


def test_kdrls_masks_take_the_teacher_from_what_is_right() -> None:
    """wrong_only: of answers; no_correct_in_group: of whole groups."""
    sequences = [
        Sampled(ids=(0,), reward=1.0, group="g"),
        Sampled(ids=(2,), reward=0.0, group="g"),
        Sampled(ids=(1,), reward=0.0, group="h"),
        Sampled(ids=(1,), reward=0.0, group="h"),
    ]
    for route, masked in (("wrong_only", [2, 1, 1]), ("no_correct_in_group", [1, 1])):
        found = on_f(load_recipe("kdrl", {"route": route}), sequences)
        value = sum(0.5 * gap(y) ** 2 for y in masked) / len(masked)
        assert found.output.metrics["loss/kd"] == pytest.approx(value)


def test_rlad_clips_the_anchored_ratio() -> None:
    """I7: r = (2.5, .612372, .816497) in the clip [.8, 1.28]; plus 10⁻³·KL(π‖π_0)."""
    a = grouped([1.0, 0.0])
    found = on_f(
        load_recipe("rlad"),
        [Sampled(ids=(0, 1), reward=1.0, group="g"), Sampled(ids=(1, 2), reward=0.0, group="g")],
    )
    anchored = [sqrt(PI[y] / MU[y] * PI[y] / Q[y]) for y in range(3)]
    reference = (0.6, 0.2, 0.2)
    away = kl(PI, reference)
    pull = [1e-3 * p * (log(p / r) - away) for p, r in zip(PI, reference, strict=True)]
    terms = []
    for y, advantage in ((0, a[0]), (1, a[0]), (1, a[1]), (2, a[1])):
        bound = min(max(anchored[y], 0.8), 1.28)
        free = not bound * advantage < anchored[y] * advantage
        value = -(anchored[y] if free else bound) * advantage
        # α·∇log π + (1−α)·∇log π is ∇log π: the teacher and the sampler hold still
        row = times(-anchored[y] * advantage if free else 0.0, score(y))
        terms.append((1 / 4, (value + 1e-3 * away, [x + y for x, y in zip(row, pull, strict=True)])))
    check(found, *added(terms))


def test_scope_repeats_the_right_and_distils_the_wrong_by_perplexity() -> None:
    """I13: right −ρ by PPL_π, wrong ρ·sg[ℓ] by 1/PPL_q, each subset's weights adding up to 1."""
    found = on_f(
        load_recipe("scope"),
        [
            Sampled(ids=(0,), reward=1.0, group="g"),
            Sampled(ids=(1, 2), reward=1.0, group="g"),
            Sampled(ids=(2,), reward=0.0, group="g"),
            Sampled(ids=(0,), reward=0.0, group="g"),
        ],
    )
    ppl = [1 / PI[0], 1 / sqrt(PI[1] * PI[2])]
    right = [value / sum(ppl) for value in ppl]
    wrong = [Q[2] / (Q[2] + Q[0]), Q[0] / (Q[2] + Q[0])]
    terms = [(right[0], (-ratio(0), times(-ratio(0), score(0))))]
    terms += [(right[1] / 2, (-ratio(y), times(-ratio(y), score(y)))) for y in (1, 2)]
    terms += [
        (w, (ratio(y) * gap(y), times(ratio(y) * gap(y), score(y))))
        for w, y in zip(wrong, (2, 0), strict=True)
    ]
    check(found, *added(terms))


def test_pi_opsd_adds_the_samplers_corrected_reverse_kl_to_grpo() -> None:
    a = grouped([1.0, 0.0])
    found = on_f(
        load_recipe("pi_opsd"),
        [
            Sampled(ids=(0, 1), reward=1.0, group="g"),
            Sampled(ids=(2,), reward=0.0, group="g", has_context=False),
        ],
    )
    terms = []
    for y, advantage, context in ((0, a[0], 1), (1, a[0], 1), (2, a[1], 0)):
        value, row = clipped(y, advantage, 0.2, 0.2)
        share = 0.1 * context / 2  # over the 2 tokens that have the trace
        value = value / 3 + share * ratio(y) * (exp(-gap(y)) - 1 + gap(y))
        row = [x / 3 + share * ratio(y) * gap(y) * g for x, g in zip(row, score(y), strict=True)]
        terms.append((1.0, (value, row)))
    check(found, *added(terms))


def test_rlsd_shares_the_advantage_out_over_the_tokens() -> None:
    """I18: at λ = ½, ε = .2 factors (.9, 1.1, 1.1) for A > 0 and (1.1, .9, .9) for A < 0, 1 without a context."""
    a = grouped([1.0, 0.0, 0.0])
    found = on_f(
        load_recipe("rlsd"),
        [
            Sampled(ids=(0, 1), reward=1.0, group="g"),
            Sampled(ids=(0, 2), reward=0.0, group="g"),
            Sampled(ids=(1,), reward=0.0, group="g", has_context=False),
        ],
    )
    cases = ((0, a[0] * 0.9), (1, a[0] * 1.1), (0, a[1] * 1.1), (2, a[1] * 0.9), (1, a[2]))
    check(found, *added([(1 / 5, clipped(y, advantage, 0.2, 0.2)) for y, advantage in cases]))


def test_sdar_believes_the_teacher_where_it_approves() -> None:
    """GRPO + .01·(1/N)Σ σ(log q − log π)·RKL."""
    a = grouped([1.0, 0.0])
    found = on_f(
        load_recipe("sdar"),
        [Sampled(ids=(0, 1), reward=1.0, group="g"), Sampled(ids=(2,), reward=0.0, group="g")],
    )
    terms = []
    for y, advantage in ((0, a[0]), (1, a[0]), (2, a[1])):
        value, row = clipped(y, advantage, 0.2, 0.2)
        weight = 0.01 / (1 + exp(gap(y)))
        row = [x + weight * g for x, g in zip(row, rkl_gradient(), strict=True)]
        terms.append((1 / 3, (value + weight * kl(PI, Q), row)))
    check(found, *added(terms))


def test_paced_weighs_a_task_by_its_pass_rate() -> None:
    """I14: p(1−p) = 2/9 in a group of which one of three is right, nothing where all are."""
    found = on_f(
        load_recipe("paced"),
        [Sampled(ids=(0, 1), reward=1.0, group="g")]
        + [Sampled(ids=(y,), reward=0.0, group="g") for y in (0, 2)]
        + [Sampled(ids=(2,), reward=1.0, group="h") for _ in range(2)],
    )
    terms = [(2 / 9 / 4, (kl(PI, Q), rkl_gradient()))] * 4 + [(0.0, (0.0, rkl_gradient()))] * 2
    check(found, *added(terms))


def test_cord_is_refused_by_name_until_prompts_have_another_modality() -> None:
    with pytest.raises(ConfigError, match="another modality"):
        load_recipe("cord")
