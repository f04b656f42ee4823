"""Divergences against exact sums over the vocabulary. Identities of the algebra: I1, I5, I6."""

import math

import pytest
import torch
from losses_cases import POLICY, TEACHER, distribution, expected, gradient

from agentrl.losses.divergence import ADVANTAGES, DIVERGENCES, MINUS_F, alpha, chi2, fkl, jsd, rank, rkl

LOG_P, LOG_Q = POLICY.log(), TEACHER.log()
OPTIONS = [
    ("fkl", {}),
    ("rkl", {}),
    *(("jsd", {"beta": beta}) for beta in (0.0, 0.1, 0.5, 0.9, 1.0)),
    ("chi2", {}),
    *(("alpha", {"alpha": alpha}) for alpha in (0.0, 0.2, 0.5, 1.0, 2.0)),
]


def test_the_golden_values_of_fixture_f() -> None:
    """I1, I6."""
    assert rkl(LOG_P, LOG_Q).sum().item() == pytest.approx(0.515682, abs=1e-6)
    assert fkl(LOG_P, LOG_Q).sum().item() == pytest.approx(0.376584, abs=1e-6)
    for beta, value in ((0.1, 0.034316), (0.5, 0.103295), (0.9, 0.043531)):
        assert jsd(LOG_P, LOG_Q, beta=beta).sum().item() == pytest.approx(value, abs=1e-6)


def test_the_golden_gradients_of_fixture_f() -> None:
    """I1: ∇FKL = π − q, ∇RKL = π(ℓ − RKL)."""
    grad = gradient(lambda log_p: rkl(log_p, LOG_Q).sum(), POLICY)
    torch.testing.assert_close(
        grad, torch.tensor([0.546878, -0.362649, -0.184229]).double(), atol=1e-6, rtol=0
    )
    grad = gradient(lambda log_p: fkl(log_p, LOG_Q).sum(), POLICY)
    torch.testing.assert_close(grad, torch.tensor([0.4, -0.3, -0.1], dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("name", "params"), OPTIONS)
def test_gradients_agree_with_finite_differences(name: str, params: dict[str, float]) -> None:
    log_q = distribution(1).log()
    logits = distribution(2).log().requires_grad_()

    def value(z: torch.Tensor) -> torch.Tensor:
        return DIVERGENCES[name](torch.log_softmax(z, dim=-1), log_q, **params).sum()

    assert torch.autograd.gradcheck(value, (logits,))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "params"), OPTIONS)
def test_the_advantage_of_a_divergence_has_its_gradient(
    name: str, params: dict[str, float], seed: int
) -> None:
    """I5: ∇D = −E_π[w·∇ log π]."""
    policy, log_q = distribution(seed), distribution(seed + 50).log()
    exact = gradient(lambda log_p: DIVERGENCES[name](log_p, log_q, **params).sum(), policy)

    advantage = ADVANTAGES[name](log_q - policy.log(), **params)
    sampled = gradient(lambda log_p: expected(policy, -advantage * log_p), policy)

    torch.testing.assert_close(sampled, exact, atol=1e-10, rtol=0)


def test_the_golden_advantages_of_fixture_f() -> None:
    """I5; the constant −1 of RKL's weight is left out, which changes no gradient."""
    log_u = LOG_Q - LOG_P
    goldens = {
        ("fkl", ()): (0.2, 2.0, 1.5),
        ("rkl", ()): (-2.609438 + 1, -0.306853 + 1, -0.594535 + 1),
        ("jsd", (("beta", 0.5),)): (-0.255413, 0.202733, 0.111572),
        ("chi2", ()): (0.2**2 - 1, 2.0**2 - 1, 1.5**2 - 1),
        ("alpha", (("alpha", 0.5),)): tuple(2 * (u**0.5 - 1) for u in (0.2, 2.0, 1.5)),
    }
    for (name, params), golden in goldens.items():
        assert ADVANTAGES[name](log_u, **dict(params)).tolist() == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize(("name", "params"), OPTIONS)
