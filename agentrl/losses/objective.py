"""The loss of a micro batch: components of a recipe, each over its own tokens and its own denominator.

    per position   hidden ─head─> log π ┐
                   teacher ─head─> log q ┴─> divergence, log π(y), log q(y), entropy, gap     (chunked: flat memory)
    per sequence   hard bound on |log π − log μ|, token weights
    per batch      L = Σ_c coef_c · (1/denominator_c) · Σ_t weight_ct · loss_ct

The caller counts the denominators once for the whole batch (`count_tokens`) and passes them with every micro batch, so
that the losses of the micro batches add up to the loss of the batch. A sequence stands in one micro batch whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from agentrl.losses.batch import Denominators, LossBatch, LossOutput, RecipeLike, count_tokens
from agentrl.losses.estimators import k2, k3
from agentrl.losses.masking import masked_sum
from agentrl.losses.mix import MIXES, aggregate
from agentrl.losses.positions import Positions

__all__ = ["Denominators", "LossBatch", "LossOutput", "RecipeLike", "count_tokens", "objective"]


def objective(
    recipe: RecipeLike, batch: LossBatch, denominators: Denominators, *, chunk_size: int | None = None
) -> LossOutput:
    """The loss of one micro batch.

    Args:
        recipe: a recipe with this step's numbers (`Schedules.current()`).
        batch: N trained positions of whole sequences.
        denominators: of the whole batch.
        chunk_size: positions whose logits exist at a time; None chooses by the vocabulary. Changes nothing else.

    Raises:
        ValueError: the recipe needs a stream that the batch does not have.
    """
    positions = Positions.of(recipe, batch, chunk_size)
    mixed = MIXES[recipe.mix.name](recipe, batch, positions, denominators, **recipe.mix.params)
    loss, metrics = mixed.loss, dict(mixed.metrics)
    if batch.coupled is not None and batch.coupled_loss is not None:
        live = positions.out["logprob"]
        # A position of a dropped sequence was left out when the coefficients were taken: its coefficient is 0.
        coupled = (batch.coupled_loss + batch.coupled * (live - live.detach())).sum()
        loss = loss + coupled
        metrics["loss/coupled"] = coupled.detach()
    for item in recipe.regularisers:
        values = REGULARISERS[item.name](positions, **item.params)
        weights = positions.either.to(values.dtype)
        penalty = aggregate(recipe, values, weights, positions, denominators, "either")
        loss = loss + item.params["coef"] * penalty
        metrics[f"loss/{item.name}"] = penalty.detach()
    metrics |= _metrics(batch, positions, denominators)
    names = sorted(metrics)
    numbers = torch.stack([metrics[name].detach().double() for name in names]).tolist()
    return LossOutput(
        loss=loss,
        metrics=dict(zip(names, numbers, strict=True)) | {"loss": float(loss.detach())},
        dropped=positions.dropped,
    )


# The regularisers: [N] penalties, times their coefficient.


def _kl_ref(positions: Positions, *, coef: float, estimator: str) -> Tensor:
    """KL(π‖π_0): exact, or by k2 or k3 on the sampled id."""
    del coef
    if estimator == "full":
        return positions.out["kl_ref"]
    sampled = {"k2": k2, "k3": k3}[estimator](positions.out["logprob"], positions.out["ref_logprob"])
    return torch.where(positions.forced, torch.zeros_like(sampled), sampled)


def _entropy(positions: Positions, *, coef: float) -> Tensor:
    """−H(π)."""
    del coef
    return -positions.out["live_entropy"]


REGULARISERS: dict[str, Callable[..., Tensor]] = {"kl_ref": _kl_ref, "entropy": _entropy}


def _metrics(batch: LossBatch, positions: Positions, denominators: Denominators) -> dict[str, Tensor]:
    tokens = max(denominators.tokens, 1)
    found = {"policy_entropy": masked_sum(positions.out["entropy"].detach(), positions.either) / tokens}
    if "gap" in positions.out:
        found["teacher_gap"] = masked_sum(positions.out["gap"], positions.kd) / max(denominators.kd_tokens, 1)
    if batch.behavior_logprobs is not None:
        distance = (positions.out["logprob"].detach() - batch.behavior_logprobs).abs()
        found["logprob_gap"] = masked_sum(distance, positions.either) / tokens
    found["num_tokens"] = positions.either.sum()
    found["num_forced"] = positions.forced.sum()
    found["num_dropped_tokens"] = positions.late.sum()
    found["num_dropped_sequences"] = torch.tensor(len(positions.dropped))
    return found
