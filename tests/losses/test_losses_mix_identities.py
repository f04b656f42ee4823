"""Mixes, anchors and weights of sequences on fixture F: π = (.5, .3, .2), q = (.1, .6, .3), μ = (.4, .4, .2).

Identities of the algebra: I7, I12, I13, I18, I23, and I33 where the teacher is the policy.
"""

from math import exp, log, sqrt
from typing import Any

import pytest
import torch
from losses_cases import POLICY, SAMPLER, TEACHER, distribution, random_batch
from torch import Tensor

from agentrl.losses.batch import LossBatch, count_tokens
from agentrl.losses.objective import objective
from agentrl.losses.policy_gradient import DENSE_WEIGHTS, OFFPOLICY
from agentrl.losses.whole import WholeBatch, whole_batch
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.types import TrainingSample

ON_POLICY = {"limits.max_version_lag": 0, "limits.max_logprob_gap": 1e9}
REWARD = {"advantage": "raw", "rollout": "stream"}


def anchored(alpha: float, advantages: Tensor, logprobs: Tensor | None = None) -> Tensor:
    """[3] the loss of each outcome of F under TRRD without a clip that could act."""
    values, _ = OFFPOLICY["anchor"](
        POLICY.log() if logprobs is None else logprobs,
        SAMPLER.log(),
        advantages,
        teacher_logprobs=TEACHER.log(),
        alpha=alpha,
        eps_low=0.999,
        eps_high=1e9,
        dual_clip=None,
    )
    return values


def test_the_anchored_ratio_is_half_the_policys_and_half_the_teachers() -> None:
    """I7: r = (π/μ)^α·(π/q)^{1−α}, so (√6.25, √.375, √(2/3)) at α = ½."""
    one = torch.ones(3, dtype=torch.float64)
    assert (-anchored(0.5, one)).tolist() == pytest.approx([2.5, 0.612372, 0.816497], abs=1e-6)


def test_alpha_one_is_the_samplers_ratio_and_alpha_zero_the_teachers() -> None:
    """I7: by the formula; the paper's prose has the ends the other way round and is refused here."""
    one = torch.ones(3, dtype=torch.float64)
    assert (-anchored(1.0, one)).tolist() == pytest.approx([1.25, 0.75, 1.0])
    assert (-anchored(0.0, one)).tolist() == pytest.approx([5.0, 0.5, 2 / 3])
    assert (-anchored(0.0, one)).tolist() != pytest.approx([1.25, 0.75, 1.0])


def test_the_anchored_log_ratio_is_affine_in_alpha() -> None:
    """I7."""
    one = torch.ones(3, dtype=torch.float64)
    ends = [(-anchored(alpha, one)).log() for alpha in (0.0, 1.0)]
    for alpha in (0.2, 0.7):
        middle = (1 - alpha) * ends[0] + alpha * ends[1]
        assert torch.allclose((-anchored(alpha, one)).log(), middle)


def test_the_unclipped_anchored_gradient_weighs_by_the_sampler_over_the_teacher() -> None:
    """I7: Σ_y μ·∇(−r·A) = −Σ_y π·(μ/q)^{1−α}·A·∇log π."""
    advantages = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    logits = POLICY.log().clone().requires_grad_()
    values = anchored(0.5, advantages, torch.log_softmax(logits, dim=-1))
    (found,) = torch.autograd.grad((SAMPLER * values).sum(), logits)
    expected = [0.0, 0.0, 0.0]
    for y, (p, m, q, a) in enumerate(
        zip((0.5, 0.3, 0.2), (0.4, 0.4, 0.2), (0.1, 0.6, 0.3), (1.0, -0.5, 2.0), strict=True)
    ):
        for v, own in enumerate((0.5, 0.3, 0.2)):
            expected[v] -= p * sqrt(m / q) * a * ((v == y) - own)
    assert found.tolist() == pytest.approx(expected)


def test_the_clip_acts_from_the_first_step_where_the_teacher_differs() -> None:
    """Trap 10: at π = μ the ratio is (μ/q)^{1−α}: an id over-weighted relative to the teacher is not reinforced."""
    logprobs = SAMPLER.log()
    one = torch.ones(3, dtype=torch.float64)
    given: dict[str, Any] = {"alpha": 0.5, "eps_low": 0.2, "eps_high": 0.28, "dual_clip": None}
    _, cut = OFFPOLICY["anchor"](logprobs, logprobs, one, teacher_logprobs=TEACHER.log(), **given)
    assert cut.tolist() == [True, False, False]  # (.4/.1)^½ = 2 for A > 0
    _, cut = OFFPOLICY["anchor"](logprobs, logprobs, -one, teacher_logprobs=TEACHER.log(), **given)
    assert cut.tolist() == [False, False, False]  # (.4/.6)^½ = .816 and (.2/.3)^½ = .816 stay within .8


