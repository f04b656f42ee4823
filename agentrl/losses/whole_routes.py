"""Routes that weigh whole sequences by the model's own log-probs: factors of mean 1 over what is compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from agentrl.losses.batch import RecipeLike
from agentrl.losses.masking import sequence_sum
from agentrl.losses.whole import WHOLE_BATCH, WholeBatch
from agentrl.losses.whole_sequences import compares_episodes


@compares_episodes
def ppl_softmax(
    batch: WholeBatch, recipe: RecipeLike, *, tau: float, within: Literal["group", "batch"]
) -> WholeBatch:
    """Reward losses times n·softmax(log PPL_π/τ), distillation times n·softmax(−log PPL_q/τ), over n episodes.

    SCOPE, arXiv 2604.10688: of what is right, what the policy finds unlikely teaches most; of what is wrong, what the
    teacher understands. PPL is e^{−mean log-prob} of an episode's trained ids. The subsets are the episodes that take a
    loss, in each group or in the batch: divided by n, the weights of a subset add up to 1.

    Args:
        batch: with teacher_logprob where something is distilled.
        recipe: not used.
        tau: τ above 0; large values make all weights 1.
        within: which episodes are compared.

    Returns:
        The batch with both scales multiplied.
    """
    del recipe
    subset = batch.members.group if within == "group" else torch.zeros_like(batch.members.group)
    own = _sequence_mean(batch, batch.out["logprob"], batch.rl)
    rl_scale = batch.rl_scale * _shares(-own / tau, subset, batch, batch.rl)
    kd_scale = batch.kd_scale
    if bool(batch.kd.any()):
        teachers = _sequence_mean(batch, batch.out["teacher_logprob"], batch.kd)
        kd_scale = kd_scale * _shares(teachers / tau, subset, batch, batch.kd)
    return replace(batch, rl_scale=rl_scale, kd_scale=kd_scale)


def _sequence_mean(batch: WholeBatch, values: Tensor, mask: Tensor) -> Tensor:
    """[S] mean over a sequence's positions in the mask; 0 where it has none."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    count = sequence_sum(mask.to(values.dtype), batch.sequence, batch.num_sequences)
    return sequence_sum(kept, batch.sequence, batch.num_sequences) / count.clamp(min=1.0)


def _shares(scores: Tensor, subset: Tensor, batch: WholeBatch, mask: Tensor) -> Tensor:
    """[N] n·softmax of [S] scores over the n sequences of each subset that have positions in the mask; elsewhere 1."""
    taken = sequence_sum(mask.to(scores.dtype), batch.sequence, batch.num_sequences) > 0
    weights = torch.ones_like(scores)
    for number in torch.unique(subset[taken]).tolist():
        rows = torch.nonzero(taken & (subset == number)).squeeze(-1)
        weights[rows] = rows.numel() * torch.softmax(scores[rows], dim=0)
    return weights[batch.sequence]


WHOLE_BATCH["ppl_softmax"] = ppl_softmax
