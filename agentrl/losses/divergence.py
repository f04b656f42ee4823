"""Divergences between the policy π and a teacher q, as terms for each outcome and as advantages of one sampled outcome.

The terms of one position add up to the divergence, so an estimator may clip, select or bucket them. Shapes: [..., V],
where V is the vocabulary or the bins of a top-k estimator. All inputs are fp32 log-probs; q carries no gradient.
An outcome with q = 0 (log q = -inf) contributes what its limit says.

All but `rank` and `ce` are f-divergences: D = E_π[f(u)], u = q/π, with f

    fkl u·ln u      rkl −ln u      chi2 (u−1)²      alpha (u^a − a·u − 1 + a)/(a(a−1))
    jsd β·u·ln u − (βu+1−β)·ln(βu+1−β)

Then ∇D = −E_π[w_f·∇ log π] with w_f = u·f'(u) − f(u) (OPD+, arXiv 2606.01039). −f(u) alone, the reward that first
comes to mind, lacks the term by which f itself changes with π: it is right for rkl and for no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def fkl(policy_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Terms of KL(q‖π): q_v·(log q_v − log π_v). ∇ in the policy's logits is π − q.

    Args:
        policy_logprobs, teacher_logprobs: [..., V].

    Returns:
        [..., V].
    """
    _check(policy_logprobs, teacher_logprobs)
    return _weighted(teacher_logprobs, policy_logprobs)


