"""Targets, baselines and credit over a sequence. Identities of the algebra: I4, I8, I9, I19, I20, I23."""

import math

import pytest
import torch
from losses_cases import POLICY, REFERENCE, SAMPLER, TEACHER, distribution, expected, gradient
from torch import Tensor

from agentrl.losses.divergence import fkl, jsd, rkl
from agentrl.losses.estimators import kl_topk, pg_advantages, topk
from agentrl.losses.policy_gradient import truncated
from agentrl.losses.targets import extrap, geo, lerp, temper_entropy, veto

LOG_P, LOG_Q, LOG_0 = POLICY.log(), TEACHER.log(), REFERENCE.log()


def advantages(log_u: Tensor, **options: object) -> Tensor:
    """Of the V outcomes of one position, each as a sequence of one token; rkl."""
    vocab = log_u.numel()
    everywhere = torch.ones(vocab, dtype=torch.bool)
    return pg_advantages(log_u, lambda x: x, everywhere, torch.arange(vocab), vocab, **options)


def second_moment(policy: Tensor, advantage: Tensor) -> float:
    """E_π[‖g‖²·A²], g = e_v − π."""
    scores = torch.eye(policy.numel(), dtype=torch.float64) - policy
    return (policy * scores.square().sum(1) * advantage.square()).sum().item()


# I4: the baseline of vOPD


def test_the_kl_as_baseline_centres_the_advantage_and_keeps_the_gradient() -> None:
    """I4 on fixture F: RKL = .515682."""
    kl = rkl(LOG_P, LOG_Q).sum()
    plain, centred = advantages(LOG_Q - LOG_P), advantages(LOG_Q - LOG_P, kl=kl.expand(3))

    assert (POLICY * centred).sum().item() == pytest.approx(0.0, abs=1e-12)
    assert (POLICY * plain.square()).sum().item() == pytest.approx(1.472161, abs=1e-6)
    assert (POLICY * centred.square()).sum().item() == pytest.approx(1.206234, abs=1e-6)
    exact = torch.tensor([0.546878, -0.362649, -0.184229], dtype=torch.float64)
    for weights in (plain, centred):
        grad = gradient(lambda x, w=weights: expected(POLICY, -w * x), POLICY)
        torch.testing.assert_close(grad, exact, atol=1e-6, rtol=0)


def test_the_baseline_raises_the_gradients_second_moment_on_fixture_f() -> None:
    """I4: it falls if and only if b* ≤ −RKL/2; here b* = −.1034."""
    plain, centred = (
        advantages(LOG_Q - LOG_P),
        advantages(LOG_Q - LOG_P, kl=rkl(LOG_P, LOG_Q).sum().expand(3)),
    )
    norms = (torch.eye(3, dtype=torch.float64) - POLICY).square().sum(1)
    best = (POLICY * norms * plain).sum() / (POLICY * norms).sum()

    assert best.item() == pytest.approx(-0.1034, abs=1e-4)
    assert second_moment(POLICY, plain) == pytest.approx(0.6368, abs=1e-4)
    assert second_moment(POLICY, centred) == pytest.approx(0.7355, abs=1e-4)


def test_the_baseline_lowers_the_gradients_second_moment_over_large_vocabularies() -> None:
    """I4: 1,000 ids, a teacher that is the policy with noise of two nats on its logits."""
    ratios = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(1000, generator=generator, dtype=torch.float64)
        noise = 2.0 * torch.randn(1000, generator=generator, dtype=torch.float64)
        log_p, log_q = logits.log_softmax(0), (logits + noise).log_softmax(0)
        plain = advantages(log_q - log_p)
        centred = advantages(log_q - log_p, kl=rkl(log_p, log_q).sum().expand(1000))
        ratios.append(second_moment(log_p.exp(), centred) / second_moment(log_p.exp(), plain))

    assert sum(ratio < 1 for ratio in ratios) >= 18
    assert sum(ratios) / 20 < 0.75


