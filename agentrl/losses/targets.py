"""From a teacher's logits to the distribution that is learnt. Detached: no gradient reaches a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def q(teacher_logits: Tensor, policy: Tensor, reference: Tensor | None) -> Tensor:
    """log softmax(z_q): the teacher as it is.

    Args:
        teacher_logits: [..., V] of any floating type.
        policy, reference: not used.

    Returns:
        [..., V] fp32 log-probs.
    """
    del policy, reference
    return torch.log_softmax(_wide(teacher_logits).detach(), dim=-1)


def temper(teacher_logits: Tensor, policy: Tensor, reference: Tensor | None, *, temperature: float) -> Tensor:
    """log softmax(z_q / T): T below 1 sharpens, above 1 softens.

    Args:
        teacher_logits: [..., V] of any floating type.
        policy, reference: not used.
        temperature: above 0.

    Returns:
        [..., V] fp32 log-probs.
    """
    del policy, reference
    return torch.log_softmax(_wide(teacher_logits).detach() / temperature, dim=-1)


def extrap(teacher_logits: Tensor, policy: Tensor, reference: Tensor | None, *, coef: float) -> Tensor:
    """log softmax(λ·log q + (1−λ)·log π_0): beyond the teacher, away from what version 0 does without the context.

    ExOPD, arXiv 2602.12125, whose reference is the student's initial policy, as here. With q = π_0 it is q; where the
    context moves the teacher a little, the target moves further.

    Args:
        teacher_logits: [..., V] of any floating type.
        policy: not used.
        reference: [..., V] log-probs of version 0 on the plain prompt.
        coef: λ; 1 is q.

    Returns:
        [..., V] fp32 log-probs.

    Raises:
        ValueError: no reference.
    """
    del policy
    if reference is None:
        raise ValueError("target 'extrap' needs ref_hidden and ref_head")
    return _blend(reference, teacher_logits, coef)


def geo(teacher_logits: Tensor, policy: Tensor, reference: Tensor | None, *, a: float) -> Tensor:
    """log softmax((1−a)·log π_0 + a·log q): as far towards the teacher as a trust region around version 0 allows.

    The minimiser of (1−a)·KL(·‖π_0) + a·KL(·‖q). SDPO, arXiv 2601.20802, whose version 0 reads the teacher's
    context as well; here it reads the plain prompt. a = 1 is q.

    Args:
        teacher_logits: [..., V] of any floating type.
        policy: not used.
        reference: [..., V] log-probs of version 0 on the plain prompt.
        a: in [0, 1].

    Returns:
        [..., V] fp32 log-probs.

    Raises:
        ValueError: no reference.
    """
    del policy
    if reference is None:
        raise ValueError("target 'geo' needs ref_hidden and ref_head")
    return _blend(reference, teacher_logits, a)


def lerp(teacher_logits: Tensor, policy: Tensor, reference: Tensor | None, *, t: float) -> Tensor:
    """log softmax((1−t)·z_π + t·z_q): a target that starts at the policy and walks to the teacher.

    TAID, arXiv 2501.16937. t = 0 has no gradient, t = 1 is q; for rkl, ∇KL(π‖target) = t·∇KL(π‖q).

    Args:
        teacher_logits: [..., V] of any floating type.
        policy: [..., V] log-probs, detached here.
        reference: not used.
        t: in [0, 1].

    Returns:
        [..., V] fp32 log-probs.
    """
    del reference
    return _blend(policy, teacher_logits, t)


def veto(teacher_logits: Tensor, policy: Tensor, reference: Tensor | None, *, beta: float) -> Tensor:
    """log softmax(log q + β·log π): the teacher, but not where the policy itself would never go.

    Veto. β = 0 is q. The policy's factor also sharpens: where π = q the target is not π.

    Args:
        teacher_logits: [..., V] of any floating type.
        policy: [..., V] log-probs, detached here.
        reference: not used.
        beta: β, at least 0.

    Returns:
        [..., V] fp32 log-probs.
    """
    return torch.log_softmax(q(teacher_logits, policy, reference) + beta * policy.detach(), dim=-1)


def temper_entropy(
    teacher_logits: Tensor, policy: Tensor, reference: Tensor | None, *, gain: float
) -> Tensor:
    """log softmax(log q / T), T = 1 + gain·H(q)/ln V: softer where the teacher is unsure, as it is where it is certain.

    CurioSFT, arXiv 2602.02244, of the policy's own logits; the form of T(H) is chosen here, only that it grows with H
    is known.

    Args:
        teacher_logits: [..., V] of any floating type.
        policy, reference: not used.
        gain: how much a uniform teacher is tempered; 0 is q.

    Returns:
        [..., V] fp32 log-probs.
    """
    logprobs = q(teacher_logits, policy, reference)
    entropy = torch.special.entr(logprobs.exp()).sum(dim=-1, keepdim=True)
    return torch.log_softmax(logprobs / (1.0 + gain * entropy / math.log(logprobs.shape[-1])), dim=-1)


TARGETS: dict[str, Callable[..., Tensor]] = {
    "q": q,
    "temper": temper,
    "temper_entropy": temper_entropy,
    "extrap": extrap,
    "geo": geo,
    "lerp": lerp,
    "veto": veto,
}


def _blend(start: Tensor, teacher_logits: Tensor, share: float) -> Tensor:
    """log softmax((1−share)·start + share·log q), start log-probs."""
    teacher = q(teacher_logits, start, None)
    # An id that the teacher rules out has log q = -inf, and 0·(-inf) is nan: at the ends one side alone counts.
    if share == 0.0:
        return start.detach()
    return torch.log_softmax((1.0 - share) * start.detach() + share * teacher, dim=-1)


def _wide(logits: Tensor) -> Tensor:
    """At least fp32; fp64, which gradient checks use, stays."""
    return logits if logits.dtype == torch.float64 else logits.float()
