"""Fixture F of the algebra as a batch: what a preset's loss is on it, through the whole objective.

Vocabulary 3; at every position the policy is π = (.5, .3, .2), the teacher q = (.1, .6, .3), the sampler μ = (.4, .4,
.2) and version 0 π_0 = (.6, .2, .2). A test enumerates the loss from these numbers and the paper's formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agentrl.errors import ConfigError
from agentrl.losses.batch import SOURCES
from agentrl.losses.objective import LossBatch, LossOutput, count_tokens, objective
from agentrl.losses.whole import whole_batch
from agentrl.recipes import credit, routes
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.types import SampleSource, TeacherView, TrainingSample

PI = (0.5, 0.3, 0.2)
Q = (0.1, 0.6, 0.3)
MU = (0.4, 0.4, 0.2)
PI_0 = (0.6, 0.2, 0.2)
Distribution = Sequence[float] | Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One sampled reply: its ids in {0, 1, 2}, and what is known of it."""

    ids: tuple[int, ...]
    reward: float | None = None
    has_context: bool = True
    group: str | None = None
    pair: str | None = None
    preferred: bool = False
    source: SampleSource = "sampled"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnF:
    """What the objective gave."""

    loss: float
    gradient: Tensor
    """[N, 3] in the policy's logits, positions in the order of the sequences."""
    output: LossOutput
    teacher_gradient: Tensor | None = None
    """[N, 3] in the teacher's logits; None where none reaches them."""


def samples_of(recipe: Recipe, sequences: Sequence[Sampled]) -> list[TrainingSample]:
    """The samples as the builder makes them: advantages by group, route weights, one prompt id before each reply."""
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(sequences):
        groups.setdefault(item.group if item.group is not None else f"alone {index}", []).append(index)
    advantage: dict[int, float | None] = {}
    known: dict[int, tuple[float, ...]] = {}
    for members in groups.values():
        judged = tuple(
            reward for reward in (sequences[index].reward for index in members) if reward is not None
        )
        known |= dict.fromkeys(members, judged)
        values = credit.advantages(recipe.advantage, [sequences[index].reward for index in members])
        advantage |= dict(zip(members, values, strict=True))
    samples = []
    for index, item in enumerate(sequences):
        length = 1 + len(item.ids)
        case = routes.Case(
            has_context=item.has_context,
            advantage=advantage[index],
            reward=item.reward,
            own_reward=item.reward,
            group_rewards=known[index],
        )
        route = routes.weights(recipe, case)
        own = advantage[index] or 0.0
        samples.append(
            TrainingSample(
                turn_ids=(str(index),),
                token_ids=(0, *item.ids),
                loss_mask=(False, *(True for _ in item.ids)),
                behavior_logprobs=(0.0, *(math.log(MU[i]) for i in item.ids)),
                num_allowed=(0, *(3 for _ in item.ids)),
                teacher=TeacherView(token_ids=(0, *item.ids), inserted_spans=())
                if item.has_context
                else None,
                advantages=(0.0, *(own for _ in item.ids)) if recipe.uses_rl else None,
                weights={"kd": (route.kd,) * length, "rl": (route.rl,) * length},
                group=item.group,
                reward=item.reward,
                pair=item.pair,
                preferred=item.preferred,
                source="held" if route.held else item.source,
            )
        )
    return samples


def on_f(
    recipe: Recipe,
    sequences: Sequence[Sampled],
    *,
    policy: Distribution = PI,
    teacher: Distribution = Q,
    reference: Distribution = PI_0,
) -> OnF:
    """The recipe's loss and its gradient on these sequences, in fp64, as one batch.

    A distribution holds for all positions, or there is one for each.
    """
    samples = samples_of(recipe, sequences)
    return on_f_samples(recipe, samples, policy=policy, teacher=teacher, reference=reference)


def on_f_samples(
    recipe: Recipe,
    samples: Sequence[TrainingSample],
    *,
    policy: Distribution = PI,
    teacher: Distribution = Q,
    reference: Distribution = PI_0,
) -> OnF:
    """As `on_f`, for samples that a test has made itself."""
    ids = torch.tensor([i for sample in samples for i in sample.token_ids[1:]])
    number = ids.numel()
    owner = torch.tensor([index for index, sample in enumerate(samples) for _ in sample.token_ids[1:]])

    def logits(probabilities: Distribution) -> Tensor:
        return torch.tensor(probabilities, dtype=torch.float64).log().expand(number, 3).clone()

    def stream(name: str) -> Tensor | None:
        values = [
            (getattr(sample, name) if hasattr(sample, name) else sample.weights[name]) for sample in samples
        ]
        if any(value is None for value in values):
            return None
        return torch.tensor([v for value in values for v in value[1:]], dtype=torch.float64)

    eye = torch.eye(3, dtype=torch.float64)
    hidden = logits(policy).requires_grad_()
    asked = logits(teacher).requires_grad_()
    batch = LossBatch(
        hidden=hidden,
        head=eye,
        token_ids=ids,
        sequence=owner,
        teacher_hidden=asked if recipe.uses_kd else None,
        teacher_head=eye if recipe.uses_kd else None,
        ref_hidden=logits(reference),
        ref_head=eye,
        behavior_logprobs=stream("behavior_logprobs"),
        advantages=stream("advantages"),
        kd_weights=stream("kd"),
        rl_weights=stream("rl"),
        source=torch.tensor([SOURCES.index(samples[index].source) for index in owner.tolist()]),
        rewards=torch.tensor([samples[index].reward or 0.0 for index in owner.tolist()]).double(),
    )
    denominators = count_tokens(recipe, samples)
    if recipe.whole_batch_options:
        plain = replace(
            batch,
            hidden=hidden.detach(),
            teacher_hidden=None if batch.teacher_hidden is None else asked.detach(),
        )
        whole = whole_batch(recipe, [(plain, torch.arange(number))], samples, denominators)
        denominators = whole.denominators
        batch = replace(batch, shared=whole.shared, **whole.streams())
    output = objective(recipe, batch, denominators)
    gradient, taught = torch.autograd.grad(output.loss, (hidden, asked), allow_unused=True)
    assert gradient is not None
    return OnF(loss=float(output.loss.detach()), gradient=gradient, output=output, teacher_gradient=taught)


PPO = {"name": "ppo", "denominator": "sampler"}


def refused(name: str | Path, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, overrides)
    return str(caught.value)


def check(found: OnF, loss: float, gradient: Sequence[Sequence[float]]) -> None:
    assert found.loss == pytest.approx(loss, abs=1e-9)
    for own, expected in zip(found.gradient.tolist(), gradient, strict=True):
        assert own == pytest.approx(list(expected), abs=1e-9)
