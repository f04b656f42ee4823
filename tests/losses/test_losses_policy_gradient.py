"""Policy-gradient losses. Identities of the algebra: I3 (k1), I23, I28."""

import pytest
import torch
from losses_cases import POLICY, SAMPLER, TEACHER, distribution, expected, gradient

from agentrl.losses.divergence import rkl
from agentrl.losses.policy_gradient import clipped, reinforce, truncated

LOG_P, LOG_Q, LOG_MU = POLICY.log(), TEACHER.log(), SAMPLER.log()


def losses(ratios: list[float], advantage: float, **clip: float | None) -> list[float]:
    logprobs = torch.tensor(ratios).double().log()
    values, _ = clipped(logprobs, torch.zeros_like(logprobs), torch.full_like(logprobs, advantage), **clip)
    return values.tolist()


def test_the_clip_bounds_gains_and_not_losses() -> None:
    clip = {"eps_low": 0.2, "eps_high": 0.28}
    assert losses([0.5, 1.0, 1.28, 2.0], 1.0, **clip) == pytest.approx([-0.5, -1.0, -1.28, -1.28])
    assert losses([0.5, 0.8, 1.0, 2.0], -1.0, **clip) == pytest.approx([0.8, 0.8, 1.0, 2.0])


def test_the_dual_clip_bounds_the_loss_of_a_negative_advantage() -> None:
    clip = {"eps_low": 0.2, "eps_high": 0.2, "dual_clip": 3.0}
    assert losses([0.5, 2.0, 7.0], -2.0, **clip) == pytest.approx([1.6, 4.0, 6.0])
    assert losses([7.0], 2.0, **clip) == pytest.approx([-2.4])


def test_where_the_clip_acts_there_is_no_gradient_and_it_is_reported() -> None:
    ratios = torch.tensor([0.5, 1.0, 2.0, 0.5, 1.0, 2.0, 9.0]).double()
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]).double()
    logprobs = ratios.log().requires_grad_()

    values, cut = clipped(
        logprobs, torch.zeros(7).double(), advantages, eps_low=0.2, eps_high=0.2, dual_clip=3.0
    )
    values.sum().backward()

    assert cut.tolist() == [False, False, True, True, False, False, True]
    assert (logprobs.grad == 0).tolist() == cut.tolist()


def test_at_the_old_policy_the_clipped_loss_is_the_plain_policy_gradient() -> None:
    """I28: with A = −ℓ it is −(−∇RKL), sampled by the policy itself."""
    advantages = LOG_Q - LOG_P

    def ppo(log_p: torch.Tensor) -> torch.Tensor:
        return expected(POLICY, clipped(log_p, LOG_P, advantages, eps_low=0.2, eps_high=0.2)[0])

    exact = gradient(lambda log_p: rkl(log_p, LOG_Q).sum(), POLICY)
    torch.testing.assert_close(gradient(ppo, POLICY), exact, atol=1e-12, rtol=0)
    plain = gradient(lambda log_p: expected(POLICY, reinforce(log_p, LOG_P, advantages)[0]), POLICY)
    torch.testing.assert_close(plain, exact, atol=1e-12, rtol=0)


def test_the_value_of_reverse_kls_own_estimator_has_no_gradient() -> None:
    """I3: k1 = ℓ on the policy's samples, differentiated, is 0."""
    grad = gradient(lambda log_p: expected(POLICY, log_p - LOG_Q), POLICY)
    torch.testing.assert_close(grad, torch.zeros(3).double(), atol=1e-12, rtol=0)


def test_a_ratio_corrects_for_the_sampler_and_its_absence_does_not() -> None:
    """Law 7: E_μ[ρA g] = E_π[A g]; without ρ it is not."""
    advantages = torch.tensor([1.0, -0.5, 0.3]).double()
    exact = gradient(lambda log_p: -(log_p.exp() * advantages).sum(), POLICY)

    wide = {"eps_low": 0.999, "eps_high": 1e9}
    ratio = gradient(lambda log_p: expected(SAMPLER, clipped(log_p, LOG_MU, advantages, **wide)[0]), POLICY)
    tis = gradient(lambda log_p: expected(SAMPLER, truncated(log_p, LOG_MU, advantages, cap=99.0)[0]), POLICY)
    plain = gradient(lambda log_p: expected(SAMPLER, reinforce(log_p, LOG_MU, advantages)[0]), POLICY)

    torch.testing.assert_close(ratio, exact, atol=1e-12, rtol=0)
    torch.testing.assert_close(tis, exact, atol=1e-12, rtol=0)
    assert not torch.allclose(plain, exact, atol=1e-2)


def test_a_ratio_has_mean_one_under_its_denominator_and_less_when_truncated() -> None:
    """I23, read off the loss of a policy whose log-probs are held at −1."""
    policy, sampler = distribution(1), distribution(2)
    ratios = policy / sampler
    assert ratios.max() > 2

    def mean_weight(cap: float) -> float:
        minus_one = -torch.ones(7).double()
        values, cut = truncated(minus_one, minus_one - ratios.log(), torch.ones(7).double(), cap=cap)
        assert cut.tolist() == (ratios > cap).tolist()
        return (sampler * values).sum().item()

    assert mean_weight(1e9) == pytest.approx(1.0, abs=1e-12)
    assert mean_weight(2.0) == pytest.approx((sampler * ratios.clamp(max=2)).sum().item(), abs=1e-12)
    assert mean_weight(2.0) < 1.0


def test_a_hopeless_ratio_stays_finite() -> None:
    logprobs = torch.tensor([0.0, -500.0], requires_grad=True)
    values, _ = clipped(
        logprobs, torch.tensor([-500.0, 0.0]), torch.tensor([-1.0, 1.0]), eps_low=0.2, eps_high=0.2
    )
    values.sum().backward()

    assert torch.isfinite(values).all()
    assert torch.isfinite(logprobs.grad).all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, o, a: clipped(p, o, a, eps_low=0.2, eps_high=0.3, dual_clip=3.0),
        lambda p, o, a: truncated(p, o, a, cap=2.0),
        reinforce,
    ],
    ids=["ppo", "tis", "none"],
)
def test_no_gradient_reaches_advantages_and_old_log_probs(loss) -> None:
    streams = [torch.randn(5, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(3)]
    loss(*streams)[0].sum().backward()

    assert streams[0].grad is not None
    assert streams[1].grad is None
    assert streams[2].grad is None


def test_streams_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        reinforce(LOG_P, LOG_P, LOG_P[:2])
