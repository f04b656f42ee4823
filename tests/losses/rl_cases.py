"""Batches of reward losses whose expectations are exact: as many tokens of each id as its probability says."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from losses_cases import POLICY, REFERENCE, SAMPLER
from torch import Tensor

from agentrl.losses.batch import SOURCES
from agentrl.losses.objective import LossBatch, LossOutput, count_tokens, objective
from agentrl.losses.whole import WholeBatch, whole_batch
from agentrl.recipes.recipe import Recipe
from agentrl.types import TrainingSample

OLD = {"name": "ratio", "denominator": "sampler"}
WIDE = {"limits": {"max_logprob_gap": 99.0}}


def recipe(**axes: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "x", "mix": "rl", "advantage": "raw", "offpolicy": OLD, "aggregate": "token_mean"}
        | WIDE
        | axes
    )


def counts(*numbers: int) -> list[tuple[int, ...]]:
    """Sequences of one token: so many of each id."""
    return [(index,) for index, number in enumerate(numbers) for _ in range(number)]


def batch_of(
    sequences: Sequence[tuple[int, ...]],
    rewards: Sequence[float],
    *,
    policy: Tensor = POLICY,
    reference: Tensor = REFERENCE,
    group: str | None = "g",
    source: str = "sampled",
) -> tuple[LossBatch, list[TrainingSample]]:
    """Every position has the same distributions; advantages are the rewards. fp64."""
    ids = torch.tensor([i for own in sequences for i in own])
    owner = torch.tensor([index for index, own in enumerate(sequences) for _ in own])
    number = ids.numel()
    rows = torch.tensor(rewards, dtype=torch.float64)[owner]
    eye = torch.eye(policy.numel(), dtype=torch.float64)
    batch = LossBatch(
        hidden=policy.log().expand(number, -1).clone().requires_grad_(),
        head=eye,
        token_ids=ids,
        sequence=owner,
        ref_hidden=reference.log().expand(number, -1).clone(),
        ref_head=eye,
        behavior_logprobs=SAMPLER.log()[ids] if policy.numel() == 3 else policy.log()[ids],
        advantages=rows,
        rewards=rows,
        source=torch.full((number,), SOURCES.index(source)),
    )
    samples = [
        TrainingSample(
            turn_ids=(str(index),),
            token_ids=(0, *own),
            loss_mask=(False, *[True] * len(own)),
            behavior_logprobs=None,
            num_allowed=None,
            teacher=None,
            advantages=None,
            group=group,
            reward=reward,
            source=source,
        )
        for index, (own, reward) in enumerate(zip(sequences, rewards, strict=True))
    ]
    return batch, samples


def looked(made: Recipe, batch: LossBatch, samples: list[TrainingSample]) -> WholeBatch:
    plain = replace(batch, hidden=batch.hidden.detach())
    slots = torch.arange(batch.token_ids.numel())
    return whole_batch(made, [(plain, slots)], samples, count_tokens(made, samples))


def run(made: Recipe, batch: LossBatch, samples: list[TrainingSample]) -> tuple[LossOutput, Tensor]:
    """The objective, and its gradient [N, V]."""
    of = count_tokens(made, samples)
    if made.whole_batch_options:
        seen = looked(made, batch, samples)
        of, batch = seen.denominators, replace(batch, shared=seen.shared, **seen.streams())
    output = objective(made, batch, of)
    (grad,) = torch.autograd.grad(output.loss, batch.hidden)
    return output, grad