def test_at_a_fixed_prefix_the_capped_ratio_only_takes_weight_away() -> None:
    """I23: E_μ[ρ] = 1; with the cap below 1 as soon as some ρ passes it."""
    free = DENSE_WEIGHTS["is_clip"](POLICY.log(), SAMPLER.log(), cap=2.0)
    assert free.tolist() == pytest.approx([1.25, 0.75, 1.0])
    assert float((SAMPLER * free).sum()) == pytest.approx(1.0)
    capped = DENSE_WEIGHTS["is_clip"](POLICY.log(), SAMPLER.log(), cap=1.1)
    assert float((SAMPLER * capped).sum()) == pytest.approx(0.4 * 1.1 + 0.4 * 0.75 + 0.2)
    far = torch.tensor([0.0, -60.0], dtype=torch.float64)
    assert DENSE_WEIGHTS["is_clip"](far, far.flip(0), cap=1e30).tolist() == pytest.approx(
        [exp(20.0), exp(-20.0)]
    )


def test_the_capped_ratio_carries_no_gradient() -> None:
    logprobs = POLICY.log().clone().requires_grad_()
    assert not DENSE_WEIGHTS["is_clip"](logprobs, SAMPLER.log(), cap=2.0).requires_grad


def outcomes(recipe: Recipe, advantage: float, *, kd: float = 1.0) -> list[float]:
    """The advantage that each outcome of F gets, read off −A·log π."""
    eye = torch.eye(3, dtype=torch.float64)
    batch = LossBatch(
        hidden=POLICY.log().expand(3, 3).clone().requires_grad_(),
        head=eye,
        token_ids=torch.arange(3),
        sequence=torch.arange(3),
        teacher_hidden=TEACHER.log().expand(3, 3),
        teacher_head=eye,
        advantages=torch.full((3,), advantage, dtype=torch.float64),
        kd_weights=torch.full((3,), kd, dtype=torch.float64),
    )
    samples = [sample(y, advantage, kd) for y in range(3)]
    output = objective(recipe, batch, count_tokens(recipe, samples))
    (gradient,) = torch.autograd.grad(output.loss, batch.hidden)
    # ∂(−A·log π(y))/∂z_y = −A·(1 − π(y)), divided by the 3 tokens
    return [float(-3 * gradient[y, y] / (1 - POLICY[y])) for y in range(3)]


def sample(y: int, advantage: float, kd: float = 1.0) -> TrainingSample:
    return TrainingSample(
        turn_ids=(str(y),),
        token_ids=(0, y),
        loss_mask=(False, True),
        behavior_logprobs=None,
        num_allowed=None,
        teacher=None,
        advantages=(0.0, advantage),
        weights={"kd": (kd, kd)},
    )


def rlsd(**mix: float) -> Recipe:
    overrides = {"offpolicy": "none", "schedules": {}, "mix": {"name": "adv_mult"} | mix}
    return load_recipe("rlsd", REWARD | ON_POLICY | overrides)


def test_a_teacher_bends_the_advantage_and_keeps_its_sign() -> None:
    """I18: u = (.2, 2, 1.5), clipped to (.8, 1.2, 1.2), half of which counts; for A < 0 1/u = (5, .5, .667)."""
    assert outcomes(rlsd(weight=0.5, eps=0.2), 1.0) == pytest.approx([0.9, 1.1, 1.1])
    assert outcomes(rlsd(weight=0.5, eps=0.2), -1.0) == pytest.approx([-1.1, -0.9, -0.9])
    assert outcomes(rlsd(weight=0.5, eps=0.2), 0.0) == [0.0, 0.0, 0.0]


def test_without_weight_or_teacher_the_advantage_is_the_rewards() -> None:
    """I18: λ = 0 is GRPO; a token of which the teacher has no view keeps its advantage."""
    assert outcomes(rlsd(weight=0.0, eps=0.2), 1.5) == pytest.approx([1.5, 1.5, 1.5])
    assert outcomes(rlsd(weight=0.5, eps=0.2), 1.5, kd=0.0) == pytest.approx([1.5, 1.5, 1.5])


