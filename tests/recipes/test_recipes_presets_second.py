"""The presets with a second generation stage on fixture F, each against its paper's formula enumerated here.

Identities of the algebra: I1 (TRD), I5 and I28 (HeRL, AMPO), I21 and I22 (pi-Distill, RLTF), I32 (who gets a gradient).
"""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log, sqrt
from typing import Any

import pytest
import torch
from presets_cases import MU, PI, OnF, Q, Sampled, check, on_f, on_f_samples, samples_of

from agentrl.recipes import credit
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.types import TrainingSample

Row = list[float]
NAMES = ("trd", "kepo", "herl", "ampo", "rltf_sd", "rltf_fm", "caopd", "pi_distill", "mgsr", "r3")


# Plain arithmetic: [3] lists, gradients in logits.


def score(y: int, probabilities: Sequence[float] = PI) -> Row:
    """∇ log π(y)."""
    return [(v == y) - p for v, p in enumerate(probabilities)]


def times(factor: float, row: Sequence[float]) -> Row:
    return [factor * value for value in row]


def plus(*rows: Sequence[float]) -> Row:
    return [sum(values) for values in zip(*rows, strict=True)]


def kl(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * log(x / y) for x, y in zip(a, b, strict=True))


def away(a: Sequence[float], b: Sequence[float]) -> Row:
    """∇KL(a‖b) in a's logits."""
    return [x * (log(x / y) - kl(a, b)) for x, y in zip(a, b, strict=True)]


def clipped(
    y: int, advantage: float, probabilities: Sequence[float], old: float, low: float = 0.2, high: float = 0.2
) -> tuple[float, Row]:
    """−min(ρA, clip(ρ)A) and its gradient."""
    rho = probabilities[y] / old
    bound = min(max(rho, 1 - low), 1 + high)
    if bound * advantage < rho * advantage:
        return -bound * advantage, [0.0, 0.0, 0.0]
    return -rho * advantage, times(-rho * advantage, score(y, probabilities))


def shaped(y: int, advantage: float, r: float, gamma: float) -> tuple[float, Row]:
    """−A·r/(r+γ) and its gradient −A·γr/(r+γ)²·∇log π."""
    return -advantage * r / (r + gamma), times(-advantage * gamma * r / (r + gamma) ** 2, score(y))


def grouped(rewards: Sequence[float], eps: float = 1e-6) -> Row:
    mean = sum(rewards) / len(rewards)
    std = sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    return [(r - mean) / (std + eps) for r in rewards]


def role(sample: TrainingSample, loss: str, advantage: float | None = None) -> TrainingSample:
    """The sample as the builder makes it for one loss alone, which divides by nobody's log-probs."""
    length = len(sample.token_ids)
    other = "rl" if loss == "kd" else "kd"
    return replace(
        sample,
        weights={loss: (1.0,) * length, other: (0.0,) * length},
        advantages=sample.advantages if advantage is None else (0.0, *(advantage,) * (length - 1)),
        behavior_logprobs=None,
    )


@pytest.mark.parametrize("name", ["trd", "caopd", "mgsr"])
def test_what_was_rewritten_is_learnt_over_the_whole_vocabulary(name: str) -> None:
    """I1: KL(q‖π) and π − q, whoever has written the ids. On F all tokens have one gap, so their weights are 1."""
    found = on_f(
        load_recipe(name), [Sampled(ids=(0,), source="rewrite"), Sampled(ids=(2, 1), source="rewrite")]
    )

    assert found.loss == pytest.approx(0.376584, abs=1e-6)
    check(found, kl(Q, PI), [[0.4 / 3, -0.3 / 3, -0.1 / 3]] * 3)
    assert found.teacher_gradient is None, "I32"


