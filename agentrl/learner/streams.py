"""Samples -> tensors of their trained ids, under the names of `LossBatch`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from agentrl.learner.pack import Row
from agentrl.losses.batch import SOURCES
from agentrl.recipes.recipe import Recipe
from agentrl.types import TrainingSample


def trained_positions(sample: TrainingSample) -> tuple[int, ...]:
    """Positions whose ids are trained, ascending."""
    return tuple(position for position, trained in enumerate(sample.loss_mask) if trained)


def only_beside(recipe: Recipe, samples: Sequence[TrainingSample]) -> bool:
    """Whether all that a step would have is to stand beside what turns teach: held, or practised. Where nothing is
    learned nothing moves that it would be held against, and an adaptive optimiser would make whole steps of its
    rounding."""
    beside = ("held", "practice")
    return bool(samples) and not recipe.uses_rl and all(sample.source in beside for sample in samples)


def mean_reward(samples: Sequence[TrainingSample]) -> dict[str, float]:
    """`reward_mean` of what the policy itself has sampled and somebody has judged; empty without such samples."""
    known = [
        sample.reward
        for sample in samples
        if sample.reward is not None and sample.source in ("sampled", "held")
    ]
    return {"reward_mean": math.fsum(known) / len(known)} if known else {}


def streams_of(
    samples: Sequence[TrainingSample], rows: Sequence[Row], labels: Sequence[int], device: torch.device
) -> dict[str, Tensor]:
    """[N] streams of the trained ids, rows one after the other, under the names of `LossBatch`; absent ones are left
    out. `labels` become `sequence`."""

    def gather(
        stream: Callable[[TrainingSample], Sequence[float] | None], missing: float
    ) -> list[float] | None:
        if all(stream(sample) is None for sample in samples):
            return None
        values: list[float] = []
        for sample, row in zip(samples, rows, strict=True):
            own = stream(sample)
            values.extend(missing if own is None else own[position] for position in row.positions)
        return values

    sizes = zip(labels, rows, strict=True)
    result = {
        "token_ids": torch.tensor([row.token_ids[p] for row in rows for p in row.positions], device=device),
        "sequence": torch.tensor([label for label, row in sizes for _ in row.positions], device=device),
    }
    floats: dict[str, tuple[Callable[[TrainingSample], Sequence[float] | None], float]] = {
        "behavior_logprobs": (lambda sample: sample.behavior_logprobs, math.nan),
        "advantages": (lambda sample: sample.advantages, 0.0),
        "kd_weights": (lambda sample: sample.weights.get("kd"), 1.0),
        "rl_weights": (lambda sample: sample.weights.get("rl"), 1.0),
    }
    for name, (stream, missing) in floats.items():
        values = gather(stream, missing)
        if values is not None:
            result[name] = torch.tensor(values, dtype=torch.float32, device=device)
    rewards = gather(
        lambda sample: None if sample.reward is None else (sample.reward,) * len(sample.token_ids), math.nan
    )
    if rewards is not None:
        result["rewards"] = torch.tensor(rewards, dtype=torch.float32, device=device)
    if any(sample.source != "sampled" for sample in samples):
        sources = gather(lambda sample: (SOURCES.index(sample.source),) * len(sample.token_ids), 0)
        result["source"] = torch.tensor(sources, dtype=torch.long, device=device)
    allowed = gather(lambda sample: sample.num_allowed, 0)
    if allowed is not None:
        result["num_allowed"] = torch.tensor(allowed, dtype=torch.long, device=device)
    return result
