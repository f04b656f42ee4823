"""Estimators of a divergence. Identities of the algebra: I2, I3, I11, I23 in part, I34, and the sampling tests."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from losses_cases import POLICY, REFERENCE, SAMPLER, TEACHER, distribution, expected, gradient
from torch import Tensor

from agentrl.losses.divergence import ADVANTAGES, DIVERGENCES, MINUS_F, fkl, jsd, rkl
from agentrl.losses.estimators import full, iw_k3, k2, k3, kl_topk, pg_advantages, topk

LOG_P, LOG_Q, LOG_MU = POLICY.log(), TEACHER.log(), SAMPLER.log()
BUCKET = {"support": "student", "tail": "bucket"}


def rkl_gradient(policy: Tensor, log_q: Tensor) -> Tensor:
    return gradient(lambda log_p: rkl(log_p, log_q).sum(), policy)


@pytest.mark.parametrize("sampler", [SAMPLER, TEACHER, POLICY, 0.3 * TEACHER + 0.7 * REFERENCE])
def test_weighted_k3_has_the_value_and_gradient_of_reverse_kl_under_any_sampler(sampler: Tensor) -> None:
    """I2."""

    def loss(log_p: Tensor) -> Tensor:
        return expected(sampler, iw_k3(log_p, LOG_Q, sampler.log()))

    assert loss(LOG_P).item() == pytest.approx(0.515682, abs=1e-6)
    torch.testing.assert_close(gradient(loss, POLICY), rkl_gradient(POLICY, LOG_Q), atol=1e-12, rtol=0)


def test_the_golden_values_of_k3() -> None:
    """I2."""
    assert k3(LOG_P, LOG_Q).tolist() == pytest.approx([0.809438, 0.306853, 0.094535], abs=1e-6)


def test_weighted_k3_of_one_sample_is_rho_l_g() -> None:
    """I2: the gradient of each sample, which vanishes only where π = q."""
    for token in range(3):
        grad = gradient(lambda log_p, t=token: iw_k3(log_p, LOG_Q, LOG_MU)[t], POLICY)
        score = torch.eye(3, dtype=torch.float64)[token] - POLICY
        rho, gap = POLICY[token] / SAMPLER[token], LOG_P[token] - LOG_Q[token]
        torch.testing.assert_close(grad, rho * gap * score, atol=1e-12, rtol=0)


def test_a_detached_ratio_gives_the_other_divergence() -> None:
    """I3: ρ detached in ρ·k3 has the gradient of FKL."""

    def broken(log_p: Tensor) -> Tensor:
        return expected(SAMPLER, (log_p - LOG_MU).exp().detach() * k3(log_p, LOG_Q))

    torch.testing.assert_close(gradient(broken, POLICY), POLICY - TEACHER, atol=1e-12, rtol=0)


def test_k2_follows_reverse_and_k3_forward_kl_on_the_policys_own_samples() -> None:
    """I3."""
    of_k2 = gradient(lambda log_p: expected(POLICY, k2(log_p, LOG_Q)), POLICY)
    of_k3 = gradient(lambda log_p: expected(POLICY, k3(log_p, LOG_Q)), POLICY)

    torch.testing.assert_close(of_k2, rkl_gradient(POLICY, LOG_Q), atol=1e-12, rtol=0)
    torch.testing.assert_close(of_k3, POLICY - TEACHER, atol=1e-12, rtol=0)


def test_k2_on_another_samplers_tokens_is_biased() -> None:
    """I3, negative: without a ratio k2 needs the policy's own samples."""
    biased = gradient(lambda log_p: expected(SAMPLER, k2(log_p, LOG_Q)), POLICY)

    assert not torch.allclose(biased, rkl_gradient(POLICY, LOG_Q), atol=1e-2)


@pytest.mark.parametrize("terms", [fkl, rkl, partial(jsd, beta=0.3)], ids=["fkl", "rkl", "jsd"])
@pytest.mark.parametrize("support", ["student", "teacher"])
def test_the_tail_bucket_is_a_lower_bound_that_grows_to_the_full_divergence(terms, support: str) -> None:
    """I11: value and gradient are exact at k = V−1."""
    policy, log_q = distribution(3), distribution(4).log()
    log_p = policy.log()
    exact = full(log_p, log_q, terms).item()
    values = [topk(log_p, log_q, terms, k=k, support=support, tail="bucket").item() for k in range(1, 8)]

    assert values == sorted(values)
    assert values[0] < exact - 1e-3
    assert values[5] == values[6] == pytest.approx(exact, abs=1e-12)
    torch.testing.assert_close(
        gradient(lambda x: topk(x, log_q, terms, k=6, support=support, tail="bucket"), policy),
        gradient(lambda x: full(x, log_q, terms), policy),
        atol=1e-12,
        rtol=0,
    )


