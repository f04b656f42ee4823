"""Weights of tokens within a sequence, from what the forward pass shows. They carry no gradient.

All have mean 1 over a sequence's trained tokens. Because of that the denominators of a loss depend on masks alone:
they are known before the forward pass, and a batch may be cut into micro batches between any two sequences. A tool
call is mostly wrapper that the policy is already certain of; `gap` and `top_frac` let the few tokens that matter speak.

Shapes: N positions; `sequence` [N] in 0..S-1; `mask` [N] marks trained positions; weights are 0 outside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from agentrl.losses.masking import sequence_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a weight may look at, each [N] without gradient; None where it was not computed."""

    entropy: Tensor
    """H(π), nats."""
    gap: Tensor | None = None
    """½Σ_v|q_v − π_v|, the share of probability that the teacher moves; in [0, 1]."""
    kl: Tensor | None = None
    """KL(π‖q), nats."""


def one(scores: Scores, mask: Tensor, sequence: Tensor, num_sequences: int) -> Tensor:
    """w = 1.

    Args:
        scores: not used.
        mask: [N] bool.
        sequence, num_sequences: not used.

    Returns:
        [N].
    """
    del sequence, num_sequences
    return mask.to(scores.entropy.dtype)


def gap(scores: Scores, mask: Tensor, sequence: Tensor, num_sequences: int, *, floor: float) -> Tensor:
    """w_t = r_t / mean(r), r_t = floor + (1 − floor)·½Σ_v|q_v − π_v|.

    Args:
        scores: with gap.
        mask: [N] bool.
        sequence: [N] int64 in 0..num_sequences-1.
        floor: weight of a token on which both agree, relative to one on which they share nothing.

    Returns:
        [N].
    """
    assert scores.gap is not None, "gap needs the teacher's whole distribution"
    raw = torch.where(mask, floor + (1.0 - floor) * scores.gap, torch.zeros_like(scores.gap))
    total = sequence_sum(raw, sequence, num_sequences)
    count = sequence_sum(mask.to(raw.dtype), sequence, num_sequences)
    # A sequence without trained tokens has total 0 and weights 0.
    scale = count / total.clamp(min=torch.finfo(raw.dtype).tiny)
    return raw * scale[sequence]


def top_frac(
    scores: Scores,
    mask: Tensor,
    sequence: Tensor,
    num_sequences: int,
    *,
    frac: float,
    score: Literal["entropy", "kl", "soft_or"],
) -> Tensor:
    """w_t = n/k on the k = ⌈frac·n⌉ trained tokens of each sequence that score highest, else 0.

    TIP, arXiv 2604.14084. soft_or is ĥ + δ̂ − ĥδ̂ with entropy ĥ and KL(π‖q) δ̂ scaled to [0, 1] between the least
    and largest value of the sequence (a constant stream scales to 0). TIP scales over the batch; over the sequence,
    micro batches cannot matter. Of equal scores the earlier position goes first.

    Args:
        scores: with kl, unless `score` is "entropy".
        mask: [N] bool.
        sequence: [N] int64 in 0..num_sequences-1.
        frac: in (0, 1]; 1 gives every token weight 1.
        score: what is compared.

    Returns:
        [N].
    """
    weights = torch.zeros_like(scores.entropy)
    for index in range(num_sequences):
        rows = torch.nonzero(mask & (sequence == index)).squeeze(-1)
        count = rows.numel()
        if count == 0:
            continue
        keep = math.ceil(frac * count)
        order = torch.argsort(_score(scores, rows, score), descending=True, stable=True)
        weights[rows[order[:keep]]] = count / keep
    return weights


TOKEN_WEIGHTS: dict[str, Callable[..., Tensor]] = {"one": one, "gap": gap, "top_frac": top_frac}


def soft_or(entropy: Tensor, kl: Tensor) -> Tensor:
    """ĥ + δ̂ − ĥδ̂ of two streams scaled to [0, 1]; at least the larger of both, at most 1.

    Args:
        entropy, kl: [n] of one sequence, n ≥ 1.

    Returns:
        [n] in [0, 1].
    """
    h, d = _scaled(entropy), _scaled(kl)
    return h + d - h * d


def _score(scores: Scores, rows: Tensor, score: str) -> Tensor:
    if score == "entropy":
        return scores.entropy[rows]
    assert scores.kl is not None, f"{score} needs the teacher's whole distribution"
    if score == "kl":
        return scores.kl[rows]
    return soft_or(scores.entropy[rows], scores.kl[rows])


def _scaled(values: Tensor) -> Tensor:
    low, high = values.min(), values.max()
    width = high - low
    return torch.where(width > 0, (values - low) / width.clamp(min=torch.finfo(values.dtype).tiny), 0.0)