def rkl(policy_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Terms of KL(π‖q): π_v·(log π_v − log q_v). ∇ in the policy's logits is π_v·(ℓ_v − KL), ℓ = log π − log q.

    Args:
        policy_logprobs, teacher_logprobs: [..., V].

    Returns:
        [..., V].
    """
    _check(policy_logprobs, teacher_logprobs)
    return _weighted(policy_logprobs, teacher_logprobs)


def jsd(policy_logprobs: Tensor, teacher_logprobs: Tensor, *, beta: float) -> Tensor:
    """Terms of β·KL(q‖m) + (1−β)·KL(π‖m), m = βq + (1−β)π.

    The formula is 0 at β = 0 and β = 1. As in GKD's reference code (arXiv 2306.13649) those two are defined as fkl and
    rkl, the limits of JSD_β/β and JSD_β/(1−β): the value jumps there.

    Args:
        policy_logprobs, teacher_logprobs: [..., V].
        beta: in [0, 1].

    Returns:
        [..., V].
    """
    _check(policy_logprobs, teacher_logprobs)
    if beta == 0.0:
        return fkl(policy_logprobs, teacher_logprobs)
    if beta == 1.0:
        return rkl(policy_logprobs, teacher_logprobs)
    middle = torch.logaddexp(teacher_logprobs + math.log(beta), policy_logprobs + math.log1p(-beta))
    return beta * _weighted(teacher_logprobs, middle) + (1.0 - beta) * _weighted(policy_logprobs, middle)


def chi2(policy_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Terms of χ²(q‖π): (q_v − π_v)²/π_v.

    Args:
        policy_logprobs, teacher_logprobs: [..., V].

    Returns:
        [..., V].
    """
    _check(policy_logprobs, teacher_logprobs)
    difference = teacher_logprobs.exp() - policy_logprobs.exp()
    # (q−π)·(u−1), not π·(u−1)²: u² overflows long before q·u does.
    return difference * torch.expm1(teacher_logprobs - policy_logprobs)


def alpha(policy_logprobs: Tensor, teacher_logprobs: Tensor, *, alpha: float) -> Tensor:
    """Terms of D_a: (q_v^a·π_v^{1−a} − a·q_v − (1−a)·π_v) / (a(a−1)); a = 0 and 1 are its limits rkl and fkl.

    Amari's family, as DPH-RL uses it: a = ½ is four times the squared Hellinger distance, a = 2 half of χ².

    Args:
        policy_logprobs, teacher_logprobs: [..., V].
        alpha: a in [0, 2].

    Returns:
        [..., V], none below 0 where 0 < a < 1.
    """
    _check(policy_logprobs, teacher_logprobs)
    if alpha == 0.0:
        return rkl(policy_logprobs, teacher_logprobs)
    if alpha == 1.0:
        return fkl(policy_logprobs, teacher_logprobs)
    blend = (alpha * teacher_logprobs + (1.0 - alpha) * policy_logprobs).exp()
    mean = alpha * teacher_logprobs.exp() + (1.0 - alpha) * policy_logprobs.exp()
    return (blend - mean) / (alpha * (alpha - 1.0))


def rank(policy_logprobs: Tensor, teacher_logprobs: Tensor, *, weighted: bool) -> Tensor:
    """Terms of −log P(teacher's order) under Plackett-Luce with the policy's scores: w_i·(lse_{j≥i}(s_j) − s_i).

    s are the policy's log-probs in the order of falling teacher probability; place i is drawn from what is left. It
    asks for the order, not for the teacher's probabilities, and goes on falling when the order is already right: not a
    divergence. PLD, arXiv 2506.12542, weighs a place by the teacher's probability of its id; TSD-KD, arXiv 2603.13260,
    does not, and its released code has the ids ranked so far in the place of those that are left.

    Args:
        policy_logprobs, teacher_logprobs: [..., B] of the listed ids; need not add up to 1.
        weighted: w_i = q of the id at place i; else 1.

    Returns:
        [..., B] by place, the last always 0.
    """
    _check(policy_logprobs, teacher_logprobs)
    order = teacher_logprobs.argsort(dim=-1, descending=True, stable=True)
    scores = policy_logprobs.gather(-1, order)
    terms = scores.flip(-1).logcumsumexp(dim=-1).flip(-1) - scores
    return terms * teacher_logprobs.gather(-1, order).exp() if weighted else terms


def fkl_advantage(log_u: Tensor) -> Tensor:
    """w = u = q/π: −E_π[w·∇ log π] = ∇KL(q‖π). OPD+, arXiv 2606.01039, w_f = u·f'(u) − f(u) with f = u·ln u.

    Args:
        log_u: [...] log q − log π of the sampled id.

    Returns:
        [...].
    """
    return log_u.exp()


def rkl_advantage(log_u: Tensor) -> Tensor:
    """w = ln u: −E_π[w·∇ log π] = ∇KL(π‖q). The constant −1 of w_f is left out: E_π[∇ log π] = 0.

    Args:
        log_u: [...] log q − log π of the sampled id.

    Returns:
        [...].
    """
    return log_u


def jsd_advantage(log_u: Tensor, *, beta: float) -> Tensor:
    """w = (1−β)·ln(βu + 1−β) = (1−β)·ln(m/π): −E_π[w·∇ log π] = ∇JSD_β. β = 0 and 1 are fkl and rkl.

    Args:
        log_u: [...] log q − log π of the sampled id.
        beta: in [0, 1].

    Returns:
        [...].
    """
    if beta == 0.0:
        return fkl_advantage(log_u)
    if beta == 1.0:
        return rkl_advantage(log_u)
    log_mixture = torch.logaddexp(log_u + math.log(beta), torch.full_like(log_u, math.log1p(-beta)))
    return (1.0 - beta) * log_mixture


def chi2_advantage(log_u: Tensor) -> Tensor:
    """w = u² − 1: −E_π[w·∇ log π] = ∇χ²(q‖π).

    Args:
        log_u: [...] log q − log π of the sampled id.

    Returns:
        [...].
    """
    return torch.expm1(2.0 * log_u)


def alpha_advantage(log_u: Tensor, *, alpha: float) -> Tensor:
    """w = (u^a − 1)/a, at a = 0 its limit ln u: −E_π[w·∇ log π] = ∇D_a.

    Args:
        log_u: [...] log q − log π of the sampled id.
        alpha: a in [0, 2].

    Returns:
        [...].
    """
    return rkl_advantage(log_u) if alpha == 0.0 else torch.expm1(alpha * log_u) / alpha


def fkl_minus_f(log_u: Tensor) -> Tensor:
    """−u·ln u; u = 0 gives 0. Args: log_u [...]. Returns: [...]."""
    return -_weighted(log_u, torch.zeros_like(log_u))


def rkl_minus_f(log_u: Tensor) -> Tensor:
    """ln u. Args: log_u [...]. Returns: [...]."""
    return log_u


def jsd_minus_f(log_u: Tensor, *, beta: float) -> Tensor:
    """(βu+1−β)·ln(βu+1−β) − β·u·ln u. Args: log_u [...]; beta in [0, 1]. Returns: [...]."""
    if beta == 0.0:
        return fkl_minus_f(log_u)
    if beta == 1.0:
        return rkl_minus_f(log_u)
    log_mixture = torch.logaddexp(log_u + math.log(beta), torch.full_like(log_u, math.log1p(-beta)))
    return log_mixture.exp() * log_mixture + beta * fkl_minus_f(log_u)


def chi2_minus_f(log_u: Tensor) -> Tensor:
    """−(u−1)². Args: log_u [...]. Returns: [...]."""
    return -torch.expm1(log_u).square()


def alpha_minus_f(log_u: Tensor, *, alpha: float) -> Tensor:
    """(a·u + 1 − a − u^a)/(a(a−1)). Args: log_u [...]; alpha a in [0, 2]. Returns: [...]."""
    if alpha == 0.0:
        return rkl_minus_f(log_u)
    if alpha == 1.0:
        return fkl_minus_f(log_u)
    return (alpha * torch.expm1(log_u) - torch.expm1(alpha * log_u)) / (alpha * (alpha - 1.0))


DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "fkl": fkl,
    "rkl": rkl,
    "jsd": jsd,
    "chi2": chi2,
    "alpha": alpha,
    "rank": rank,
}
"""Terms of single outcomes. `ce`, −log π of the id itself, compares no distributions and needs none."""
ADVANTAGES: dict[str, Callable[..., Tensor]] = {
    "fkl": fkl_advantage,
    "rkl": rkl_advantage,
    "jsd": jsd_advantage,
    "chi2": chi2_advantage,
    "alpha": alpha_advantage,
}
"""w_f of one sampled id, up to a constant."""
MINUS_F: dict[str, Callable[..., Tensor]] = {
    "fkl": fkl_minus_f,
    "rkl": rkl_minus_f,
    "jsd": jsd_minus_f,
    "chi2": chi2_minus_f,
    "alpha": alpha_minus_f,
}
"""−f(u) of one sampled id, for comparison with methods that use it as their reward."""


def _weighted(log_a: Tensor, log_b: Tensor) -> Tensor:
    """a·(log a − log b), 0 where a = 0."""
    possible = log_a > -torch.inf
    # Twice where: without the inner one the gradient of the branch not taken is 0 · inf = nan.
    finite = torch.where(possible, log_a, torch.zeros_like(log_a))
    other = torch.where(possible, log_b, torch.zeros_like(log_b))
    return torch.where(possible, finite.exp() * (finite - other), torch.zeros_like(log_a))


def _check(policy_logprobs: Tensor, teacher_logprobs: Tensor) -> None:
    if policy_logprobs.shape != teacher_logprobs.shape:
        raise ValueError(
            f"policy log-probs have shape {tuple(policy_logprobs.shape)}, the teacher's "
            f"{tuple(teacher_logprobs.shape)}"
        )