def test_the_golden_values_of_top_k() -> None:
    """I11 on fixture F: one id and the tail; two ids renormalised."""
    assert topk(LOG_P, LOG_Q, rkl, k=1, **BUCKET).item() == pytest.approx(0.510826, abs=1e-6)
    renormalised = topk(
        torch.cat([LOG_P, torch.tensor([-80.0, -80.0]).double()]),
        torch.cat([LOG_Q, torch.tensor([-80.0, -80.0]).double()]),
        rkl,
        k=2,
        support="student",
        tail="renorm",
    )
    assert renormalised.item() == pytest.approx(0.612437, abs=1e-6)


def test_dropping_the_tail_leaves_out_its_terms() -> None:
    policy, teacher = distribution(5), distribution(6)
    log_p, log_q = policy.log(), teacher.log()
    chosen = teacher.topk(3).indices

    value = topk(log_p, log_q, fkl, k=3, support="teacher", tail="drop")

    assert value.item() == pytest.approx(fkl(log_p, log_q)[chosen].sum().item(), abs=1e-12)


@pytest.mark.parametrize("terms", [fkl, rkl], ids=["fkl", "rkl"])
def test_without_a_bucket_all_ids_but_one_are_not_yet_the_full_divergence(terms) -> None:
    policy, teacher = distribution(5), distribution(6)
    chosen = policy.topk(6).indices
    p, q = policy[chosen], teacher[chosen]
    for tail in ("drop", "renorm"):
        if tail == "renorm":
            p, q = p / p.sum(), q / q.sum()
        by_hand = terms(p.log(), q.log()).sum().item()
        values = [
            topk(policy.log(), teacher.log(), terms, k=k, support="student", tail=tail).item() for k in (6, 7)
        ]

        assert values[0] == pytest.approx(by_hand, abs=1e-12)
        assert values[1] == pytest.approx(full(policy.log(), teacher.log(), terms).item(), abs=1e-12)
        assert abs(values[0] - values[1]) > 1e-4


def test_the_tail_keeps_its_digits_when_almost_all_mass_is_in_the_top() -> None:
    """1 − Σ would be 0 or worse in fp32; the tail's own sum is not."""
    log_p = torch.log_softmax(torch.tensor([30.0, 0.0, 0.0, 0.0]), dim=-1).requires_grad_()
    log_q = torch.log_softmax(torch.tensor([0.0, 0.0, 0.0, 30.0]), dim=-1)

    value = topk(log_p, log_q, fkl, k=1, **BUCKET)
    value.backward()

    assert value.item() == pytest.approx(30.0 - torch.log(torch.tensor(3.0)).item(), abs=1e-3)
    assert torch.isfinite(log_p.grad).all()


def test_the_pointwise_clip_cuts_terms_and_their_gradient() -> None:
    """I34 on fixture F with τ = .3."""
    assert full(LOG_P, LOG_Q, fkl, pointwise_clip=0.3).item() == pytest.approx(0.260696, abs=1e-6)
    assert full(LOG_P, LOG_Q, fkl, pointwise_clip=1e9).item() == full(LOG_P, LOG_Q, fkl).item()

    log_p = LOG_P.clone().requires_grad_()
    full(log_p, LOG_Q, fkl, pointwise_clip=0.3).backward()
    torch.testing.assert_close(log_p.grad, torch.tensor([-0.1, 0.0, -0.3]).double())


def test_an_id_that_the_teacher_wants_by_more_than_the_clip_is_pushed_away() -> None:
    """I34: min(.9·ln 9, .05) + .1·ln(1/9) = .05 − .219722, below the 0 of π = q; the wanted id's logit has the gradient
    π_v·(1 − q_v) = .01 instead of π_v − q_v = −.8."""
    policy, teacher = torch.tensor([[0.1, 0.9], [0.9, 0.1]], dtype=torch.float64)
    clipped = partial(full, teacher_logprobs=teacher.log(), terms=fkl, pointwise_clip=0.05)

    assert clipped(policy.log()).item() == pytest.approx(-0.169722, abs=1e-6)
    assert clipped(teacher.log()).item() == pytest.approx(0.0, abs=1e-12)
    assert gradient(clipped, policy).tolist() == pytest.approx([0.01, -0.01], abs=1e-12)
    whole = gradient(lambda log_p: full(log_p, teacher.log(), fkl), policy)
    assert whole.tolist() == pytest.approx([-0.8, 0.8], abs=1e-12)


def test_an_id_within_the_clip_is_learned_as_without_it() -> None:
    """.9·ln(.9/.88) = .0202 and .1·ln(.1/.12) < 0: nothing is cut."""
    policy, teacher = torch.tensor([[0.88, 0.12], [0.9, 0.1]], dtype=torch.float64)
    clipped = partial(full, teacher_logprobs=teacher.log(), terms=fkl, pointwise_clip=0.05)

    assert gradient(clipped, policy).tolist() == pytest.approx([-0.02, 0.02], abs=1e-12)