def test_a_divergence_is_the_mean_of_f_under_the_policy(name: str, params: dict[str, float]) -> None:
    """I5: Σ π·f(q/π)."""
    mean = -(POLICY * MINUS_F[name](LOG_Q - LOG_P, **params)).sum()

    assert mean.item() == pytest.approx(DIVERGENCES[name](LOG_P, LOG_Q, **params).sum().item(), abs=1e-12)


@pytest.mark.parametrize(("name", "params"), OPTIONS)
def test_minus_f_as_advantage_is_right_for_reverse_kl_alone(name: str, params: dict[str, float]) -> None:
    """I5, the broken variant: −f(u), without u·f'(u)."""
    exact = gradient(lambda log_p: DIVERGENCES[name](log_p, LOG_Q, **params).sum(), POLICY)
    broken = MINUS_F[name](LOG_Q - LOG_P, **params)
    sampled = gradient(lambda log_p: expected(POLICY, -broken * log_p), POLICY)

    is_rkl = name == "rkl" or params.get("beta") == 1.0 or params.get("alpha") == 0.0
    assert torch.allclose(sampled, exact, atol=1e-2) == is_rkl


def test_the_values_of_chi_square_and_of_the_alpha_family_on_fixture_f() -> None:
    """.4²/.5 + .3²/.3 + .1²/.2; 4·(1 − Σ√(qπ)); half of χ² at a = 2."""
    assert chi2(LOG_P, LOG_Q).sum().item() == pytest.approx(0.67, abs=1e-12)
    hellinger = 4 * (1 - (0.05**0.5 + 0.18**0.5 + 0.06**0.5))
    assert alpha(LOG_P, LOG_Q, alpha=0.5).sum().item() == pytest.approx(hellinger, abs=1e-12)
    assert alpha(LOG_P, LOG_Q, alpha=2.0).sum().item() == pytest.approx(0.335, abs=1e-12)


def test_the_alpha_family_tends_to_both_kls_at_its_ends() -> None:
    for end, near, other in ((0.0, 1e-6, rkl), (1.0, 1.0 - 1e-6, fkl)):
        value = alpha(LOG_P, LOG_Q, alpha=near).sum().item()
        assert alpha(LOG_P, LOG_Q, alpha=end).sum().item() == other(LOG_P, LOG_Q).sum().item()
        assert value == pytest.approx(other(LOG_P, LOG_Q).sum().item(), abs=1e-5)


def test_a_list_is_drawn_place_by_place_from_what_is_left() -> None:
    """The teacher's order is 1, 2, 0; the policy draws it with .3 · .2/.7 · 1."""
    terms = rank(LOG_P, LOG_Q, weighted=False)
    assert terms.tolist() == pytest.approx([-math.log(0.3), -math.log(0.2 / 0.7), 0.0], abs=1e-12)

    shifted = rank(LOG_P + 5.0, LOG_Q - 3.0, weighted=False)
    assert shifted.tolist() == pytest.approx(terms.tolist(), abs=1e-12)
    by_teacher = [0.6 * -math.log(0.3), 0.3 * -math.log(0.2 / 0.7), 0.0]
    assert rank(LOG_P, LOG_Q, weighted=True).tolist() == pytest.approx(by_teacher, abs=1e-12)
    orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    likely = 0.0
    for order in orders:
        teacher = torch.zeros(3, dtype=torch.float64)
        teacher[order] = torch.tensor([0.0, -1.0, -2.0], dtype=torch.float64)
        likely += rank(LOG_P, teacher, weighted=False).sum().neg().exp().item()
    assert likely == pytest.approx(1.0, abs=1e-12)


