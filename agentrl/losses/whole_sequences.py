"""Sequences and groups of a whole batch, as the functions of `whole_rl` and `whole_bounds` look at them. Shapes: N
positions of S sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agentrl.losses.batch import RecipeLike
from agentrl.losses.masking import AGGREGATES, sequence_sum
from agentrl.losses.whole import WholeBatch


def old_logprobs(batch: WholeBatch, params: dict[str, Any]) -> Tensor:
    return batch.behavior_logprobs if params.get("denominator") == "sampler" else batch.out["logprob"]


def judged_sequences(batch: WholeBatch) -> Tensor:
    """[S] bool: with a reward and tokens that it trains."""
    trained = torch.zeros(batch.num_sequences, dtype=torch.bool, device=batch.sequence.device)
    trained[batch.sequence[batch.rl]] = True
    return trained & ~batch.members.reward.isnan()


def right_sequences(batch: WholeBatch, threshold: float) -> Tensor:
    """[S] bool."""
    return judged_sequences(batch) & (batch.members.reward >= threshold)


def groups(batch: WholeBatch, among: Tensor) -> list[Tensor]:
    """Indices of the sequences of each group, those that are True in `among` [S]."""
    own = batch.members.group
    found = [torch.nonzero(among & (own == number)).squeeze(-1) for number in torch.unique(own)]
    return [members for members in found if members.numel()]


def rows_of(batch: WholeBatch) -> list[Tensor]:
    """Positions with reward of each sequence, in their order."""
    return [
        torch.nonzero(batch.rl & (batch.sequence == index)).squeeze(-1)
        for index in range(batch.num_sequences)
    ]


def sequence_mean(batch: WholeBatch, values: Tensor) -> Tensor:
    """[S] mean over the tokens with reward; 0 without any."""
    total = sequence_sum(torch.where(batch.rl, values, 0.0), batch.sequence, batch.num_sequences)
    count = sequence_sum(batch.rl.to(total.dtype), batch.sequence, batch.num_sequences)
    return total / count.clamp(min=1.0)


def reward_mean(batch: WholeBatch, recipe: RecipeLike, values: Tensor) -> Tensor:
    """[] as the recipe's aggregate divides the reward's loss."""
    return AGGREGATES[recipe.aggregate.name](
        values, torch.ones_like(values), batch.rl, batch.sequence, batch.num_sequences,
        tokens=batch.denominators.rl_tokens, sequences=batch.denominators.rl_sequences, **recipe.aggregate.params,
    )  # fmt: skip


def standardised(values: Tensor, eps: float) -> Tensor:
    """(v − mean)/(population std + eps); 0 where all are equal."""
    if bool(values.max() == values.min()):
        return torch.zeros_like(values)
    return (values - values.mean()) / (values.std(correction=0) + eps)