@pytest.mark.parametrize("advantage", [1.0, -2.0])
def test_the_bent_advantage_is_bounded(advantage: float) -> None:
    """I18: within 1 ± λ·ε."""
    for value in outcomes(rlsd(weight=1.0, eps=0.3), advantage):
        assert 0.7 - 1e-9 <= value / advantage <= 1.3 + 1e-9


def test_the_sign_matters_to_the_factor() -> None:
    """I18, a broken variant: clip(u) for either sign would punish most what the teacher approves of."""
    without_sign = [-0.9, -1.1, -1.1]
    assert outcomes(rlsd(weight=0.5, eps=0.2), -1.0) != pytest.approx(without_sign)


def loss_of(
    recipe: Recipe, batch: LossBatch, samples: list[TrainingSample]
) -> tuple[float, Tensor, dict[str, float]]:
    output = objective(recipe, batch, count_tokens(recipe, samples))
    (gradient,) = torch.autograd.grad(output.loss, batch.hidden)
    return float(output.loss.detach()), gradient, output.metrics


def nine(*, kd: list[float], rl: list[float], seed: int = 3) -> tuple[LossBatch, list[TrainingSample]]:
    """Three sequences of three positions with these route weights."""
    batch = random_batch(seed, kd_weights=torch.tensor(kd).repeat_interleave(3).double(),
                         rl_weights=torch.tensor(rl).repeat_interleave(3).double())  # fmt: skip
    ids, behavior, advantages = (
        batch.token_ids.tolist(),
        batch.behavior_logprobs.tolist() if batch.behavior_logprobs is not None else [],
        batch.advantages.tolist() if batch.advantages is not None else [],
    )
    samples = [
        TrainingSample(
            turn_ids=(str(i),),
            token_ids=(0, *ids[3 * i : 3 * i + 3]),
            loss_mask=(False, True, True, True),
            behavior_logprobs=(0.0, *behavior[3 * i : 3 * i + 3]),
            num_allowed=None,
            teacher=None,
            advantages=(0.0, *advantages[3 * i : 3 * i + 3]),
            weights={"kd": (kd[i],) * 4, "rl": (rl[i],) * 4},
        )
        for i in range(3)
    ]
    return batch, samples


def routed(**overrides: Any) -> Recipe:
    """SRPO without its token weight, on live turns."""
    changes = {"context": "env_feedback", "token_weight": "one", "limits.max_logprob_gap": 1e9}
    return load_recipe("srpo", REWARD | changes | overrides)


def test_a_routed_loss_divides_both_parts_by_all_their_tokens() -> None:
    """I12: the parts of a batch of 2 and 1 sequences count 2/3 and 1/3 of what they are alone."""
    batch, samples = nine(kd=[0, 1, 0], rl=[1, 0, 1])
    whole, gradient, metrics = loss_of(routed(), batch, samples)
    alone = {}
    for part, kd, rl in (("rl", [0.0] * 3, [1.0, 0.0, 1.0]), ("kd", [0.0, 1.0, 0.0], [0.0] * 3)):
        own, own_samples = nine(kd=kd, rl=rl)
        alone[part] = loss_of(routed(), own, own_samples)
    assert whole == pytest.approx(2 / 3 * alone["rl"][0] + 1 / 3 * alone["kd"][0])
    assert torch.allclose(gradient, 2 / 3 * alone["rl"][1] + 1 / 3 * alone["kd"][1])
    assert metrics["loss/rl"] == pytest.approx(2 / 3 * alone["rl"][0])
    # a broken variant, each part over its own denominator, is another loss
    assert whole != pytest.approx(alone["rl"][0] + alone["kd"][0])


def test_doubling_both_branches_doubles_a_routed_loss() -> None:
    """I12: the scale test. There is no coefficient that could shift between the branches."""
    once, samples = nine(kd=[0, 1, 0], rl=[1, 0, 1])
    loss, gradient, _ = loss_of(routed(), once, samples)
    twice, doubled = nine(kd=[0, 2, 0], rl=[2, 0, 2])
    found, twice_gradient, _ = loss_of(routed(), twice, doubled)
    assert found == pytest.approx(2 * loss)
    assert torch.allclose(twice_gradient, 2 * gradient)


