"""How distillation and reward become one loss. Each mix sums components, each over its own denominator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from agentrl.losses.batch import Denominators, LossBatch, RecipeLike
from agentrl.losses.divergence import ADVANTAGES
from agentrl.losses.estimators import DENSE, iw_k3, k2
from agentrl.losses.masking import AGGREGATES
from agentrl.losses.policy_gradient import OFFPOLICY
from agentrl.losses.positions import Positions
from agentrl.losses.token_weights import TOKEN_WEIGHTS, Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    loss: Tensor
    """[] this micro batch's share."""
    metrics: dict[str, Tensor]
    """[] each, adding up over micro batches."""


def _kd(recipe: RecipeLike, batch: LossBatch, positions: Positions, denominators: Denominators) -> Mixed:
    """(1/Z_kd)·Σ κ_t·w_t·D_t."""
    out = positions.out
    cut = torch.zeros_like(positions.kd)
    if recipe.estimator.name in DENSE:
        # A micro batch in which nothing is distilled may come without a teacher.
        values = out["kd"] if "kd" in out else 0.0 * out["logprob"]
    elif recipe.estimator.name == "k2":
        values = k2(out["logprob"], out["teacher_logprob"])
    elif recipe.estimator.name == "iw_k3":
        values = iw_k3(out["logprob"], out["teacher_logprob"], _old(recipe.estimator.params, positions))
    else:
        values, cut = _policy_gradient(recipe, positions, _distill_advantages(recipe, positions))
    scores = Scores(entropy=out["entropy"].detach(), gap=out.get("gap"), kl=out.get("kl"))
    weights = _route(batch.kd_weights, positions.kd, values, batch.kd_scale)
    weigh = TOKEN_WEIGHTS.get(recipe.token_weight.name)
    if weigh is not None:  # one that looks at the whole batch stands in kd_scale
        weights = weights * weigh(
            scores, positions.kd, positions.sequence, positions.num_sequences, **recipe.token_weight.params
        )
    loss = aggregate(recipe, values, weights, positions, denominators, "kd")
    return Mixed(loss=loss, metrics={"loss/kd": loss, "num_clipped_kd": (cut & positions.kd).sum()})


def _rl(recipe: RecipeLike, batch: LossBatch, positions: Positions, denominators: Denominators) -> Mixed:
    """(1/Z_rl)·Σ α_t·RL_t."""
    values, cut = _policy_gradient(recipe, positions, _reward_advantages(batch, positions))
    weights = _route(batch.rl_weights, positions.rl, values, batch.rl_scale)
    loss = aggregate(recipe, values, weights, positions, denominators, "rl")
    return Mixed(loss=loss, metrics={"loss/rl": loss, "num_clipped_rl": (cut & positions.rl).sum()})


def _sum(
    recipe: RecipeLike,
    batch: LossBatch,
    positions: Positions,
    denominators: Denominators,
    *,
    kd: float,
    rl: float,
) -> Mixed:
    """kd·KD + rl·RL, each over its own denominator."""
    distilled = _kd(recipe, batch, positions, denominators)
    rewarded = _rl(recipe, batch, positions, denominators)
    return Mixed(loss=kd * distilled.loss + rl * rewarded.loss, metrics=distilled.metrics | rewarded.metrics)


def _adv_add(
    recipe: RecipeLike,
    batch: LossBatch,
    positions: Positions,
    denominators: Denominators,
    *,
    reward: float,
    distill: float,
) -> Mixed:
    """One policy gradient with A_t = reward·α_t·A_r + distill·κ_t·A_q over the tokens of either signal.

    A token without one of the signals has 0 in its place. OpenClaw-RL, arXiv 2603.10165, combined form.
    """
    kd = _route(batch.kd_weights, positions.kd, positions.out["logprob"], batch.kd_scale)
    rl = _route(batch.rl_weights, positions.rl, positions.out["logprob"], batch.rl_scale)
    distilled = kd * _distill_advantages(recipe, positions)
    rewarded = rl * _reward_advantages(batch, positions)
    values, cut = _policy_gradient(recipe, positions, reward * rewarded + distill * distilled)
    loss = aggregate(recipe, values, positions.either.to(values.dtype), positions, denominators, "either")
    return Mixed(loss=loss, metrics={"loss/rl": loss, "num_clipped_rl": (cut & positions.either).sum()})


MIXES: dict[str, Callable[..., Mixed]] = {"kd": _kd, "rl": _rl, "sum": _sum, "adv_add": _adv_add}


def _distill_advantages(recipe: RecipeLike, positions: Positions) -> Tensor:
    """[N] detached advantage of the divergence at the sampled id."""
    log_u = positions.out["teacher_logprob"] - positions.out["logprob"].detach()
    return ADVANTAGES[recipe.divergence.name](log_u, **recipe.divergence.params)


def _reward_advantages(batch: LossBatch, positions: Positions) -> Tensor:
    """[N] the reward's advantages, 0 where none is trained."""
    zeros = torch.zeros_like(positions.out["logprob"])
    if batch.advantages is None:
        return zeros
    return torch.where(positions.rl, batch.advantages.to(zeros.dtype), zeros)


def _policy_gradient(recipe: RecipeLike, positions: Positions, advantages: Tensor) -> tuple[Tensor, Tensor]:
    params = dict(recipe.offpolicy.params)
    old = _old(params, positions)
    params.pop("denominator", None)
    return OFFPOLICY[recipe.offpolicy.name](positions.out["logprob"], old, advantages, **params)


def _old(params: dict[str, object], positions: Positions) -> Tensor:
    """[N] log-probs that a ratio divides by. The trainer's own are those of this pass: a batch takes one step."""
    if params.get("denominator") == "sampler":
        return positions.behavior_logprobs
    return positions.out["logprob"].detach()


def _route(weights: Tensor | None, mask: Tensor, like: Tensor, scale: Tensor | None) -> Tensor:
    """[N] route weight times whole-batch factor where the mask is true, else 0."""
    chosen = mask.to(like.dtype) if weights is None else torch.where(mask, weights.to(like.dtype), 0.0)
    return chosen if scale is None else torch.where(mask, chosen * scale.to(like.dtype), 0.0)


def aggregate(
    recipe: RecipeLike,
    values: Tensor,
    weights: Tensor,
    positions: Positions,
    denominators: Denominators,
    part: Literal["kd", "rl", "either"],
) -> Tensor:
    """[] Σ_t w_t·v_t over one component's tokens, divided as the recipe's aggregate says."""
    mask, tokens, sequences = {
        "kd": (positions.kd, denominators.kd_tokens, denominators.kd_sequences),
        "rl": (positions.rl, denominators.rl_tokens, denominators.rl_sequences),
        "either": (positions.either, denominators.tokens, denominators.sequences),
    }[part]
    return AGGREGATES[recipe.aggregate.name](
        values, weights, mask, positions.sequence, positions.num_sequences, tokens=tokens, sequences=sequences,
        **recipe.aggregate.params,
    )  # fmt: skip