def test_a_list_loss_sees_the_teachers_order_and_nothing_else() -> None:
    flat = torch.tensor([0.3, 0.36, 0.34], dtype=torch.float64).log()
    assert rank(LOG_P, flat, weighted=False).tolist() == rank(LOG_P, LOG_Q, weighted=False).tolist()

    logits = distribution(2).log().requires_grad_()
    other = distribution(1).log()
    assert torch.autograd.gradcheck(
        lambda z: rank(torch.log_softmax(z, dim=-1), other, weighted=True).sum(), (logits,)
    )


def test_jsd_over_beta_tends_to_forward_and_over_one_minus_beta_to_reverse_kl() -> None:
    """I6."""
    tiny = 1e-7
    assert jsd(LOG_P, LOG_Q, beta=tiny).sum() / tiny == pytest.approx(
        fkl(LOG_P, LOG_Q).sum().item(), abs=1e-5
    )
    assert jsd(LOG_P, LOG_Q, beta=1 - tiny).sum() / tiny == pytest.approx(
        rkl(LOG_P, LOG_Q).sum().item(), abs=1e-5
    )


def test_jsd_at_zero_and_one_is_forward_and_reverse_kl() -> None:
    """I6: the special cases, discontinuous by definition."""
    torch.testing.assert_close(jsd(LOG_P, LOG_Q, beta=0.0), fkl(LOG_P, LOG_Q))
    torch.testing.assert_close(jsd(LOG_P, LOG_Q, beta=1.0), rkl(LOG_P, LOG_Q))


def test_jsd_at_one_half_is_symmetric_and_at_most_ln_2() -> None:
    """I6."""
    forth, back = jsd(LOG_P, LOG_Q, beta=0.5).sum(), jsd(LOG_Q, LOG_P, beta=0.5).sum()
    assert forth.item() == pytest.approx(back.item(), abs=1e-15)

    apart = torch.tensor([[0.0, -60.0], [-60.0, 0.0]], dtype=torch.float64)
    assert jsd(apart[0], apart[1], beta=0.5).sum().item() == pytest.approx(math.log(2), abs=1e-9)


@pytest.mark.parametrize(("name", "params"), OPTIONS)
def test_equal_distributions_have_no_divergence_and_no_gradient(name: str, params: dict[str, float]) -> None:
    terms = DIVERGENCES[name](LOG_P, LOG_P, **params)
    assert terms.sum().item() == pytest.approx(0.0, abs=1e-14)
    grad = gradient(lambda log_p: DIVERGENCES[name](log_p, LOG_P, **params).sum(), POLICY)
    torch.testing.assert_close(grad, torch.zeros(3, dtype=torch.float64), atol=1e-14, rtol=0)


def test_an_outcome_that_the_teacher_rules_out_costs_forward_kl_nothing_and_reverse_kl_everything() -> None:
    log_q = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()

    assert fkl(LOG_P, log_q)[2].item() == 0.0
    assert rkl(LOG_P, log_q)[2].item() == math.inf
    assert torch.isfinite(gradient(lambda log_p: fkl(log_p, log_q).sum(), POLICY)).all()
    assert torch.isfinite(gradient(lambda log_p: jsd(log_p, log_q, beta=0.5).sum(), POLICY)).all()
    assert chi2(LOG_P, log_q)[2].item() == pytest.approx(0.2)
    assert alpha(LOG_P, log_q, alpha=0.5)[2].item() == pytest.approx(0.4)
    for terms in (chi2, lambda x, y: alpha(x, y, alpha=0.5), lambda x, y: rank(x, y, weighted=True)):
        assert torch.isfinite(gradient(lambda log_p, f=terms: f(log_p, log_q).sum(), POLICY)).all()
    for name, params in OPTIONS:
        values = torch.stack(
            [ADVANTAGES[name](log_q - LOG_P, **params), MINUS_F[name](log_q - LOG_P, **params)]
        )
        assert not torch.isnan(values).any()


def test_shapes_that_differ_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        fkl(LOG_P, LOG_Q[:2])