def test_a_baseline_over_the_top_ids_is_unbiased_and_a_loss_over_them_is_not() -> None:
    """I4."""
    policy, log_q = distribution(3), distribution(4).log()
    exact = gradient(lambda x: rkl(x, log_q).sum(), policy)
    few = kl_topk(policy.log()[None], log_q[None], k=3)
    chosen = policy.topk(3).indices
    inside, outside = policy[chosen] / policy[chosen].sum(), log_q[chosen].exp() / log_q[chosen].exp().sum()

    centred = advantages(log_q - policy.log(), kl=few.expand(7))
    broken = gradient(lambda x: topk(x, log_q, rkl, k=3, support="student", tail="renorm"), policy)

    assert few.item() == pytest.approx((inside * (inside / outside).log()).sum().item(), abs=1e-12)
    torch.testing.assert_close(
        gradient(lambda x: expected(policy, -centred * x), policy), exact, atol=1e-12, rtol=0
    )
    assert not torch.allclose(broken, exact, atol=1e-2)


def test_clips_and_floors_bound_the_advantage_of_one_token() -> None:
    log_u = torch.tensor([-9.0, -1.0, 8.0], dtype=torch.float64)

    assert advantages(log_u, ratio_clip=6.0).tolist() == [-6.0, -1.0, 6.0]
    assert advantages(log_u, reward_floor=-2.5).tolist() == [-2.5, -1.0, 8.0]
    assert advantages(log_u).tolist() == [-9.0, -1.0, 8.0]


# I20: two steps of three ids; every node of the tree has a policy and a teacher of its own

FIRST = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
SECOND = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)
FIRST_Q = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
SECOND_Q = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5]], dtype=torch.float64)
KL_SECOND = (SECOND * (SECOND / SECOND_Q).log()).sum(1)
"""KL of the second step behind each first id."""
KL_FIRST = (FIRST * (FIRST / FIRST_Q).log()).sum()


def tree_gradient(**options: object) -> tuple[Tensor, Tensor]:
    """The policy gradient over all nine sequences, each as often as the policy samples it: in the logits of the first
    step [3] and of the second [3, 3]. With single_step a position's own term is its divergence."""
    z1, z2 = FIRST.log().requires_grad_(), SECOND.log().requires_grad_()
    log_1, log_2 = z1.log_softmax(0), z2.log_softmax(1)
    pairs = [(i, j) for i in range(3) for j in range(3)]
    logprobs = torch.stack([x for i, j in pairs for x in (log_1[i], log_2[i, j])])
    teacher = torch.stack([x for i, j in pairs for x in (FIRST_Q.log()[i], SECOND_Q.log()[i, j])])
    often = torch.stack([FIRST[i] * SECOND[i, j] for i, j in pairs]).repeat_interleave(2)
    sequence = torch.arange(9).repeat_interleave(2)
    weights = pg_advantages(
        teacher - logprobs.detach(), lambda x: x, torch.ones(18, dtype=torch.bool), sequence, 9, **options
    )
    loss = -(often * weights * logprobs).sum()
    if options.get("single_step"):
        own = torch.stack([(log_1.exp() * (log_1 - FIRST_Q.log())).sum()] * 9)
        later = (log_2.exp() * (log_2 - SECOND_Q.log())).sum(1).repeat_interleave(3)
        loss = loss + (often.view(9, 2)[:, 0] * (own + later)).sum()
    first, second = torch.autograd.grad(loss, (z1, z2))
    return first, second


def sequence_gradient() -> tuple[Tensor, Tensor]:
    """Of the KL between whole sequences, Σ_ij p_i·p_ij·(ℓ_i + ℓ_ij)."""
    z1, z2 = FIRST.log().requires_grad_(), SECOND.log().requires_grad_()
    log_1, log_2 = z1.log_softmax(0), z2.log_softmax(1)
    joint, other = log_1[:, None] + log_2, FIRST_Q.log()[:, None] + SECOND_Q.log()
    first, second = torch.autograd.grad((joint.exp() * (joint - other)).sum(), (z1, z2))
    return first, second


def token_gradient() -> tuple[Tensor, Tensor]:
    """Of each position's KL with the prefixes as they are sampled."""
    z1, z2 = FIRST.log().requires_grad_(), SECOND.log().requires_grad_()
    log_1, log_2 = z1.log_softmax(0), z2.log_softmax(1)
    loss = (log_1.exp() * (log_1 - FIRST_Q.log())).sum()
    loss = loss + (FIRST * (log_2.exp() * (log_2 - SECOND_Q.log())).sum(1)).sum()
    first, second = torch.autograd.grad(loss, (z1, z2))
    return first, second


