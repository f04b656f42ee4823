"""Policy-gradient losses of single sampled ids. Advantages and old log-probs carry no gradient.

    ρ_t = exp(log π(y_t) − log π_old(y_t))

`old_logprobs` are raw log-probs, as π's are; whose they are (the sampler's or the trainer's) is the recipe's word.
Each function returns the loss of every position and where its clip acts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Beyond e^±20 a ratio says only that the sample is useless; exp would overflow long before the hard bound is seen."""

Result = tuple[Tensor, Tensor]


def reinforce(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> Result:
    """−A·log π(y). Williams 1992. Right only when π itself has sampled.

    Args:
        logprobs, old_logprobs, advantages: [N]; old_logprobs is not used.

    Returns:
        [N] loss, [N] bool (never clipped).
    """
    check(logprobs, old_logprobs, advantages)
    return -advantages.detach() * logprobs, torch.zeros_like(logprobs, dtype=torch.bool)


def clipped(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    eps_low: float,
    eps_high: float,
    dual_clip: float | None = None,
) -> Result:
    """−min(ρA, clip(ρ, 1−ε_l, 1+ε_h)·A); with dual clip c and A < 0: −max(that min, cA).

    PPO, arXiv 1707.06347, eq. 7; ε_h > ε_l is DAPO's clip-higher, arXiv 2503.14476; dual clip arXiv 1912.09729, eq. 5.

    Args:
        logprobs, old_logprobs, advantages: [N].
        eps_low, eps_high: the trust region below and above 1.
        dual_clip: bound on ρ where A < 0.

    Returns:
        [N] loss, [N] bool where the gradient is cut.
    """
    check(logprobs, old_logprobs, advantages)
    advantage = advantages.detach()
    ratio = ratio_of(logprobs, old_logprobs)
    free = ratio * advantage
    bound = ratio.clamp(1.0 - eps_low, 1.0 + eps_high) * advantage
    surrogate = torch.minimum(free, bound)
    cut = bound < free
    if dual_clip is not None:
        floor = dual_clip * advantage
        cut = cut | ((advantage < 0) & (floor > surrogate))
        surrogate = torch.where(advantage < 0, torch.maximum(surrogate, floor), surrogate)
    return -surrogate, cut


def truncated(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, cap: float) -> Result:
    """−min(ρ, cap)·A·log π(y) with ρ detached: truncated importance sampling (Ionides 2008).

    Args:
        logprobs, old_logprobs, advantages: [N].
        cap: largest weight.

    Returns:
        [N] loss, [N] bool where the cap acts.
    """
    check(logprobs, old_logprobs, advantages)
    ratio = ratio_of(logprobs, old_logprobs).detach()
    return -ratio.clamp(max=cap) * advantages.detach() * logprobs, ratio > cap


def anchored(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    teacher_logprobs: Tensor,
    alpha: float,
    eps_low: float,
    eps_high: float,
    dual_clip: float | None = None,
) -> Result:
    """`clipped` with log r = α·log(π/π_old) + (1−α)·log(π/q). TRRD of RLAD, arXiv 2602.22495.

    By this formula α = 1 is PPO and α = 0 holds the policy to the teacher alone; the paper's prose has them the other
    way round. At π = π_old the ratio is (π_old/q)^{1−α} rather than 1, so the clip acts from the first step on: an id
    that the policy likes more than the teacher is not reinforced, one that the teacher likes more is not punished.

    Args:
        logprobs, old_logprobs, advantages: [N].
        teacher_logprobs: [N] log q of the sampled ids.
        alpha: in [0, 1].
        eps_low, eps_high, dual_clip: as of `clipped`.

    Returns:
        [N] loss, [N] bool where the gradient is cut.
    """
    anchor = alpha * old_logprobs.detach() + (1.0 - alpha) * teacher_logprobs.detach()
    return clipped(logprobs, anchor, advantages, eps_low=eps_low, eps_high=eps_high, dual_clip=dual_clip)


def capped_ratio(logprobs: Tensor, old_logprobs: Tensor, *, cap: float) -> Tensor:
    """min(ρ, cap), detached: a weight of a divergence over the vocabulary. SDPO, arXiv 2601.20802.

    It corrects nothing: at a fixed prefix E_μ[ρ] = 1, and the divergence there needs no correction; the prefix, which
    does, gets none. It bounds what a token counts that an older policy sampled.

    Args:
        logprobs, old_logprobs: [N].
        cap: largest weight.

    Returns:
        [N].
    """
    return ratio_of(logprobs, old_logprobs).detach().clamp(max=cap)


DENSE_WEIGHTS: dict[str, Callable[..., Tensor]] = {"is_clip": capped_ratio}
"""Corrections of divergences over the vocabulary."""
OFFPOLICY: dict[str, Callable[..., Result]] = {
    "none": reinforce,
    "ppo": clipped,
    "tis": truncated,
    "anchor": anchored,
}


def ratio_of(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """[N] ρ, within e^±20."""
    return (logprobs - old_logprobs.detach()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def check(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> None:
    """Raises ValueError when the streams are not of one length."""
    if not logprobs.shape == old_logprobs.shape == advantages.shape or logprobs.ndim != 1:
        raise ValueError(
            f"log-probs {tuple(logprobs.shape)}, old log-probs {tuple(old_logprobs.shape)} and advantages "
            f"{tuple(advantages.shape)} must be one stream length"
        )