def test_kepo_rewards_all_and_distils_what_is_right() -> None:
    recipe = load_recipe("kepo")
    a, b = grouped([1.0, 0.0])
    middle = [(p + q) / 2 for p, q in zip(PI, Q, strict=True)]
    pulled = times(0.5, [p * (log(p / m) - kl(PI, middle)) for p, m in zip(PI, middle, strict=True)])
    jsd = 0.5 * kl(Q, middle) + 0.5 * kl(PI, middle)

    found = on_f(
        recipe,
        [Sampled(ids=(0,), reward=1.0, group="g", source="retry"), Sampled(ids=(1,), reward=0.0, group="g")],
    )

    # as if on-policy: the ratio is the trainer's own, 1, for the retried answer too
    check(
        found,
        (-a - b) / 2 + jsd,
        [plus(times(-a / 2, score(0)), pulled), times(-b / 2, score(1))],
    )
    assert jsd == pytest.approx(0.103295, abs=1e-6)


def test_herl_shapes_the_ratio_of_a_rewrite_and_clips_that_of_the_policys_own() -> None:
    """I28: ∇ r/(r+γ) = γr/(r+γ)²·g."""
    recipe = load_recipe("herl")
    rewards = [1.0, 0.0, 0.25]
    a, b, c = grouped(rewards)

    found = on_f(
        recipe,
        [
            Sampled(ids=(1,), reward=rewards[0], group="g", source="rewrite"),
            Sampled(ids=(0,), reward=rewards[1], group="g"),
            Sampled(ids=(2,), reward=rewards[2], group="g"),
        ],
    )

    parts = [
        shaped(1, a, PI[1] / MU[1], 1.0),
        clipped(0, b, PI, MU[0]),
        clipped(2, c, PI, MU[2]),
    ]
    check(found, sum(value for value, _ in parts) / 3, [times(1 / 3, row) for _, row in parts])


def test_ampo_shapes_the_probability_of_a_teachers_answer() -> None:
    """I28 with r = π: −A·π/(π+.1); the policy's own has ratio 1, and the entropy bonus goes to all."""
    recipe = load_recipe("ampo")
    rewards = [1.0, 0.0]
    entropy = -sum(p * log(p) for p in PI)
    bonus = times(0.001 / 2, [p * (log(p) + entropy) for p in PI])

    found = on_f(
        recipe,
        [
            Sampled(ids=(2,), reward=rewards[0], group="g", source="teacher"),
            Sampled(ids=(0,), reward=rewards[1], group="g"),
        ],
    )

    value, row = shaped(2, 0.5, PI[2], 0.1)
    check(
        found,
        (value + 0.5) / 2 - 0.001 * entropy,
        [plus(times(0.5, row), bonus), plus(times(0.5 * 0.5, score(0)), bonus)],
    )


def test_r3_takes_a_replayed_answer_with_its_own_ratio() -> None:
    rewards = [1.0, 0.0]
    a, b = grouped(rewards)

    found = on_f(
        load_recipe("r3"),
        [Sampled(ids=(1,), reward=1.0, group="g", source="replay"), Sampled(ids=(2,), reward=0.0, group="g")],
    )

    parts = [clipped(1, a, PI, MU[1], high=0.28), clipped(2, b, PI, MU[2], high=0.28)]
    check(found, sum(value for value, _ in parts) / 2, [times(0.5, row) for _, row in parts])


def rltf(recipe: Recipe, learnt: TrainingSample) -> list[TrainingSample]:
    """y0 and y1 with their rewards, and what is learnt without the critique."""
    first, second = samples_of(
        recipe, [Sampled(ids=(0, 1), reward=0.0, group="g"), Sampled(ids=(2,), reward=1.0, group="g")]
    )
    return [role(first, "rl"), role(second, "rl"), learnt]


def test_rltf_learns_the_second_answer_weighted_by_what_the_critique_gained() -> None:
    """−(R(y1) − mean R(y0))·log π(y1|x0), without a ratio, beside −A·log π of both turns."""
    recipe = load_recipe("rltf_sd").replaced({"mix.coef": 0.1})
    [learnt] = samples_of(recipe, [Sampled(ids=(1, 2), source="second_turn")])
    a, b = grouped([0.0, 1.0])

    found = on_f_samples(recipe, rltf(recipe, role(learnt, "kd", 0.75)))

    rl = -(a * (log(0.5) + log(0.3)) + b * log(0.2)) / 3
    sd = -0.75 * (log(0.3) + log(0.2)) / 2
    check(
        found,
        rl + 0.1 * sd,
        [
            times(-a / 3, score(0)),
            times(-a / 3, score(1)),
            times(-b / 3, score(2)),
            times(-0.1 * 0.75 / 2, score(1)),
            times(-0.1 * 0.75 / 2, score(2)),
        ],
    )


