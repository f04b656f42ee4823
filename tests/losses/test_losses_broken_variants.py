"""Identities as predicates that the real function satisfies and a plausible mistake does not: I6, I15, I16, I17, I19,
I27, I28, I29 and I31. The other identities have their broken variants beside them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from losses_cases import POLICY, TEACHER, expected, gradient
from rl_cases import batch_of, counts, looked, recipe
from torch import Tensor

from agentrl.losses.divergence import fkl, jsd, rkl
from agentrl.losses.masking import token_mean
from agentrl.losses.scores import Scores, scaled, soft_or
from agentrl.losses.targets import lerp
from agentrl.losses.token_weights import TOKEN_WEIGHTS
from agentrl.losses.trust_regions import Where, shape
from agentrl.losses.whole_bounds import covariance
from agentrl.recipes import axes, credit
from skills.ucb import Arm, choose

LOG_P, LOG_Q = POLICY.log(), TEACHER.log()


def close(found: Tensor | float, wanted: Tensor | float, tolerance: float = 1e-6) -> bool:
    found, wanted = torch.as_tensor(found).double(), torch.as_tensor(wanted).double()
    return torch.allclose(found, wanted, atol=tolerance, rtol=0)


# I6: JSD_β between both KLs


def between_both_kls(divergence: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """Goldens on F; /β → FKL, /(1−β) → RKL; symmetric at ½."""
    tiny = 1e-7
    return (
        close(divergence(LOG_P, LOG_Q, 0.1), 0.034316)
        and close(divergence(LOG_P, LOG_Q, 0.5), 0.103295)
        and close(divergence(LOG_P, LOG_Q, 0.9), 0.043531)
        and close(divergence(LOG_P, LOG_Q, tiny) / tiny, fkl(LOG_P, LOG_Q).sum(), 1e-5)
        and close(divergence(LOG_P, LOG_Q, 1 - tiny) / tiny, rkl(LOG_P, LOG_Q).sum(), 1e-5)
        and close(divergence(LOG_P, LOG_Q, 0.5), divergence(LOG_Q, LOG_P, 0.5), 1e-12)
    )


def mixed(log_p: Tensor, log_q: Tensor, beta: float, share: float) -> Tensor:
    """β·KL(q‖m) + (1−β)·KL(π‖m), m with this share of q."""
    middle = (share * log_q.exp() + (1 - share) * log_p.exp()).log()
    q, p = log_q.exp(), log_p.exp()
    return (beta * q * (log_q - middle) + (1 - beta) * p * (log_p - middle)).sum()


def test_a_jsd_with_its_weights_or_its_mixture_the_wrong_way_is_refused_by_its_limits() -> None:
    """I6. The mistakes agree with it at β = ½."""
    assert between_both_kls(lambda p, q, beta: jsd(p, q, beta=beta).sum())
    assert not between_both_kls(lambda p, q, beta: mixed(p, q, beta, 1 - beta))
    assert not between_both_kls(lambda p, q, beta: mixed(p, q, beta, 0.5))
    assert close(mixed(LOG_P, LOG_Q, 0.5, 0.5), 0.103295)


# I15: Soft-OR


def is_either(both: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Between the larger of both scaled scores and 1; the entropy alone where the other score is constant."""
    generator = torch.Generator().manual_seed(0)
    entropy, kl = (torch.rand(20, generator=generator, dtype=torch.float64) for _ in range(2))
    value = both(entropy, kl)
    return (
        bool((value >= torch.maximum(scaled(entropy), scaled(kl)) - 1e-12).all())
        and bool((value <= 1 + 1e-12).all())
        and close(both(entropy, torch.full_like(kl, 0.7)), scaled(entropy))
    )


def test_a_sum_a_product_or_a_mean_in_the_place_of_soft_or_is_refused() -> None:
    """I15: beyond 1, below the larger one, below the larger one."""
    assert is_either(soft_or)
    assert not is_either(lambda h, d: scaled(h) + scaled(d))
    assert not is_either(lambda h, d: scaled(h) * scaled(d))
    assert not is_either(lambda h, d: (scaled(h) + scaled(d)) / 2)


# I16: the gap that lies behind

GAPS = torch.tensor([1.0, -3.0, 0.0, 0.0], dtype=torch.float64)