def same(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-12, rtol=0) for a, b in zip(left, right, strict=True))


def test_credit_for_all_later_tokens_is_the_gradient_of_the_sequences_kl() -> None:
    """I20: γ = 1 gives ∇KL of sequences, γ = 0 the mean of the positions' gradients, with the term of the position
    itself sampled or exact."""
    assert same(tree_gradient(gamma=1.0), sequence_gradient())
    assert same(tree_gradient(gamma=1.0, single_step=True), sequence_gradient())
    assert same(tree_gradient(gamma=0.0), token_gradient())
    assert same(tree_gradient(gamma=0.0, single_step=True), token_gradient())
    assert not same(tree_gradient(gamma=0.0), sequence_gradient())


def test_the_two_differ_by_the_credit_of_the_prefix() -> None:
    """I20: p_i·(KL_i − Σp·KL) in the first step's logits; half of it with γ = ½."""
    credit = FIRST * (KL_SECOND - (FIRST * KL_SECOND).sum())
    (whole, _), (token, _) = sequence_gradient(), token_gradient()
    (half, _) = tree_gradient(gamma=0.5)

    torch.testing.assert_close(whole - token, credit, atol=1e-12, rtol=0)
    torch.testing.assert_close(half - token, 0.5 * credit, atol=1e-12, rtol=0)


