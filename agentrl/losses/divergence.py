"""Divergences between the policy π and a teacher q, as terms for each outcome and as advantages of one sampled outcome.

The terms of one position add up to the divergence, so an estimator may clip, select or bucket them. Shapes: [..., V],
where V is the vocabulary or the bins of a top-k estimator. All inputs are fp32 log-probs; q carries no gradient.
An outcome with q = 0 (log q = -inf) contributes what its limit says.
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


DIVERGENCES: dict[str, Callable[..., Tensor]] = {"fkl": fkl, "rkl": rkl, "jsd": jsd}
ADVANTAGES: dict[str, Callable[..., Tensor]] = {
    "fkl": fkl_advantage,
    "rkl": rkl_advantage,
    "jsd": jsd_advantage,
}


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
