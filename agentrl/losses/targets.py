"""From a teacher's logits to the distribution that is learnt. Detached: no gradient reaches a teacher."""

from __future__ import annotations

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
    return torch.log_softmax(
        coef * q(teacher_logits, reference, None) + (1 - coef) * reference.detach(), dim=-1
    )


TARGETS: dict[str, Callable[..., Tensor]] = {"q": q, "temper": temper, "extrap": extrap}


def _wide(logits: Tensor) -> Tensor:
    """At least fp32; fp64, which gradient checks use, stays."""
    return logits if logits.dtype == torch.float64 else logits.float()
