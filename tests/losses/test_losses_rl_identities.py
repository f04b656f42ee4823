"""Identities of the reward options, through the whole objective: I3, I21, I23, I25, I26, I27, I28.

An expectation over (.5, .3, .2) is exact as the mean over five, three and two tokens of the three ids.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from losses_cases import POLICY, REFERENCE, SAMPLER, TEACHER, gradient
from rl_cases import batch_of, counts, looked, recipe, run
from torch import Tensor

from agentrl.losses.divergence import fkl, jsd, rkl
from agentrl.losses.features import FEATURES
from agentrl.losses.objective import LossOutput
from agentrl.losses.trust_regions import Where, ratio, sequence_clipped, shape, square
from agentrl.losses.whole_bounds import covariance


def kl_gradient(estimator: str, tokens: Sequence[tuple[int, ...]]) -> Tensor:
    made = recipe(regularisers=[{"name": "kl_ref", "coef": 1.0, "estimator": estimator}])
    return run(made, *batch_of(tokens, [0.0] * len(tokens)))[1].sum(0)


ON_POLICY, FROM_SAMPLER = counts(5, 3, 2), counts(2, 2, 1)
REVERSE = gradient(lambda p: rkl(p, REFERENCE.log()).sum(), POLICY)
FORWARD = gradient(lambda p: fkl(p, REFERENCE.log()).sum(), POLICY)


def test_each_estimator_of_the_penalty_has_the_gradient_of_its_own_direction() -> None:
    """I3: k3 on the policy's samples is the forward divergence; k2 and the ratio's form are the reverse one."""
    close = {"atol": 1e-12, "rtol": 0}
    torch.testing.assert_close(kl_gradient("full", ON_POLICY), REVERSE, **close)
    torch.testing.assert_close(kl_gradient("k2", ON_POLICY), REVERSE, **close)
    torch.testing.assert_close(kl_gradient("k3", ON_POLICY), FORWARD, **close)
    torch.testing.assert_close(kl_gradient("iw_k3", FROM_SAMPLER), REVERSE, **close)
    assert (REVERSE - FORWARD).abs().max() > 1e-2


def test_an_uncorrected_estimate_on_anothers_samples_is_refused_by_the_identity() -> None:
    """I3's broken variants: without the ratio k2 is not the reverse KL on μ's samples, nor k3 the forward one."""
    assert (kl_gradient("k2", FROM_SAMPLER) - REVERSE).abs().max() > 1e-2
    assert (kl_gradient("k3", FROM_SAMPLER) - FORWARD).abs().max() > 1e-2


def test_the_optimum_of_reward_minus_kl_is_where_the_policy_is_version_0_tilted_by_reward() -> None:
    """I21: π ∝ π_0·e^{R/β} for R = β·log π/π_0 + c."""
    beta = 0.7
    reward = beta * (POLICY / REFERENCE).log() + 2.0
    tokens = [reward[own[0]].item() for own in ON_POLICY]
    batch, samples = batch_of(ON_POLICY, tokens)
    batch = replace(batch, behavior_logprobs=POLICY.log()[batch.token_ids])
    penalty = [{"name": "kl_ref", "coef": beta}]

    _, grad = run(recipe(regularisers=penalty), batch, samples)
    _, weaker = run(recipe(regularisers=[{"name": "kl_ref", "coef": 0.5 * beta}]), batch, samples)

    torch.testing.assert_close(grad.sum(0), torch.zeros(3).double(), atol=1e-12, rtol=0)
    assert weaker.sum(0).abs().max() > 1e-2


def test_charging_the_log_ratio_in_the_advantage_is_the_penalty_in_the_loss() -> None:
    """I21: A − β·log π/π_0 has the gradient of β·KL(π‖π_0)."""
    rewards = [float(own[0] == 1) for own in ON_POLICY]
    batch, samples = batch_of(ON_POLICY, rewards)
    batch = replace(batch, behavior_logprobs=POLICY.log()[batch.token_ids])

    charged = recipe(advantage={"name": "process", "base": "raw", "beta": 0.3})
    penalised = recipe(regularisers=[{"name": "kl_ref", "coef": 0.3}])

    one, other = run(charged, batch, samples)[1].sum(0), run(penalised, batch, samples)[1].sum(0)
    torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    assert (one - run(recipe(), batch, samples)[1].sum(0)).abs().max() > 1e-2


def test_a_ratio_has_mean_one_and_the_gradient_of_the_policys_own_samples() -> None:
    """I23: Σμρ = 1, read off a constant advantage of −1; and E_μ[ρA g] = E_π[A g]."""
    output, grad = run(recipe(), *batch_of(FROM_SAMPLER, [-1.0] * 5))
    assert output.loss.item() == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(grad.sum(0), torch.zeros(3).double(), atol=1e-12, rtol=0)

    reward = torch.tensor([1.0, -0.5, 0.3]).double()
    _, grad = run(recipe(), *batch_of(FROM_SAMPLER, [reward[own[0]].item() for own in FROM_SAMPLER]))
    exact = gradient(lambda p: -(p.exp() * reward).sum(), POLICY)
    torch.testing.assert_close(grad.sum(0), exact, atol=1e-12, rtol=0)


def test_the_variance_of_the_ratio_is_chi_squared_and_near_the_sampler_twice_the_kl() -> None:
    """I25: .05 on F."""
    made = recipe(offpolicy={"name": "var_penalty", "denominator": "sampler", "eta": 1.0, "delta": 0.0})
    output, grad = run(made, *batch_of(FROM_SAMPLER, [0.0] * 5))
    chi2 = ((POLICY - SAMPLER).square() / SAMPLER).sum().item()
    exact = gradient(lambda p: ((p.exp() - SAMPLER).square() / SAMPLER).sum(), POLICY)

    assert chi2 == pytest.approx(0.05, abs=1e-12)
    assert output.loss.item() == output.metrics["ratio_variance"] == pytest.approx(0.05, abs=1e-12)
    torch.testing.assert_close(grad.sum(0), exact, atol=1e-12, rtol=0)
    assert (run(made, *batch_of(ON_POLICY, [0.0] * 10))[1].sum(0) - exact).abs().max() > 1e-2

    near = SAMPLER * (1 + 1e-3 * torch.tensor([1.0, -1.0, 0.0]).double())
    kl = rkl(near.log(), SAMPLER.log()).sum().item()
    output, _ = run(made, *batch_of(FROM_SAMPLER, [0.0] * 5, policy=near))
    assert output.loss.item() == pytest.approx(2 * kl, rel=1e-3)


def rehearsed(divergence: str, tokens: Sequence[tuple[int, ...]]) -> tuple[LossOutput, Tensor]:
    made = recipe(
        regularisers=[{"name": "js_rehearsal", "coef": 1.0, "divergence": divergence}],
        rollout={"name": "stream", "rehearsal": 0.5},
    )
    batch, samples = batch_of(tokens, [1.0] * len(tokens), reference=TEACHER, source="rehearsal")
    return run(made, batch, samples)


def test_rehearsing_version_0s_samples_is_twice_the_jensen_shannon_divergence() -> None:
    """I26 with π_0 := q: .206589; over the policy's own samples it is something else."""
    output, grad = rehearsed("js", counts(1, 6, 3))
    exact = gradient(lambda p: 2 * jsd(p, TEACHER.log(), beta=0.5).sum(), POLICY)

    assert output.loss.item() == pytest.approx(0.206589, abs=1e-6)
    assert output.metrics["num_rehearsed"] == 10
    assert output.metrics["num_tokens"] == 0
    torch.testing.assert_close(grad.sum(0), exact, atol=1e-12, rtol=0)
    assert (rehearsed("js", ON_POLICY)[1].sum(0) - exact).abs().max() > 1e-2

    _, grad = rehearsed("fkl", counts(1, 6, 3))
    exact = gradient(lambda p: fkl(p, TEACHER.log()).sum(), POLICY)
    torch.testing.assert_close(grad.sum(0), exact, atol=1e-12, rtol=0)