def test_a_baseline_keeps_the_credit_of_later_tokens() -> None:
    """The broken variant, every later term centred by the KL of its own state, loses the credit altogether."""
    pairs = [(i, j) for i in range(3) for j in range(3)]
    kl = torch.stack([x for i, _ in pairs for x in (KL_FIRST, KL_SECOND[i])])
    assert same(tree_gradient(gamma=1.0, kl=kl), sequence_gradient())

    log_1 = FIRST.log().requires_grad_()
    centred = torch.stack([(SECOND_Q / SECOND).log()[i, j] + KL_SECOND[i] for i, j in pairs])
    often = torch.stack([FIRST[i] * SECOND[i, j] for i, j in pairs])
    first = torch.stack([log_1.log_softmax(0)[i] for i, _ in pairs])
    (broken,) = torch.autograd.grad(-(often * centred * first).sum(), log_1)
    torch.testing.assert_close(broken, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_sum_over_later_tokens_stays_within_its_sequence_and_skips_what_is_not_trained() -> None:
    rewards = torch.tensor([1.0, 2.0, 50.0, 4.0, 8.0, 16.0, 32.0]).double()
    trained = torch.tensor([True, True, False, True, True, True, True])
    sequence = torch.tensor([0, 0, 0, 0, 1, 1, 1])

    def sums(**options: object) -> list[float]:
        return pg_advantages(rewards, lambda x: x, trained, sequence, 2, **options).tolist()

    assert sums(gamma=1.0) == [7, 6, 0, 4, 56, 48, 32]
    assert sums(gamma=0.5) == [3, 4, 0, 4, 24, 32, 32]
    assert sums(gamma=1.0, length_norm=True) == [7 / 3, 3, 0, 4, 56 / 3, 24, 32]
    assert sums(gamma=1.0, single_step=True) == [6, 4, 0, 0, 48, 32, 0]
    assert sums(gamma=1.0, single_step=True, length_norm=True) == [3, 4, 0, 0, 24, 32, 0]
    assert sums(single_step=True) == [0] * 7


def test_a_long_sum_is_that_of_the_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(301, generator=generator, dtype=torch.float64)
    everywhere = torch.ones(301, dtype=torch.bool)
    by_hand, total = [], 0.0
    for reward in reversed(rewards.tolist()):
        total = reward + 0.9 * total
        by_hand.append(total)

    found = pg_advantages(rewards, lambda x: x, everywhere, torch.zeros(301, dtype=torch.long), 1, gamma=0.9)

    assert found.tolist() == pytest.approx(by_hand[::-1], abs=1e-12)


# I8, I9, I19: targets


def test_the_extrapolated_target_of_fixture_f() -> None:
    """I8: λ = 1.25 against π_0; λ = 1 is the teacher, λ = 0 the reference."""
    assert extrap(LOG_Q, LOG_P, LOG_0, coef=1.25).exp().tolist() == pytest.approx(
        [0.053895, 0.666061, 0.280044], abs=1e-6
    )
    assert extrap(LOG_Q, LOG_P, LOG_0, coef=1.0).exp().tolist() == pytest.approx(TEACHER.tolist())
    assert extrap(LOG_Q, LOG_P, LOG_0, coef=0.0).exp().tolist() == pytest.approx(REFERENCE.tolist())


@pytest.mark.parametrize("coef", [0.5, 1.0, 1.25, 1.5])
def test_g_opds_advantage_has_the_gradient_of_the_extrapolated_target(coef: float) -> None:
    """I8: A = −[(log π − log q) + (λ−1)(log π_0 − log q)]; without its second part the gradient is another one."""
    advantage = -((LOG_P - LOG_Q) + (coef - 1) * (LOG_0 - LOG_Q))
    target = extrap(LOG_Q, LOG_P, LOG_0, coef=coef)
    exact = gradient(lambda x: rkl(x, target).sum(), POLICY)

    torch.testing.assert_close(
        gradient(lambda x: expected(POLICY, -advantage * x), POLICY), exact, atol=1e-12, rtol=0
    )
    broken = gradient(lambda x: expected(POLICY, -(LOG_Q - LOG_P) * x), POLICY)
    assert torch.allclose(broken, exact, atol=1e-3) == (coef == 1.0)
    there = target.exp()
    torch.testing.assert_close(
        gradient(lambda x: rkl(x, target).sum(), there), torch.zeros(3).double(), atol=1e-12, rtol=0
    )


def test_the_trust_region_of_fixture_f() -> None:
    """I9 with the teacher as the anchor and the policy as what moves, a = .05; 0 and 1 are the two."""
    assert geo(LOG_P, LOG_P, LOG_Q, a=0.05).exp().tolist() == pytest.approx(
        [0.110375, 0.590233, 0.299392], abs=1e-6
    )
    assert geo(LOG_P, LOG_P, LOG_Q, a=0.0).exp().tolist() == pytest.approx(TEACHER.tolist())
    assert geo(LOG_P, LOG_P, LOG_Q, a=1.0).exp().tolist() == pytest.approx(POLICY.tolist())


@pytest.mark.parametrize("a", [0.05, 0.5, 0.8])
def test_the_trust_region_is_nearest_to_both_and_a_mean_of_probabilities_is_not(a: float) -> None:
    """I9: the minimiser of (1−a)·KL(·‖π_0) + a·KL(·‖q)."""

    def slope(at: Tensor) -> Tensor:
        return gradient(lambda x: (1 - a) * rkl(x, LOG_0).sum() + a * rkl(x, LOG_Q).sum(), at)

    zero = torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(slope(geo(LOG_Q, LOG_P, LOG_0, a=a).exp()), zero, atol=1e-12, rtol=0)
    assert slope((1 - a) * REFERENCE + a * TEACHER).abs().max() > 1e-3


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 1.5])
def test_a_target_anchored_at_the_policy_scales_the_gradient_of_reverse_kl(share: float) -> None:
    """I9: t ∝ q^λ·sg(π)^{1−λ}: ∇KL(π‖t) = λ·∇KL(π‖q), beyond the teacher as well; with the anchor not detached it
    would be another gradient."""
    target = lerp(LOG_Q, LOG_P, None, t=share)
    exact = gradient(lambda x: rkl(x, LOG_Q).sum(), POLICY)
    torch.testing.assert_close(
        gradient(lambda x: rkl(x, target).sum(), POLICY), share * exact, atol=1e-12, rtol=0
    )

    def attached(x: Tensor) -> Tensor:
        return rkl(x, torch.log_softmax((1 - share) * x + share * LOG_Q, dim=-1)).sum()

    assert torch.allclose(gradient(attached, POLICY), share * exact, atol=1e-3) == (share in (0.0, 1.0))


