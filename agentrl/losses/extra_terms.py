"""Second terms beside a recipe's divergence, as regularisers: the order of a list, certainty, hard tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from agentrl.losses.batch import LossBatch
from agentrl.losses.positions import Positions
from agentrl.losses.scores import Scores
from agentrl.losses.token_weights import top_frac


def rank_order(batch: LossBatch, positions: Positions, *, coef: float, k: int, prefix: float) -> Tensor:
    """−log P(the teacher's order of the policy's k likeliest ids) where a sequence begins, of mean weight 1.

    TSD-KD, arXiv 2603.13260: a sequence begins as long as less than the share `prefix` of its entropy lies behind, at
    least with its first token.

    Args:
        batch: not used.
        positions: with rank.
        coef, k: applied by the caller and by the feature.
        prefix: in (0, 1]; 1 is the whole sequence.

    Returns:
        [N].
    """
    del batch, coef, k
    values = positions.out["rank"]
    entropy = positions.out["entropy"].detach()
    weights = torch.zeros_like(values)
    for index in range(positions.num_sequences):
        rows = torch.nonzero(positions.kd & (positions.sequence == index)).squeeze(-1)
        own = entropy[rows]
        begins = own.cumsum(0) - own < prefix * own.sum()
        begins[:1] = True
        weights[rows] = begins.to(weights.dtype) * rows.numel() / max(int(begins.sum()), 1)
    return values * weights


def certainty(batch: LossBatch, positions: Positions, *, coef: float, frac: float) -> Tensor:
    """H(π) on the share `frac` of each sequence's tokens where it is highest: makes the policy decide.

    TSD-KD, arXiv 2603.13260.

    Args:
        batch: not used.
        positions: with live_entropy.
        coef: applied by the caller.
        frac: in (0, 1].

    Returns:
        [N], the chosen tokens times n/k.
    """
    del batch, coef
    scores = Scores(entropy=positions.out["entropy"].detach())
    weights = top_frac(
        scores, positions.either, positions.sequence, positions.num_sequences, frac=frac, score="entropy"
    )
    return positions.out["live_entropy"] * weights


def hard_tokens(batch: LossBatch, positions: Positions, *, coef: float) -> Tensor:
    """−log π of the samples' own ids: plain imitation beside what is distilled.

    Args:
        batch: not used.
        positions: any.
        coef: applied by the caller.

    Returns:
        [N].
    """
    del batch, coef
    return -positions.out["logprob"]