def test_rehearsed_answers_stay_however_far_the_policy_has_gone() -> None:
    made = recipe(
        regularisers=[{"name": "js_rehearsal", "coef": 1.0}],
        rollout={"name": "stream", "rehearsal": 0.5},
        limits={"max_logprob_gap": 1e-6},
    )
    batch, samples = batch_of(counts(1, 1, 1), [1.0] * 3, source="rehearsal")
    assert run(made, batch, samples)[0].dropped == ()
    batch, samples = batch_of(counts(1, 1, 1), [1.0] * 3)
    assert run(recipe(limits={"max_logprob_gap": 1e-6}), batch, samples)[0].dropped == (0, 1)


def test_the_entropy_falls_by_the_covariance_of_log_probs_and_the_step() -> None:
    """I27: dH = −η·Cov_π(log π, Δz), Δz = A, to first order."""
    rewards = [[0.3, -1.0, 2.0][own[0]] for own in ON_POLICY]
    made = recipe(advantage={"name": "process", "base": "raw", "beta": 1e-12})
    seen = looked(made, *batch_of(ON_POLICY, rewards))
    predicted = -covariance(seen, torch.arange(10)).mean().item()

    def entropy(step: float) -> float:
        p = torch.softmax(POLICY.log() + step * torch.tensor([0.3, -1.0, 2.0]).double(), -1)
        return -(p * p.log()).sum().item()

    measured = (entropy(1e-5) - entropy(-1e-5)) / 2e-5
    assert measured == pytest.approx(predicted, abs=1e-8)
    assert abs(predicted) > 0.1