def test_a_target_at_the_policy_teaches_nothing_and_at_the_teacher_everything() -> None:
    """I19."""
    start, end = lerp(LOG_Q, LOG_P, None, t=0.0), lerp(LOG_Q, LOG_P, None, t=1.0)
    for terms in (fkl, rkl, lambda x, y: jsd(x, y, beta=0.5)):
        grad = gradient(lambda x, f=terms: f(x, start).sum(), POLICY)
        torch.testing.assert_close(grad, torch.zeros(3, dtype=torch.float64), atol=1e-15, rtol=0)
    torch.testing.assert_close(
        gradient(lambda x: fkl(x, end).sum(), POLICY), POLICY - TEACHER, atol=1e-15, rtol=0
    )
    half = lerp(LOG_Q, LOG_P, None, t=0.5).exp()
    by_hand = (POLICY * TEACHER).sqrt() / (POLICY * TEACHER).sqrt().sum()
    torch.testing.assert_close(half, by_hand)


def test_no_gradient_reaches_the_policy_through_a_target() -> None:
    live = LOG_P.clone().requires_grad_()
    for target in (
        lerp(LOG_Q, live, None, t=0.4),
        lerp(LOG_Q, live, None, t=0.0),
        veto(LOG_Q, live, None, beta=0.5),
    ):
        assert not target.requires_grad


def test_an_id_that_the_teacher_rules_out_stays_ruled_out_unless_the_target_is_the_policy() -> None:
    log_q = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()

    assert lerp(log_q, LOG_P, None, t=0.0).exp().tolist() == pytest.approx(POLICY.tolist())
    assert lerp(log_q, LOG_P, None, t=0.5).exp()[2].item() == 0.0
    assert torch.isfinite(veto(log_q, LOG_P, None, beta=0.5)[:2]).all()


def test_a_veto_takes_mass_from_what_the_policy_would_not_do() -> None:
    """q·√π on fixture F: .070711, .328634, .134164."""
    assert veto(LOG_Q, LOG_P, None, beta=0.5).exp().tolist() == pytest.approx(
        [0.132540, 0.615985, 0.251475], abs=1e-6
    )
    assert veto(LOG_Q, LOG_P, None, beta=0.0).exp().tolist() == pytest.approx(TEACHER.tolist())


def test_a_target_tempered_by_entropy_is_softer_where_the_teacher_is_unsure() -> None:
    """H(q) = .897946 of ln 3 = 1.098612, so T = 1.817346."""
    share = 1 / 1.817346
    raised = [value**share for value in (0.1, 0.6, 0.3)]
    by_hand = [value / sum(raised) for value in raised]
    assert temper_entropy(LOG_Q, LOG_P, None, gain=1.0).exp().tolist() == pytest.approx(by_hand, abs=1e-6)

    sure = torch.tensor([1e-9, 1.0, 1e-9], dtype=torch.float64).log()
    assert temper_entropy(sure, LOG_P, None, gain=5.0).exp()[1].item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("target", "params"), [(extrap, {"coef": 1.25}), (geo, {"a": 0.5})])
def test_a_target_around_version_zero_says_what_it_misses(target, params: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="ref_hidden"):
        target(LOG_Q, LOG_P, None, **params)


# I23


def test_a_truncated_ratio_has_mean_one_only_while_the_cap_does_not_act() -> None:
    """I23: on fixture F no π/μ passes 2; with μ = (.2, .4, .4) the first is 2.5 and .1 is missing."""

    def mean_weight(sampler: Tensor, cap: float) -> float:
        loss, _ = truncated(LOG_P, sampler.log(), torch.ones(3, dtype=torch.float64), cap=cap)
        return (sampler * (loss / -LOG_P)).sum().item()

    other = torch.tensor([0.2, 0.4, 0.4], dtype=torch.float64)
    assert mean_weight(SAMPLER, 2.0) == pytest.approx(1.0, abs=1e-12)
    assert mean_weight(other, math.inf) == pytest.approx(1.0, abs=1e-12)
    assert mean_weight(other, 2.0) == pytest.approx(0.9, abs=1e-12)
