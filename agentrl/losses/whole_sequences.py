"""Sequences, episodes and groups of a whole batch, as the functions of `whole_rl`, `whole_bounds` and `whole_routes`
look at them. Shapes: N positions of S sequences."""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from agentrl.losses.batch import RecipeLike
from agentrl.losses.masking import AGGREGATES, sequence_sum
from agentrl.losses.whole import Members, Stage, WholeBatch


def by_episode(batch: WholeBatch) -> WholeBatch:
    """The batch with its E episodes in the place of its sequences: an answer is all that the policy said in one.

    Positions stay where they are; group and reward are those of an episode's first sequence, which its turns share.
    """
    members = batch.members
    count = int(members.episode.max()) + 1 if members.episode.numel() else 0
    index = torch.arange(batch.num_sequences, device=members.episode.device)
    first = index.new_full((count,), batch.num_sequences).scatter_reduce(0, members.episode, index, "amin")
    of_episodes = Members(
        group=members.group[first],
        reward=members.reward[first],
        pair=members.pair[first],
        preferred=members.preferred[first],
        episode=index[:count],
    )
    return replace(batch, sequence=members.episode[batch.sequence], num_sequences=count, members=of_episodes)


def compares_episodes(stage: Stage) -> Stage:
    """The stage of a method that compares whole answers: it sees episodes where the batch has sequences."""

    @wraps(stage)
    def seen(batch: WholeBatch, recipe: RecipeLike, **params: Any) -> WholeBatch:
        changed = stage(by_episode(batch), recipe, **params)
        return replace(
            changed, sequence=batch.sequence, num_sequences=batch.num_sequences, members=batch.members
        )

    return seen


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


def rows_of(batch: WholeBatch, mask: Tensor) -> list[Tensor]:
    """Positions of each sequence where `mask` [N] is true, in their order: turn by turn."""
    order = torch.argsort(batch.turn_index, stable=True)
    return [order[(mask & (batch.sequence == index))[order]] for index in range(batch.num_sequences)]


def last_positions(batch: WholeBatch) -> Tensor:
    """[N] bool: the last trained position of each sequence."""
    last = torch.zeros_like(batch.either)
    last[[int(rows[-1]) for rows in rows_of(batch, batch.either) if rows.numel()]] = True
    return last


def sequence_mean(batch: WholeBatch, values: Tensor) -> Tensor:
    """[S] mean over the tokens with reward; 0 without any."""
    total = sequence_sum(torch.where(batch.rl, values, 0.0), batch.sequence, batch.num_sequences)
    return total / trained_lengths(batch).to(total.dtype).clamp(min=1.0)


def trained_lengths(batch: WholeBatch) -> Tensor:
    """[S] tokens with reward."""
    return sequence_sum(batch.rl.to(batch.advantages.dtype), batch.sequence, batch.num_sequences)


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