def falls_with_what_lies_behind(weights: Callable[[Tensor, float], Tensor]) -> bool:
    """(1.5, 1.375, 1, 1) for a = (1, −3, 0, 0) at γ = ½; the first is 1 + γ; γ = 0 is no weight."""
    return close(weights(GAPS, 0.5), torch.tensor([1.5, 1.375, 1.0, 1.0])) and close(
        weights(GAPS, 0.0), torch.ones(4)
    )


def cum_gap(gaps: Tensor, gamma: float) -> Tensor:
    scores = Scores(entropy=torch.zeros_like(gaps), log_u=gaps)
    whole = torch.ones(4, dtype=torch.bool)
    return TOKEN_WEIGHTS["cum_gap"](scores, whole, torch.zeros(4, dtype=torch.long), 1, gamma=gamma)


def test_a_gap_that_counts_the_token_itself_or_its_sign_is_refused() -> None:
    """I16: with the token itself the first weighs 1.375, and signed gaps cancel each other."""
    assert falls_with_what_lies_behind(cum_gap)
    assert not falls_with_what_lies_behind(lambda a, g: 1 + g * (1 - a.abs().cumsum(0) / a.abs().sum()))
    assert not falls_with_what_lies_behind(lambda a, g: 1 + g * (1 - (a.cumsum(0) - a) / a.sum()))


# I17: UCB1


def goes_round(select: Callable[[Sequence[Arm]], Arm | None]) -> bool:
    """Every arm once before any repeat, and the bonus of a rare arm outweighs a small lead."""
    counts, order = dict.fromkeys("abc", 0), []
    for _ in range(3):
        chosen = select([arm(name, counts[name], 1.0 if name == "a" else 0.0) for name in counts])
        assert chosen is not None
        counts[chosen.name] += 1
        order.append(chosen.name)
    rare = select([arm("a", 3, 0.6), arm("b", 1, 0.4)])
    return sorted(order) == ["a", "b", "c"] and rare is not None and rare.name == "b"


def arm(name: str, number: int, mean: float) -> Arm:
    return Arm(name=name, num_selected=number, mean_reward=mean)


def greedy(arms: Sequence[Arm]) -> Arm:
    return max(arms, key=lambda own: own.mean_reward or 0.0)


def own_counts(arms: Sequence[Arm]) -> Arm:
    """√(ln n(e)/n(e)) instead of √(ln N/n(e)): an arm that was shown once has no bonus, one never shown none either."""

    def score(own: Arm) -> float:
        shown = max(own.num_selected, 1)
        return (own.mean_reward or 0.0) + math.sqrt(2) * math.sqrt(math.log(shown) / shown)

    return max(arms, key=score)


def test_a_choice_without_a_bonus_or_with_one_of_the_arm_alone_is_refused() -> None:
    """I17."""
    assert goes_round(choose)
    assert not goes_round(greedy)
    assert not goes_round(own_counts)


# I19: from the policy to the teacher


def begins_at_the_policy(target: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """t = 0 has no gradient, t = 1 that of FKL, and between both it is ∝ π^(1−t)·q^t."""

    def slope(t: float) -> Tensor:
        return gradient(lambda x: fkl(x, target(LOG_Q, LOG_P, t)).sum(), POLICY)

    between = (POLICY**0.6 * TEACHER**0.4) / (POLICY**0.6 * TEACHER**0.4).sum()
    return (
        close(slope(0.0), torch.zeros(3))
        and close(slope(1.0), POLICY - TEACHER)
        and close(target(LOG_Q, LOG_P, 0.4).exp(), between)
    )


def test_a_target_with_its_ends_exchanged_or_mixed_in_probabilities_is_refused() -> None:
    """I19."""
    assert begins_at_the_policy(lambda q, p, t: lerp(q, p, None, t=t))
    assert not begins_at_the_policy(lambda q, p, t: lerp(q, p, None, t=1 - t))
    assert not begins_at_the_policy(lambda q, p, t: ((1 - t) * p.exp() + t * q.exp()).log())


# I27: entropy and covariance

STEP = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)


def is_the_fall_of_entropy(predicted: float) -> bool:
    """dH of the step η·Δz, by central differences."""

    def entropy(size: float) -> float:
        p = torch.softmax(LOG_P + size * STEP, -1)
        return -(p * p.log()).sum().item()

    return abs((entropy(1e-5) - entropy(-1e-5)) / 2e-5 - predicted) < 1e-8


