"""Policy-gradient losses with other trust regions than a clip of each id's ratio; `policy_gradient` has the signature.

    ρ_t = exp(log π(y_t) − log π_old(y_t))

Some look at more than single ids: at their sequences, at where a sequence comes from, or at numbers that hold for the
whole step (`agentrl.losses.whole_bounds`). They are in OVER_SEQUENCES and take a `Where`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from agentrl.losses.masking import sequence_sum
from agentrl.losses.policy_gradient import OFFPOLICY, Result, check, clipped, ratio_of, reinforce


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where the N positions stand."""

    sequence: Tensor
    """[N] int64 in 0..num_sequences-1."""
    num_sequences: int
    mask: Tensor
    """[N] bool: the positions that are trained."""
    foreign: Tensor
    """[N] bool: ids that were not sampled by the policy on the plain prompt."""
    shared: Mapping[str, float]
    """Numbers of the whole step."""


def ratio(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> Result:
    """−ρA, ρ differentiable: E_μ[∇] = −E_π[A g] for any sampler μ with full support, and of any variance.

    Args:
        logprobs, old_logprobs, advantages: [N].

    Returns:
        [N] loss, [N] bool (never clipped).
    """
    check(logprobs, old_logprobs, advantages)
    values = -ratio_of(logprobs, old_logprobs) * advantages.detach()
    return values, torch.zeros_like(logprobs, dtype=torch.bool)


def var_penalty(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, eta: float, delta: float
) -> Result:
    """−ρA + η·((ρ−1)² − δ), whose mean over μ is the surrogate with η·(Var_μ ρ − δ), as E_μρ = 1.

    R2VPO, arXiv 2601.03320. Var_μ ρ = χ²(π‖μ) ≈ 2·KL(π‖μ) near μ.

    Args:
        logprobs, old_logprobs, advantages: [N].
        eta: the multiplier η.
        delta: the bound δ on the variance.

    Returns:
        [N] loss, [N] bool (never clipped).
    """
    values, cut = ratio(logprobs, old_logprobs, advantages)
    deviation = ratio_of(logprobs, old_logprobs) - 1.0
    return values + eta * (deviation.square() - delta), cut


def kl_constraint(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    score: Literal["logprob", "ratio"],
    beta: float,
    delta: float,
) -> Result:
    """−A·log π(y) or −ρA; the constraint itself is a loss of the whole batch (`whole_bounds.kl_constraint`). DisCO.

    Args:
        logprobs, old_logprobs, advantages: [N].
        score: what is differentiated.
        beta, delta: of the constraint.

    Returns:
        [N] loss, [N] bool (never clipped).
    """
    del beta, delta
    return {"logprob": reinforce, "ratio": ratio}[score](logprobs, old_logprobs, advantages)


def clip_cov(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    frac: float,
    between: tuple[float, float],
    eps_low: float,
    eps_high: float,
) -> Result:
    """`clipped`; the tokens that train nothing are drawn in `whole_bounds.clip_cov`. arXiv 2505.22617.

    Args:
        logprobs, old_logprobs, advantages: [N].
        frac, between: of the draw.
        eps_low, eps_high: of the clip.

    Returns:
        [N] loss, [N] bool where the gradient is cut.
    """
    del frac, between
    return clipped(logprobs, old_logprobs, advantages, eps_low=eps_low, eps_high=eps_high)


def kl_cov(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, frac: float, coef: float) -> Result:
    """`ratio`; coef·|log ρ| on the chosen tokens comes from `whole_bounds.kl_cov`. arXiv 2505.22617.

    Args:
        logprobs, old_logprobs, advantages: [N].
        frac, coef: of the penalty.

    Returns:
        [N] loss, [N] bool (never clipped).
    """
    del frac, coef
    return ratio(logprobs, old_logprobs, advantages)


def sequence_clipped(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    where: Where,
    eps_low: float,
    eps_high: float,
) -> Result:
    """−min(s_i A, clip(s_i, 1−ε_l, 1+ε_h)·A) at every id of sequence i, s_i = exp(mean_t log ρ_t).

    GSPO, arXiv 2507.18071; under the aggregate seq_mean it is its objective.

    Args:
        logprobs, old_logprobs, advantages: [N].
        where: sequences and mask; a sequence must stand in the micro batch whole.
        eps_low, eps_high: the trust region below and above 1.

    Returns:
        [N] loss, [N] bool where the gradient is cut.
    """
    log_ratio = torch.where(where.mask, logprobs - old_logprobs.detach(), torch.zeros_like(logprobs))
    count = sequence_sum(where.mask.to(logprobs.dtype), where.sequence, where.num_sequences).clamp(min=1.0)
    mean = sequence_sum(log_ratio, where.sequence, where.num_sequences) / count
    zeros = torch.zeros_like(logprobs)
    return clipped(mean[where.sequence], zeros, advantages, eps_low=eps_low, eps_high=eps_high)


def square(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, where: Where, tau: float) -> Result:
    """(A − τ·Σ_t log ρ_t)² / (2τ) at every id of a sequence: policy mirror descent, without a clip.

    Kimi k1.5, arXiv 2501.12599, with A = R − mean R; at π = π_old its gradient is that of −A·Σ_t log π. It is 0 where
    π ∝ π_old·e^{A/τ}. Under the aggregate seq_mean each sequence counts once.

    Args:
        logprobs, old_logprobs, advantages: [N]; one advantage a sequence.
        where: sequences and mask; a sequence must stand in the micro batch whole.
        tau: τ, the weight of staying near π_old.

    Returns:
        [N] loss, [N] bool (never clipped).
    """
    check(logprobs, old_logprobs, advantages)
    log_ratio = torch.where(where.mask, logprobs - old_logprobs.detach(), torch.zeros_like(logprobs))
    total = sequence_sum(log_ratio, where.sequence, where.num_sequences)[where.sequence]
    values = (advantages.detach() - tau * total).square() / (2.0 * tau)
    return values, torch.zeros_like(logprobs, dtype=torch.bool)


def shape(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    where: Where,
    gamma: float,
    r: Literal["probability", "ratio"],
    eps_low: float,
    eps_high: float,
    dual_clip: float | None,
) -> Result:
    """−A·r/(r+γ) on foreign ids, `clipped` on the policy's own.

    LUFFY, arXiv 2504.14945; HeRL with γ = 1, AMPO, arXiv 2510.02227, with γ = .1. ∇ = −A·γr/(r+γ)²·g, largest at
    r = γ: ids that the policy would hardly say are learnt from too.

    Args:
        logprobs, old_logprobs, advantages: [N].
        where: which ids are foreign.
        gamma: γ.
        r: π(y), or ρ.
        eps_low, eps_high, dual_clip: of the clip.

    Returns:
        [N] loss, [N] bool where the gradient is cut.
    """
    values, cut = clipped(
        logprobs, old_logprobs, advantages, eps_low=eps_low, eps_high=eps_high, dual_clip=dual_clip
    )
    size = ratio_of(logprobs, old_logprobs if r == "ratio" else torch.zeros_like(logprobs))
    shaped = -advantages.detach() * size / (size + gamma)
    return torch.where(where.foreign, shaped, values), cut & ~where.foreign


def adaptive_clip(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    where: Where,
    share: float,
    low: tuple[float, float],
    high: tuple[float, float],
    step: float,
    dual_clip: float | None,
) -> Result:
    """`clipped` with the bounds that `whole_bounds.adaptive_clip` found for this batch. BAPO, arXiv 2510.18927.

    Args:
        logprobs, old_logprobs, advantages: [N].
        where: with shared clip_low and clip_high.
        share, low, high, step: of the search.
        dual_clip: of the clip.

    Returns:
        [N] loss, [N] bool where the gradient is cut.
    """
    del share, low, high, step
    eps_low, eps_high = 1.0 - where.shared["clip_low"], where.shared["clip_high"] - 1.0
    return clipped(
        logprobs, old_logprobs, advantages, eps_low=eps_low, eps_high=eps_high, dual_clip=dual_clip
    )


OVER_SEQUENCES = frozenset({"sequence", "square", "shape", "adaptive_clip"})

OFFPOLICY |= {
    "ratio": ratio,
    "var_penalty": var_penalty,
    "kl_constraint": kl_constraint,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
    "sequence": sequence_clipped,
    "square": square,
    "shape": shape,
    "adaptive_clip": adaptive_clip,
}