def test_without_anything_to_distil_a_routed_loss_is_grpo() -> None:
    """I12."""
    batch, samples = nine(kd=[0, 0, 0], rl=[1, 1, 1])
    grpo = load_recipe("openclaw_rl_binary", {"aggregate": "token_mean", "limits.max_logprob_gap": 1e9})
    expected, gradient, _ = loss_of(grpo, batch, samples)
    found, own, _ = loss_of(routed(), batch, samples)
    assert found == pytest.approx(expected)
    assert torch.allclose(own, gradient)


def test_a_sequence_without_advantage_stays_in_the_routed_denominator() -> None:
    """I12: an all-wrong group contributes nothing but its tokens."""
    batch, samples = nine(kd=[0, 1, 0], rl=[1, 0, 1])
    assert batch.advantages is not None
    silent = torch.cat([torch.zeros(3).double(), batch.advantages[3:6], torch.zeros(3).double()])
    quiet = LossBatch(
        **{name: getattr(batch, name) for name in LossBatch.__dataclass_fields__} | {"advantages": silent}
    )
    found, _, _ = loss_of(routed(), quiet, samples)
    alone, own = nine(kd=[0, 1, 0], rl=[0, 0, 0])
    assert found == pytest.approx(loss_of(routed(), alone, own)[0] / 3)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_convex_mix_lies_between_its_ends(weight: float) -> None:
    batch, samples = nine(kd=[1, 1, 0], rl=[1, 1, 1])
    base = {"aggregate": "token_mean", "route": "has_context"}
    losses = [
        loss_of(routed(**base, mix={"name": "convex", "weight": w}), batch, samples)
        for w in (0.0, 1.0, weight)
    ]
    assert losses[2][0] == pytest.approx((1 - weight) * losses[0][0] + weight * losses[1][0])
    assert torch.allclose(losses[2][1], (1 - weight) * losses[0][1] + weight * losses[1][1])
    assert losses[0][0] == pytest.approx(losses[0][2]["loss/rl"])
    assert losses[1][0] == pytest.approx(losses[1][2]["loss/kd"])


def test_convex_advantages_are_added_ones_that_sum_to_one() -> None:
    """SDPO with GRPO: A = .9·A_r + .1·A_q."""
    batch, samples = nine(kd=[1, 1, 0], rl=[1, 1, 1])
    wide = {"limits.max_logprob_gap": 1e9}
    found = loss_of(
        load_recipe("openclaw_rl", wide | {"mix": {"name": "adv_convex", "weight": 0.9}}), batch, samples
    )
    added = {"name": "adv_add", "reward": 0.9, "distill": 0.1}
    expected = loss_of(load_recipe("openclaw_rl", wide | {"mix": added}), batch, samples)
    assert found[0] == pytest.approx(expected[0])
    assert torch.allclose(found[1], expected[1])


def looked_at(
    tau: float,
    *,
    groups: list[str],
    rewards: list[float],
    policy: list[float],
    teacher: list[float],
    within: str,
) -> WholeBatch:
    """SCOPE's look at a batch of one-token answers with these probabilities; right from ½ on."""
    number = len(groups)
    recipe = load_recipe(
        "scope",
        {"route": ["correct_ce_wrong_kd", {"name": "ppl_softmax", "tau": tau, "within": within}]},
    )

    def states(probabilities: list[float]) -> Tensor:
        return torch.tensor([[log(p), log(1 - p)] for p in probabilities], dtype=torch.float64)

    eye = torch.eye(2, dtype=torch.float64)
    right = torch.tensor([float(reward >= 0.5) for reward in rewards], dtype=torch.float64)
    batch = LossBatch(
        hidden=states(policy),
        head=eye,
        token_ids=torch.zeros(number, dtype=torch.long),
        sequence=torch.arange(number),
        teacher_hidden=states(teacher),
        teacher_head=eye,
        behavior_logprobs=torch.tensor([log(p) for p in policy], dtype=torch.float64),
        advantages=right,
        kd_weights=1 - right,
        rl_weights=right,
    )
    samples = [
        TrainingSample(
            turn_ids=(str(i),),
            token_ids=(0, 0),
            loss_mask=(False, True),
            behavior_logprobs=(0.0, log(policy[i])),
            num_allowed=None,
            teacher=None,
            advantages=(0.0, rewards[i]),
            weights={"kd": (1 - float(right[i]),) * 2, "rl": (float(right[i]),) * 2},
            group=groups[i],
            reward=rewards[i],
        )
        for i in range(number)
    ]
    return whole_batch(recipe, [(batch, torch.arange(number))], samples, count_tokens(recipe, samples))


