"""Weights of tokens within a sequence, from what the forward pass shows. They carry no gradient.

A weight never enters a denominator: denominators depend on masks alone, are known before the forward pass, and a batch
may be cut into micro batches between any two sequences. Weights that choose or share out (`gap`, `top_frac`,
`position`, `skip_first`) have mean 1 over a sequence's trained tokens, so that choosing makes no step smaller; those
that say how far a token is to be trusted (`cum_gap`, `sigmoid_entropy`, `sigmoid_gap`) are what their paper says. A
tool call is mostly wrapper that the policy is already certain of; `gap` and `top_frac` let the few tokens that matter
speak. What compares tokens of the whole batch stands in `agentrl.losses.whole_weights`.

Shapes: N positions; `sequence` [N] in 0..S-1; `mask` [N] marks trained positions; weights are 0 outside it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from agentrl.losses.masking import sequence_sum
from agentrl.losses.scores import Score, Scores, highest, known


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
    moved = known(scores.gap, "gap")
    raw = torch.where(mask, floor + (1.0 - floor) * moved, torch.zeros_like(moved))
    return _mean_one(raw, mask, sequence, num_sequences)


def top_frac(
    scores: Scores,
    mask: Tensor,
    sequence: Tensor,
    num_sequences: int,
    *,
    frac: float,
    score: Score,
    reference: str | None = None,
) -> Tensor:
    """w_t = n/k on the k = ⌈frac·n⌉ trained tokens of each sequence that score highest, else 0.

    TIP, arXiv 2604.14084, over the sequence where the paper ranks over the batch: micro batches then cannot matter
    and every sequence keeps some tokens. Of equal scores the earlier position goes first.

    Args:
        scores: with what `score` is made of.
        mask: [N] bool.
        sequence: [N] int64 in 0..num_sequences-1.
        frac: in (0, 1]; 1 gives every token weight 1.
        score: what is compared (`Scores.by`).
        reference: read by the learner, which then scores another version 0.

    Returns:
        [N].
    """
    del reference
    weights = torch.zeros_like(scores.entropy)
    for index in range(num_sequences):
        rows = torch.nonzero(mask & (sequence == index)).squeeze(-1)
        if rows.numel():
            weights[rows] = highest(scores.by(score, rows), frac)
    return weights


def cum_gap(scores: Scores, mask: Tensor, sequence: Tensor, num_sequences: int, *, gamma: float) -> Tensor:
    """w_t = 1 + γ·(1 − Σ_{s<t}|a_s| / Σ_s|a_s|), a = log q − log π of the sampled ids.

    IW-OPD, arXiv 2606.22600: behind ids on which both disagreed, the prefix is one that the teacher would not have
    come to, and what it says there is worth less. From 1 + γ at the first token down to 1.

    Args:
        scores: with log_u.
        mask: [N] bool.
        sequence: [N] int64 in 0..num_sequences-1, positions in the order of sampling.
        gamma: γ ≥ 0; 0 gives every token weight 1.

    Returns:
        [N] in [1, 1+γ].
    """
    distance = torch.where(mask, known(scores.log_u, "cum_gap").abs(), torch.zeros_like(scores.entropy))
    weights = torch.zeros_like(distance)
    for index in range(num_sequences):
        rows = torch.nonzero(mask & (sequence == index)).squeeze(-1)
        own = distance[rows]
        before = torch.cat([own.new_zeros(1), own.cumsum(0)])[: own.numel()]
        share = before / own.sum().clamp(min=torch.finfo(own.dtype).tiny)
        weights[rows] = 1.0 + gamma * (1.0 - share.clamp(max=1.0))
    return weights


def sigmoid_entropy(scores: Scores, mask: Tensor, sequence: Tensor, num_sequences: int) -> Tensor:
    """w = σ(H(π) − H(q)): tokens of which the teacher is surer than the policy. TSD-KD.

    Args:
        scores: with teacher_entropy.
        mask: [N] bool.
        sequence, num_sequences: not used.

    Returns:
        [N] in (0, 1).
    """
    del sequence, num_sequences
    entropy = known(scores.teacher_entropy, "sigmoid_entropy")
    return torch.where(mask, torch.sigmoid(scores.entropy - entropy), torch.zeros_like(entropy))


def sigmoid_gap(
    scores: Scores, mask: Tensor, sequence: Tensor, num_sequences: int, *, scale: float
) -> Tensor:
    """w = σ(scale·(log q − log π)) of the sampled id: believes the teacher where it approves, doubts where it rejects.

    SDAR, arXiv 2605.15155: a hindsight context rejects many ids for want of a reason of its own.

    Args:
        scores: with log_u.
        mask: [N] bool.
        sequence, num_sequences: not used.
        scale: steepness, above 0.

    Returns:
        [N] in (0, 1).
    """
    del sequence, num_sequences
    log_u = known(scores.log_u, "sigmoid_gap")
    return torch.where(mask, torch.sigmoid(scale * log_u), torch.zeros_like(log_u))


def position(scores: Scores, mask: Tensor, sequence: Tensor, num_sequences: int, *, early: float) -> Tensor:
    """w_t ∝ early at the first trained token, 1 at the last, in a straight line between; mean 1.

    CORD, arXiv 2601.16547, weighs early tokens higher; the line is chosen here, only the abstract was read.

    Args:
        scores: not used but for its number type.
        mask: [N] bool.
        sequence: [N] int64 in 0..num_sequences-1, positions in the order of sampling.
        early: how much the first token counts relative to the last, above 0.

    Returns:
        [N].
    """
    raw = torch.zeros_like(scores.entropy)
    for index in range(num_sequences):
        rows = torch.nonzero(mask & (sequence == index)).squeeze(-1)
        raw[rows] = torch.linspace(early, 1.0, rows.numel(), dtype=raw.dtype, device=raw.device)
    return _mean_one(raw, mask, sequence, num_sequences)


def skip_first(scores: Scores, mask: Tensor, sequence: Tensor, num_sequences: int, *, n: int) -> Tensor:
    """w = 0 on the first n trained tokens of each sequence, mean 1 over all.

    SDFT, arXiv 2601.19897: there the teacher still speaks of what it has been shown ("Based on the example, ...").

    Args:
        scores: not used but for its number type.
        mask: [N] bool.
        sequence: [N] int64 in 0..num_sequences-1, positions in the order of sampling.
        n: at least 0; a sequence that is not longer trains nothing.

    Returns:
        [N].
    """
    kept = torch.zeros_like(scores.entropy)
    for index in range(num_sequences):
        kept[torch.nonzero(mask & (sequence == index)).squeeze(-1)[n:]] = 1.0
    return _mean_one(kept, mask, sequence, num_sequences)


TOKEN_WEIGHTS: dict[str, Callable[..., Tensor]] = {
    "one": one,
    "gap": gap,
    "top_frac": top_frac,
    "cum_gap": cum_gap,
    "sigmoid_entropy": sigmoid_entropy,
    "sigmoid_gap": sigmoid_gap,
    "position": position,
    "skip_first": skip_first,
}


def _mean_one(raw: Tensor, mask: Tensor, sequence: Tensor, num_sequences: int) -> Tensor:
    """[N] raw, which is 0 outside the mask, scaled to mean 1 over each sequence's trained tokens."""
    total = sequence_sum(raw, sequence, num_sequences)
    count = sequence_sum(mask.to(raw.dtype), sequence, num_sequences)
    # A sequence without trained tokens has total 0 and weights 0.
    scale = count / total.clamp(min=torch.finfo(raw.dtype).tiny)
    return raw * scale[sequence]
