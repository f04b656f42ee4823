"""Sums and means over the tokens that count. The only place where a loss is divided by anything.

Shapes: N positions; `sequence` holds the index of each position's sequence, 0..S-1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Σ_t values_t over the positions where `mask` is true; 0 with a gradient path when there are none.

    Args:
        values: [N].
        mask: [N] bool.

    Returns:
        [] the sum.
    """
    _check(values, mask=mask)
    # where, not a product: 0 · inf is nan.
    return torch.where(mask, values, torch.zeros_like(values)).sum()


def sequence_sum(values: Tensor, sequence: Tensor, num_sequences: int) -> Tensor:
    """Σ_t values_t within each sequence.

    Args:
        values: [N].
        sequence: [N] int64 in 0..num_sequences-1.

    Returns:
        [S].
    """
    _check(values, sequence=sequence)
    return values.new_zeros(num_sequences).index_add(0, sequence, values)


def token_mean(
    values: Tensor,
    weights: Tensor,
    mask: Tensor,
    sequence: Tensor,
    num_sequences: int,
    *,
    tokens: int,
    sequences: int,
) -> Tensor:
    """(1/tokens)·Σ_t w_t·v_t, `tokens` counted over the whole batch.

    DAPO, arXiv 2503.14476, eq. 8.

    Args:
        values, weights: [N].
        mask: [N] bool, the component's tokens.
        sequence, num_sequences, sequences: not used; every aggregate has the same signature.
        tokens: trained tokens of the whole batch.

    Returns:
        [] this micro batch's share of the mean.
    """
    del sequence, num_sequences, sequences
    return masked_sum(values * weights, mask) / max(tokens, 1)


def seq_mean(
    values: Tensor,
    weights: Tensor,
    mask: Tensor,
    sequence: Tensor,
    num_sequences: int,
    *,
    tokens: int,
    sequences: int,
) -> Tensor:
    """(1/sequences)·Σ_i (1/n_i)·Σ_t w_t·v_t, n_i the trained tokens of sequence i.

    GRPO, arXiv 2402.03300, eq. 3. A sequence must stand in the micro batch whole.

    Args:
        values, weights: [N].
        mask: [N] bool, the component's tokens; a weight of 0 does not make a sequence shorter.
        sequence: [N] int64 in 0..num_sequences-1.
        tokens: not used; every aggregate has the same signature.
        sequences: sequences of the whole batch with at least one trained token.

    Returns:
        [] this micro batch's share of the mean.
    """
    del tokens
    length = sequence_sum(mask.to(values.dtype), sequence, num_sequences).clamp(min=1.0)
    return masked_sum(values * weights / length[sequence], mask) / max(sequences, 1)


JOINT: Final = frozenset({"routed_token_mean"})
"""Aggregates whose `tokens` and `sequences` are those of every component together, not of one."""


def sum_const(
    values: Tensor,
    weights: Tensor,
    mask: Tensor,
    sequence: Tensor,
    num_sequences: int,
    *,
    tokens: int,
    sequences: int,
    budget: int,
) -> Tensor:
    """(1/budget)·Σ_t w_t·v_t, the same budget at every step.

    Dr. GRPO, arXiv 2503.20783; C3PO's fixed token budget: no token weighs more because its sequence or batch is short.

    Args:
        values, weights: [N].
        mask: [N] bool, the component's tokens.
        sequence, num_sequences, tokens, sequences: not used; every aggregate has the same signature.
        budget: tokens that a step is meant to hold.

    Returns:
        [] this micro batch's share of the sum.
    """
    del sequence, num_sequences, tokens, sequences
    return masked_sum(values * weights, mask) / budget


AGGREGATES: dict[str, Callable[..., Tensor]] = {
    "token_mean": token_mean,
    "routed_token_mean": token_mean,
    "seq_mean": seq_mean,
    "sum_const": sum_const,
}


def _check(values: Tensor, **others: Tensor) -> None:
    for name, other in others.items():
        if other.shape != values.shape or values.ndim != 1:
            raise ValueError(f"{name} has shape {tuple(other.shape)} for values of {tuple(values.shape)}")