def test_right_answers_count_by_the_policys_perplexity_and_wrong_ones_by_the_teachers() -> None:
    """I13: perplexities 2 and 4 of probabilities ½ and ¼: 1/3 and 2/3 among the right, 2/3 and 1/3 among the wrong."""
    seen = looked_at(
        1.0,
        groups=["g"] * 4,
        rewards=[1.0, 1.0, 0.0, 0.0],
        policy=[0.5, 0.25, 0.9, 0.1],
        teacher=[0.1, 0.9, 0.5, 0.25],
        within="group",
    )
    assert (seen.rl_scale / 2)[:2].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert (seen.kd_scale / 2)[2:].tolist() == pytest.approx([2 / 3, 1 / 3])
    # a broken variant, the policy's own perplexity for the wrong ones too, would give 1/10 and 9/10
    assert (seen.kd_scale / 2)[2:].tolist() != pytest.approx([0.1, 0.9])


def test_a_high_temperature_makes_all_sequences_alike_and_each_subset_adds_up_to_one() -> None:
    """I13."""
    given: dict[str, Any] = {
        "groups": ["g", "g", "g", "h", "h"],
        "rewards": [1.0, 1.0, 0.0, 1.0, 1.0],
        "policy": [0.5, 0.25, 0.9, 0.125, 0.7],
        "teacher": [0.1, 0.9, 0.5, 0.3, 0.3],
    }
    flat = looked_at(1e9, within="group", **given)
    assert flat.rl_scale.tolist() == pytest.approx([1.0] * 5, abs=1e-6)
    for within, subsets in (("group", [[0, 1], [2], [3, 4]]), ("batch", [[0, 1, 3, 4], [2]])):
        seen = looked_at(0.7, within=within, **given)
        for rows in subsets:
            scale = seen.kd_scale if rows == [2] else seen.rl_scale
            assert float((scale / len(rows))[rows].sum()) == pytest.approx(1.0)
    apart, together = (looked_at(0.7, within=within, **given) for within in ("group", "batch"))
    assert apart.rl_scale.tolist() != pytest.approx(together.rl_scale.tolist())


def test_an_empty_subset_contributes_nothing() -> None:
    """I13: a batch without wrong answers has no distillation, and the weights of the right ones stay."""
    seen = looked_at(
        1.0, groups=["g", "g"], rewards=[1.0, 1.0], policy=[0.5, 0.25], teacher=[0.5, 0.5], within="group"
    )
    assert not bool(seen.kd.any())
    assert seen.denominators.kd_tokens == 0
    assert (seen.rl_scale / 2).tolist() == pytest.approx([1 / 3, 2 / 3])


def test_the_perplexity_of_a_sequence_is_that_of_its_mean() -> None:
    """A sequence's length must not count: one of two tokens at ½ stands beside one of one token at ½."""
    recipe = load_recipe("scope", {"route": {"name": "ppl_softmax", "within": "batch"}})
    probabilities = distribution(4, 5)
    rows = probabilities.log().expand(3, 5).clone()
    batch = LossBatch(
        hidden=rows,
        head=torch.eye(5, dtype=torch.float64),
        token_ids=torch.tensor([1, 1, 1]),
        sequence=torch.tensor([0, 0, 1]),
        teacher_hidden=rows,
        teacher_head=torch.eye(5, dtype=torch.float64),
        advantages=torch.ones(3, dtype=torch.float64),
        behavior_logprobs=torch.full((3,), log(float(probabilities[1])), dtype=torch.float64),
    )
    samples = [
        TrainingSample(
            turn_ids=(str(i),),
            token_ids=(0, *(1,) * number),
            loss_mask=(False, *(True,) * number),
            behavior_logprobs=None,
            num_allowed=None,
            teacher=None,
            advantages=(1.0,) * (number + 1),
        )
        for i, number in enumerate((2, 1))
    ]
    seen = whole_batch(recipe, [(batch, torch.arange(3))], samples, count_tokens(recipe, samples))
    assert seen.rl_scale.tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert seen.kd_scale.tolist() == pytest.approx([1.0, 1.0, 1.0])