def within_four_errors(
    loss: Callable[[Tensor, Tensor], Tensor],
    sampler: Tensor,
    policy: Tensor,
    exact: Tensor,
    draws: int = 200_000,
) -> bool:
    """Whether the mean gradient over ids drawn from `sampler` is within 4 standard errors of `exact` everywhere.

    `loss` takes log-probs [V] and an id. The gradient of each id is computed once and counted as often as drawn.
    """
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(
        torch.multinomial(sampler, draws, replacement=True, generator=generator), minlength=len(sampler)
    )
    gradients = torch.stack(
        [gradient(lambda x, t=token: loss(x, torch.tensor(t)), policy) for token in range(len(sampler))]
    )
    share = (counts / draws).double()[:, None]
    mean = (share * gradients).sum(0)
    error = ((share * (gradients - mean) ** 2).sum(0) / draws).sqrt()
    return bool(((mean - exact).abs() <= 4 * error + 1e-12).all())


def test_sampling_finds_the_exact_gradient_and_refuses_broken_variants() -> None:
    """The sampling tests: 200,000 draws; a detached ratio and a missing weight correction must fail."""
    policy, sampler, teacher = distribution(7), distribution(8), distribution(9)
    log_mu, log_q = sampler.log(), teacher.log()
    to_rkl = rkl_gradient(policy, log_q)
    to_fkl = policy - teacher

    def right(log_p: Tensor, t: Tensor) -> Tensor:
        return iw_k3(log_p, log_q, log_mu)[t]

    def detached(log_p: Tensor, t: Tensor) -> Tensor:
        return ((log_p - log_mu).exp().detach() * k3(log_p, log_q))[t]

    def corrected(log_p: Tensor, t: Tensor) -> Tensor:
        ratio = (log_p - log_mu).exp()
        return -(ratio * ADVANTAGES["fkl"](log_q - log_p.detach()))[t]

    def uncorrected(log_p: Tensor, t: Tensor) -> Tensor:
        log_u = log_q - log_p.detach()
        return ((log_p - log_mu).exp() * log_u.exp() * log_u)[t]

    assert within_four_errors(right, sampler, policy, to_rkl)
    assert not within_four_errors(detached, sampler, policy, to_rkl)
    assert within_four_errors(corrected, sampler, policy, to_fkl)
    assert not within_four_errors(uncorrected, sampler, policy, to_fkl)


@pytest.mark.parametrize(
    ("name", "params"),
    [("fkl", {}), ("rkl", {}), ("jsd", {"beta": 0.5}), ("chi2", {}), ("alpha", {"alpha": 0.5})],
)
def test_a_policy_gradient_with_the_whole_weight_finds_the_divergences_gradient(
    name: str, params: dict
) -> None:
    """The sampling test of OPD+ (I5); −f alone must fail, but for rkl."""
    policy, log_q = distribution(12), distribution(13).log()
    exact = gradient(lambda x: DIVERGENCES[name](x, log_q, **params).sum(), policy)

    def sampled(of: dict[str, Callable[..., Tensor]]) -> bool:
        weights = of[name](log_q - policy.log(), **params)
        return within_four_errors(lambda x, t: -(weights * x)[t], policy, policy, exact)

    assert sampled(ADVANTAGES)
    assert sampled(MINUS_F) == (name == "rkl")


def test_a_policy_gradient_with_a_baseline_over_the_top_ids_finds_the_exact_gradient() -> None:
    """The sampling test of vOPD (I4); the loss over the top ids alone must fail."""
    policy, log_q = distribution(14), distribution(15).log()
    everywhere = torch.ones(7, dtype=torch.bool)
    baseline = kl_topk(policy.log()[None], log_q[None], k=3).expand(7)
    weights = pg_advantages(log_q - policy.log(), lambda x: x, everywhere, torch.arange(7), 7, kl=baseline)
    chosen = policy.topk(3).indices

    def renormalised(x: Tensor, t: Tensor) -> Tensor:
        inside = x[chosen].log_softmax(0)
        loss = rkl(inside, log_q[chosen].log_softmax(0)).sum()
        return loss + 0.0 * x[t]

    exact = rkl_gradient(policy, log_q)
    assert within_four_errors(lambda x, t: -(weights * x)[t], policy, policy, exact)
    assert not within_four_errors(renormalised, policy, policy, exact)


@pytest.mark.parametrize("name", ["fkl", "rkl"])
def test_renormalised_top_k_is_another_objective(name: str) -> None:
    """I11, the broken variant of the sampling tests, exactly."""
    policy, log_q = distribution(10), distribution(11).log()
    terms = DIVERGENCES[name]
    exact = gradient(lambda x: full(x, log_q, terms), policy)
    other = gradient(lambda x: topk(x, log_q, terms, k=3, support="student", tail="renorm"), policy)

    assert not torch.allclose(other, exact, atol=1e-2)