def test_a_covariance_that_is_not_centred_or_has_no_sign_is_refused() -> None:
    """I27: dH = −η·Cov(log π, Δz)."""
    tokens = counts(5, 3, 2)
    made = recipe(advantage={"name": "process", "base": "raw", "beta": 1e-12})
    batch, samples = batch_of(tokens, [STEP[own[0]].item() for own in tokens])
    real = covariance(looked(made, batch, samples), torch.arange(10)).mean().item()
    assert is_the_fall_of_entropy(-real)
    assert not is_the_fall_of_entropy(real)
    assert not is_the_fall_of_entropy(-expected(POLICY, LOG_P * STEP).item())


# I28: shaping


def peaks_at_gamma(loss: Callable[[Tensor, float], Tensor]) -> bool:
    """∇ of −r/(r+γ) in log r is −γr/(r+γ)², largest at r = γ."""
    gamma, sizes = 0.3, torch.tensor([0.01, 0.1, 0.3, 0.5, 0.9], dtype=torch.float64)
    live = sizes.log().requires_grad_()
    (grad,) = torch.autograd.grad(loss(live, gamma).sum(), live)
    return close(grad, -gamma * sizes / (sizes + gamma).square()) and grad.argmin().item() == 2


def shaped(live: Tensor, gamma: float) -> Tensor:
    everywhere = torch.ones_like(live, dtype=torch.bool)
    where = Where(
        sequence=torch.zeros_like(live).long(),
        num_sequences=1,
        mask=everywhere,
        foreign=everywhere,
        shared={},
    )
    rest: dict[str, Any] = {"r": "probability", "eps_low": 0.2, "eps_high": 0.2, "dual_clip": None}
    ones = torch.ones_like(live)
    return shape(live, torch.zeros_like(live), ones, where=where, gamma=gamma, **rest)[0]


def test_shaping_with_a_detached_denominator_or_by_the_plain_probability_is_refused() -> None:
    """I28: both grow without a peak at γ."""
    assert peaks_at_gamma(shaped)
    assert not peaks_at_gamma(lambda live, gamma: -live.exp() / (live.exp().detach() + gamma))
    assert not peaks_at_gamma(lambda live, gamma: -live.exp())


# I29: group advantages


def is_standardised(advantages: Callable[[list[float]], Sequence[float | None]]) -> bool:
    """They sum to 0, do not change under an affine reward, and are 0 for a constant group."""
    rewards = [0.3, -1.0, 0.25, 0.9]
    found = [value or 0.0 for value in advantages(rewards)]
    affine = [value or 0.0 for value in advantages([5 * reward + 2 for reward in rewards])]
    same = [value or 0.0 for value in advantages([0.4] * 4)]
    return abs(sum(found)) < 1e-9 and found == pytest.approx(affine) and same == pytest.approx([0.0] * 4)


def test_advantages_without_the_deviation_or_the_mean_are_no_standardised_ones() -> None:
    """I29: without the standard deviation the scale of the reward stays, without the mean its place."""

    def of(option: axes.Advantage) -> Callable[[list[float]], Sequence[float | None]]:
        return lambda rewards: credit.advantages(option, rewards)

    assert is_standardised(of(axes.Group(eps=0.0)))
    assert is_standardised(of(axes.Group(std="sample", eps=0.0)))
    assert not is_standardised(of(axes.Group(std="none")))
    assert not is_standardised(of(axes.LeaveOneOut()))
    assert not is_standardised(of(axes.Raw()))
    assert not is_standardised(lambda rewards: [reward - max(rewards) for reward in rewards])


# I31: masks


def takes_no_part(mean: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """What stands outside the mask is neither in the sum nor in the denominator, whatever it holds."""
    mask = torch.tensor([True, True, False, True])
    values = [
        torch.tensor([1.0, 2.0, outside, 6.0], dtype=torch.float64) for outside in (0.0, 50.0, math.inf)
    ]
    return all(close(mean(own, mask), 3.0) for own in values)


def test_a_mean_that_counts_what_is_masked_is_refused() -> None:
    """I31: in its denominator; in its sum; and by 0 · ∞, which is no number."""
    ones, owner = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.long)

    def real(values: Tensor, mask: Tensor) -> Tensor:
        return token_mean(values, ones, mask, owner, 1, tokens=int(mask.sum()), sequences=1)

    assert takes_no_part(real)
    assert not takes_no_part(lambda values, mask: torch.where(mask, values, 0.0).mean())
    assert not takes_no_part(lambda values, mask: values.sum() / mask.sum())
    assert not takes_no_part(lambda values, mask: (values * mask).sum() / mask.sum())
