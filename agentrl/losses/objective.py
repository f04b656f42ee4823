"""The loss of a micro batch: components of a recipe, each over its own tokens and its own denominator.

    per position   hidden ─head─> log π ┐
                   teacher ─head─> log q ┴─> divergence, log π(y), log q(y), entropy, gap     (chunked: flat memory)
    per sequence   hard bound on |log π − log μ|, token weights
    per batch      L = Σ_c coef_c · (1/denominator_c) · Σ_t weight_ct · loss_ct

The caller counts the denominators once for the whole batch (`count_tokens`) and passes them with every micro batch, so
that the losses of the micro batches add up to the loss of the batch. A sequence stands in one micro batch whole.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from agentrl.losses import pairs, second, whole_bounds, whole_rl, whole_routes, whole_weights  # noqa: F401  registers their options
from agentrl.losses.batch import Denominators, LossBatch, LossOutput, RecipeLike, count_tokens
from agentrl.losses.masking import masked_sum
from agentrl.losses.mix import MIXES
from agentrl.losses.positions import Positions
from agentrl.losses.regularisers import REGULARISERS, penalty
from agentrl.losses.terms import Share, Terms, summed

__all__ = ["Denominators", "LossBatch", "LossOutput", "RecipeLike", "count_tokens", "objective"]


def objective(
    recipe: RecipeLike,
    batch: LossBatch,
    denominators: Denominators,
    *,
    chunk_size: int | None = None,
    by_position: bool = False,
) -> LossOutput:
    """The loss of one micro batch.

    Args:
        recipe: a recipe with this step's numbers (`Schedules.current()`).
        batch: N trained positions of whole sequences.
        denominators: of the whole batch.
        chunk_size: positions whose logits exist at a time; None chooses by the vocabulary. Changes nothing else.
        by_position: note what every position adds to the loss, from the same pass; needs a gradient. Changes no bit
            of the loss or its gradient.

    Raises:
        ValueError: the recipe needs a stream that the batch does not have.
    """
    positions = Positions.of(recipe, batch, chunk_size)
    if by_position:
        positions = replace(positions, shares=[])
    mix = MIXES.get(recipe.mix.name)
    if mix is None:  # one that looks at the whole batch: its loss has come as `coupled`
        loss, metrics = 0.0 * positions.out["logprob"].sum(), {}
    else:
        mixed = mix(recipe, batch, positions, denominators, **recipe.mix.params)
        loss, metrics = mixed.loss, dict(mixed.metrics)
    if batch.coupled is not None and batch.coupled_loss is not None:
        live = positions.out["logprob"]
        # A position of a dropped sequence was left out when the coefficients were taken: its coefficient is 0.
        coupled = (batch.coupled_loss + batch.coupled * (live - live.detach())).sum()
        loss = loss + coupled
        metrics["loss/coupled"] = coupled.detach()
    for item in recipe.regularisers:
        if item.name not in REGULARISERS:
            continue  # it has changed the advantages
        own = penalty(recipe, item, batch, positions, denominators)
        loss = loss + item.params["coef"] * own
        key = f"loss/{item.name}"
        metrics[key] = own.detach() + metrics.get(key, 0.0)
    metrics |= _metrics(batch, positions, denominators)
    names = sorted(metrics)
    numbers = torch.stack([metrics[name].detach().double() for name in names]).tolist()
    return LossOutput(
        loss=loss,
        metrics=dict(zip(names, numbers, strict=True)) | {"loss": float(loss.detach())},
        dropped=positions.dropped,
        not_held=positions.not_held,
        terms=None if positions.shares is None else _terms(loss, batch, positions, positions.shares),
    )


def _terms(loss: Tensor, batch: LossBatch, positions: Positions, shares: list[Share]) -> Terms:
    """What every position gave to `loss`, and what was known there."""
    own = positions.out["logprob"].detach()
    nothing = torch.full_like(own, torch.nan)
    terms = summed(loss, shares, torch.zeros_like(own))
    if batch.coupled is not None and batch.coupled_loss is not None:
        terms = terms + batch.coupled_loss
    taught = batch.teacher_hidden is not None or batch.teacher_logprobs is not None
    judged = positions.rl if batch.advantages is not None else torch.zeros_like(positions.rl)
    ratio = nothing if batch.behavior_logprobs is None else (own - batch.behavior_logprobs).exp()
    return Terms(
        loss=torch.where(positions.either | positions.rehearsal | (terms != 0), terms, nothing),
        logprob=own,
        teacher_logprob=torch.where(positions.kd, positions.out["teacher_logprob"].detach(), nothing)
        if taught
        else nothing,
        advantage=nothing if batch.advantages is None else torch.where(judged, batch.advantages, nothing),
        ratio=torch.where(judged, ratio, nothing),
    )


def _metrics(batch: LossBatch, positions: Positions, denominators: Denominators) -> dict[str, Tensor]:
    tokens = max(denominators.tokens, 1)
    found = {"policy_entropy": masked_sum(positions.out["entropy"].detach(), positions.either) / tokens}
    if "gap" in positions.out:
        found["teacher_gap"] = masked_sum(positions.out["gap"], positions.kd) / max(denominators.kd_tokens, 1)
    if batch.behavior_logprobs is not None:
        distance = (positions.out["logprob"].detach() - batch.behavior_logprobs).abs()
        found["logprob_gap"] = masked_sum(distance, positions.either) / tokens
        ratio = (positions.out["logprob"].detach() - positions.behavior_logprobs).exp()
        found["ratio_variance"] = masked_sum((ratio - 1.0).square(), positions.either) / tokens
    found["num_tokens"] = positions.either.sum()
    found["num_rehearsed"] = positions.rehearsal.sum()
    found["num_forced"] = positions.forced.sum()
    found["num_dropped_tokens"] = positions.late.sum()
    found["num_dropped_sequences"] = torch.tensor(len(positions.dropped))
    return found