def test_rltf_leaves_out_what_the_policy_would_never_say_by_itself() -> None:
    """log .004 = −5.52 is below −5: no gradient, but its place in the denominator."""
    recipe = load_recipe("rltf_sd").replaced({"mix.coef": 0.1})
    policy = (0.9, 0.096, 0.004)
    [learnt] = samples_of(recipe, [Sampled(ids=(1, 2), source="second_turn")])

    found = on_f_samples(recipe, rltf(recipe, role(learnt, "kd", 1.0)), policy=policy)

    torch.testing.assert_close(
        found.gradient[3:],
        torch.tensor([times(-0.1 / 2, score(1, policy)), [0.0, 0.0, 0.0]], dtype=torch.float64),
    )
    assert found.output.metrics["num_below_floor"] == 1.0
    assert found.output.metrics["loss/self_distill"] == pytest.approx(-log(0.096) / 2)


def test_rltf_distils_nothing_at_first_and_a_tenth_in_the_end() -> None:
    recipe = load_recipe("rltf_sd")
    assert recipe.mix.params["coef"] == 0.0
    ramp = recipe.schedules["mix.coef"]
    assert (ramp.name, getattr(ramp, "start", None), getattr(ramp, "end", None)) == ("linear", 0.0, 0.1)


def test_feedback_modelling_learns_the_critiques_words_all_of_them() -> None:
    recipe = load_recipe("rltf_fm")
    policy = (0.9, 0.096, 0.004)
    [words] = samples_of(recipe, [Sampled(ids=(1, 2), source="second_turn")])
    a, b = grouped([0.0, 1.0])

    found = on_f_samples(recipe, rltf(recipe, role(words, "kd", 1.0)), policy=policy)

    rl = -(a * (log(0.9) + log(0.096)) + b * log(0.004)) / 3
    check(
        found,
        rl - 0.1 * (log(0.096) + log(0.004)) / 2,
        [
            times(-a / 3, score(0, policy)),
            times(-a / 3, score(1, policy)),
            times(-b / 3, score(2, policy)),
            times(-0.1 / 2, score(1, policy)),
            times(-0.1 / 2, score(2, policy)),
        ],
    )


def test_pi_distill_trains_teacher_and_policy_on_what_the_teacher_sampled() -> None:
    recipe = load_recipe("pi_distill", {"mix.alpha": 0.25, "mix.beta": 0.3})
    rewards, ids = [1.0, 0.0], [1, 2]
    advantages = grouped(rewards)

    found = on_f(
        recipe,
        [
            Sampled(ids=(y,), reward=reward, group="g", source="teacher")
            for y, reward in zip(ids, rewards, strict=True)
        ],
    )

    taught = [clipped(y, a, Q, MU[y]) for y, a in zip(ids, advantages, strict=True)]
    learnt = [clipped(y, a, PI, MU[y]) for y, a in zip(ids, advantages, strict=True)]
    distance = kl(Q, PI)
    pulled = [p - q for p, q in zip(PI, Q, strict=True)]
    check(
        found,
        0.25 * (sum(value for value, _ in taught) / 2 + 0.3 * distance)
        + 0.75 * (sum(value for value, _ in learnt) / 2 + 0.3 * distance),
        [times(0.75 / 2, plus(row, times(0.3, pulled))) for _, row in learnt],
    )
    assert found.teacher_gradient is not None
    expected = [times(0.25 / 2, plus(row, times(0.3, away(Q, PI)))) for _, row in taught]
    torch.testing.assert_close(
        found.teacher_gradient, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0
    )


REWARDS = (0.2, 1.0, -0.5)