def test_shaping_has_its_largest_gradient_where_the_ratio_is_gamma() -> None:
    """I28: ∇ r/(r+γ) = γr/(r+γ)²·g."""
    gamma = 0.3
    sizes = torch.tensor([0.01, 0.1, 0.3, 0.5, 0.9]).double()
    logprobs = sizes.log().requires_grad_()
    where = Where(
        sequence=torch.zeros(5).long(),
        num_sequences=1,
        mask=torch.ones(5).bool(),
        foreign=torch.ones(5).bool(),
        shared={},
    )
    rest = {"gamma": gamma, "r": "probability", "eps_low": 0.2, "eps_high": 0.2, "dual_clip": None}
    old = torch.full((5,), -9.0).double()
    values, cut = shape(logprobs, old, torch.ones(5).double(), where=where, **rest)
    values.sum().backward()

    torch.testing.assert_close(values.detach(), -sizes / (sizes + gamma))
    torch.testing.assert_close(logprobs.grad, -gamma * sizes / (sizes + gamma).square())
    assert logprobs.grad.argmin().item() == 2
    assert not cut.any()
    own = replace(where, foreign=torch.zeros(5).bool())
    clipped, _ = shape(logprobs, old, torch.ones(5).double(), where=own, **rest)
    torch.testing.assert_close(clipped.detach(), torch.full((5,), -1.2).double())


def test_what_version_0_must_score_is_known_by_its_name() -> None:
    """Recipes cannot look into this floor: `Recipe.uses_reference` goes by `ref` in a feature's name."""
    sides = {name: feature.side for name, feature in FEATURES.items()}
    assert {name for name in sides if "ref" in name} == {
        name for name, side in sides.items() if side == "reference"
    }


def where_of(*lengths: int, mask: Sequence[bool] | None = None) -> Where:
    owner = torch.tensor([index for index, length in enumerate(lengths) for _ in range(length)])
    inside = torch.ones_like(owner, dtype=torch.bool) if mask is None else torch.tensor(mask)
    nowhere = torch.zeros_like(inside)
    return Where(sequence=owner, num_sequences=len(lengths), mask=inside, foreign=nowhere, shared={})


def test_a_sequence_ratio_is_the_geometric_mean_of_its_trained_tokens() -> None:
    """Ratios 2, .5 and 3: 1 over the first two; the third stands outside the mask. Then 1.21 alone, clipped at 1.1."""
    ratios = torch.tensor([2.0, 0.5, 3.0, 1.21]).double()
    live = ratios.log().requires_grad_()
    where = where_of(3, 1, mask=[True, True, False, True])
    values, cut = sequence_clipped(
        live, torch.zeros(4).double(), torch.ones(4).double(), where=where, eps_low=0.1, eps_high=0.1
    )
    assert values.tolist() == pytest.approx([-1.0, -1.0, -1.0, -1.1])
    assert cut.tolist() == [False, False, False, True]
    values[:2].mean().backward()
    assert live.grad.tolist() == pytest.approx([-0.5, -0.5, 0.0, 0.0])


def test_the_square_is_zero_at_its_optimum_and_a_policy_gradient_at_the_old_policy() -> None:
    """π ∝ π_old·e^{A/τ} fits exactly; at π = π_old the gradient is −A for each token's log-prob."""
    tau, advantage = 0.5, torch.tensor([0.4, 0.4, -0.3]).double()
    fitted = torch.tensor([0.5, 0.3, -0.6]).double()
    zero = torch.zeros(3).double()
    values, _ = square(fitted, zero, advantage, where=where_of(2, 1), tau=tau)
    torch.testing.assert_close(values, zero)

    live = zero.clone().requires_grad_()
    values, _ = square(live, zero, advantage, where=where_of(2, 1), tau=tau)
    (values[0] + values[2]).backward()
    torch.testing.assert_close(live.grad, -advantage)


def test_a_ratio_of_a_hopeless_sample_stays_finite() -> None:
    live = torch.tensor([0.0, -500.0], requires_grad=True)
    values, _ = ratio(live, torch.tensor([-500.0, 0.0]), torch.tensor([1.0, -1.0]))
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(live.grad).all()
