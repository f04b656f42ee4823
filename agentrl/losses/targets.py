"""From a teacher's logits to the distribution that is learnt. Detached: no gradient reaches a teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def q(teacher_logits: Tensor) -> Tensor:
    """log softmax(z_q): the teacher as it is.

    Args:
        teacher_logits: [..., V] of any floating type.

    Returns:
        [..., V] fp32 log-probs.
    """
    return torch.log_softmax(_wide(teacher_logits).detach(), dim=-1)


def temper(teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """log softmax(z_q / T): T below 1 sharpens, above 1 softens.

    Args:
        teacher_logits: [..., V] of any floating type.
        temperature: above 0.

    Returns:
        [..., V] fp32 log-probs.
    """
    return torch.log_softmax(_wide(teacher_logits).detach() / temperature, dim=-1)


TARGETS: dict[str, Callable[..., Tensor]] = {"q": q, "temper": temper}


def _wide(logits: Tensor) -> Tensor:
    """At least fp32; fp64, which gradient checks use, stays."""
    return logits if logits.dtype == torch.float64 else logits.float()