def in_expectation(recipe: Recipe, sampler: Sequence[float], **on: Any) -> OnF:
    """Every id once, with advantage sampler(y)·R(y)·3, so that the mean over three tokens is an exact expectation."""
    samples = samples_of(recipe, [Sampled(ids=(y,), reward=REWARDS[y], source="teacher") for y in range(3)])
    return on_f_samples(
        recipe,
        [
            replace(
                sample,
                behavior_logprobs=(0.0, log(sampler[y])),
                advantages=(0.0, 3 * sampler[y] * REWARDS[y]),
                weights={"kd": (1.0, 1.0), "rl": (1.0, 1.0)},
            )
            for y, sample in enumerate(samples)
        ],
        **on,
    )


FREE = {"offpolicy": {"name": "ratio", "denominator": "sampler"}}


def test_the_policys_share_is_unbiased_whoever_has_sampled_and_rltfs_is_not() -> None:
    """I22: E_T[(π_S/π_T)·R] = E_S[R], value and gradient; without the ratio it is another gradient."""
    recipe = load_recipe("pi_distill", FREE | {"mix.alpha": 0.0, "mix.beta": 0.0})
    value = sum(p * r for p, r in zip(PI, REWARDS, strict=True))
    gradient = [p * (r - value) for p, r in zip(PI, REWARDS, strict=True)]

    for sampler in (Q, MU, (0.2, 0.2, 0.6)):
        found = in_expectation(recipe, sampler)
        assert -found.loss == pytest.approx(value)
        assert (-found.gradient.sum(dim=0)).tolist() == pytest.approx(gradient)

    unweighted = load_recipe("rltf_sd").replaced({"mix.coef": 1.0})
    samples = samples_of(unweighted, [Sampled(ids=(y,), source="second_turn") for y in range(3)])
    learnt = on_f_samples(
        unweighted, [role(sample, "kd", 3 * Q[y] * REWARDS[y]) for y, sample in enumerate(samples)]
    )
    biased = plus(*(times(Q[y] * REWARDS[y], score(y)) for y in range(3)))
    assert (-learnt.gradient.sum(dim=0)).tolist() == pytest.approx(biased)
    assert max(abs(a - b) for a, b in zip(biased, gradient, strict=True)) > 0.1


def test_a_critique_that_always_helps_has_an_advantage_where_a_group_mean_has_none() -> None:
    """I22: the baseline is the first turn's."""
    steps = [0, 0, 1, 1]
    assert credit.first_turn([0.0, 1.0, 1.0, 1.0], steps) == [None, None, 0.5, 0.5]
    assert credit.group([1.0, 1.0], [1, 1], std="population", eps=1e-6) == [0.0, 0.0]


def test_the_teachers_share_is_best_at_the_policy_tilted_by_the_reward() -> None:
    """I21: E[R] − β·KL(π_T‖π_S) is at rest where π_T ∝ π_S·e^{R/β}, and nowhere near it otherwise."""
    beta = 0.7
    recipe = load_recipe("pi_distill", FREE | {"mix.alpha": 1.0, "mix.beta": beta})
    tilted = [p * exp(r / beta) for p, r in zip(PI, REWARDS, strict=True)]
    best = [value / sum(tilted) for value in tilted]

    at_rest = in_expectation(recipe, best, teacher=best)
    elsewhere = in_expectation(recipe, Q, teacher=Q)

    assert at_rest.teacher_gradient is not None
    assert elsewhere.teacher_gradient is not None
    assert at_rest.teacher_gradient.sum(dim=0).abs().max() < 1e-9
    assert elsewhere.teacher_gradient.sum(dim=0).abs().max() > 0.05
    assert not at_rest.gradient.any(), "alpha = 1 trains the teacher alone"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pi_distill"])
def test_no_other_preset_trains_its_teacher(name: str) -> None:
    """I32."""
    recipe = load_recipe(name)
    found = on_f(recipe, [Sampled(ids=(0,), reward=1.0, group="g"), Sampled(ids=(1,), reward=0.0, group="g")])
    assert found.teacher_gradient is None


def test_every_preset_says_what_is_known_of_it() -> None:
    for name in NAMES:
        recipe = load_recipe(name)
        assert set(recipe.evidence.split(",")) <= {"C", "P", "S", "A"}, name
        assert recipe.doubt, name
        assert recipe.transform.name != "none", name
