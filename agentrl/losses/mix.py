"""How distillation and reward become one loss. Each mix sums components, each over its own denominator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from agentrl.losses.batch import Denominators, LossBatch, RecipeLike, correction
from agentrl.losses.divergence import ADVANTAGES, MINUS_F
from agentrl.losses.estimators import DENSE, iw_k3, k2, k3, pg_advantages
from agentrl.losses.masking import AGGREGATES, JOINT
from agentrl.losses.policy_gradient import DENSE_WEIGHTS, OFFPOLICY
from agentrl.losses.positions import Positions
from agentrl.losses.scores import Scores
from agentrl.losses.terms import noted
from agentrl.losses.token_weights import TOKEN_WEIGHTS
from agentrl.losses.trust_regions import OVER_SEQUENCES, Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    loss: Tensor
    """[] this micro batch's share."""
    metrics: dict[str, Tensor]
    """[] each, adding up over micro batches."""


def _kd(recipe: RecipeLike, batch: LossBatch, positions: Positions, denominators: Denominators) -> Mixed:
    """(1/Z_kd)·Σ κ_t·w_t·D_t; `num_clipped_kd` counts the tokens at which a clip cut, of a ratio or of a term."""
    out = positions.out
    cut = torch.zeros_like(positions.kd)
    if recipe.estimator.name in DENSE:
        # A micro batch in which nothing is distilled may come without a teacher; `ce` never needs one.
        absent = -out["logprob"] if recipe.divergence.name == "ce" else 0.0 * out["logprob"]
        values, cut = out.get("kd", absent), out.get("kd_cut", cut)
    elif recipe.estimator.name == "k2":
        values = k2(out["logprob"], out["teacher_logprob"])
    elif recipe.estimator.name == "k3":
        values = k3(out["logprob"], out["teacher_logprob"])
    elif recipe.estimator.name == "iw_k3":
        values = iw_k3(out["logprob"], out["teacher_logprob"], _old(recipe.estimator.params, positions))
    else:
        values, cut = policy_gradient(recipe, positions, _distill_advantages(recipe, positions), "kd")
        if recipe.estimator.params["single_step"] and "kd" in out:
            values = values + out["kd"]
    scores = Scores.of(out)
    weights = _route(batch.kd_weights, positions.kd, values, batch.kd_scale)
    weigh = TOKEN_WEIGHTS.get(recipe.token_weight.name)
    if weigh is not None:  # one that looks at the whole batch stands in kd_scale
        weights = weights * weigh(
            scores, positions.kd, positions.sequence, positions.num_sequences, **recipe.token_weight.params
        )
    corrected = correction(recipe, "kd")
    if corrected.name in DENSE_WEIGHTS:
        params = dict(corrected.params)
        old = _old(params, positions)
        params.pop("denominator")
        weights = weights * DENSE_WEIGHTS[corrected.name](out["logprob"], old, **params)
    loss = aggregate(recipe, values, weights, positions, denominators, "kd")
    return Mixed(loss=loss, metrics={"loss/kd": loss, "num_clipped_kd": (cut & positions.kd).sum()})


def rl_loss(recipe: RecipeLike, batch: LossBatch, positions: Positions, denominators: Denominators) -> Mixed:
    """(1/Z_rl)·Σ α_t·RL_t."""
    values, cut = policy_gradient(recipe, positions, reward_advantages(batch, positions), "rl")
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
    rewarded = rl_loss(recipe, batch, positions, denominators)
    return Mixed(loss=kd * distilled.loss + rl * rewarded.loss, metrics=distilled.metrics | rewarded.metrics)


def _convex(
    recipe: RecipeLike, batch: LossBatch, positions: Positions, denominators: Denominators, *, weight: float
) -> Mixed:
    """weight·KD + (1−weight)·RL, each over its own denominator."""
    return _sum(recipe, batch, positions, denominators, kd=weight, rl=1.0 - weight)


def _routed(recipe: RecipeLike, batch: LossBatch, positions: Positions, denominators: Denominators) -> Mixed:
    """KD + RL of samples that the route sends to one of both. SRPO, arXiv 2604.02288.

    The aggregate `routed_token_mean` divides both by all their tokens, so a loss with few samples counts little.
    """
    return _sum(recipe, batch, positions, denominators, kd=1.0, rl=1.0)


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
    rewarded = rl * reward_advantages(batch, positions)
    values, cut = policy_gradient(recipe, positions, reward * rewarded + distill * distilled, "rl")
    loss = aggregate(recipe, values, positions.either.to(values.dtype), positions, denominators, "either")
    return Mixed(loss=loss, metrics={"loss/rl": loss, "num_clipped_rl": (cut & positions.either).sum()})


def _adv_convex(
    recipe: RecipeLike, batch: LossBatch, positions: Positions, denominators: Denominators, *, weight: float
) -> Mixed:
    """`adv_add` with A_t = weight·α_t·A_r + (1−weight)·κ_t·A_q. SDPO with GRPO, arXiv 2601.20802."""
    return _adv_add(recipe, batch, positions, denominators, reward=weight, distill=1.0 - weight)


def _adv_mult(
    recipe: RecipeLike,
    batch: LossBatch,
    positions: Positions,
    denominators: Denominators,
    *,
    weight: float,
    eps: float,
) -> Mixed:
    """One policy gradient with A_t = A_r·((1−λ) + λ·clip(u_t^{sign A_r}, 1−ε, 1+ε)), u = q/π. RLSD, arXiv 2604.03128.

    The sign is always the reward's, and |A_t| ≤ (1+λε)·|A_r|. Without a teacher's view of a token its factor is 1.
    """
    rewarded = reward_advantages(batch, positions)
    log_u = positions.out["teacher_logprob"] - positions.out["logprob"].detach()
    factor = (rewarded.sign() * log_u).exp().clamp(1.0 - eps, 1.0 + eps)
    kd = _route(batch.kd_weights, positions.kd, rewarded, batch.kd_scale)
    values, cut = policy_gradient(recipe, positions, rewarded * (1.0 + weight * kd * (factor - 1.0)), "rl")
    weights = _route(batch.rl_weights, positions.rl, values, batch.rl_scale)
    loss = aggregate(recipe, values, weights, positions, denominators, "rl")
    return Mixed(loss=loss, metrics={"loss/rl": loss, "num_clipped_rl": (cut & positions.rl).sum()})


MIXES: dict[str, Callable[..., Mixed]] = {
    "kd": _kd,
    "rl": rl_loss,
    "sum": _sum,
    "convex": _convex,
    "adv_add": _adv_add,
    "adv_convex": _adv_convex,
    "adv_mult": _adv_mult,
    "routed": _routed,
}


def _distill_advantages(recipe: RecipeLike, positions: Positions) -> Tensor:
    """[N] detached advantage of the divergence at the sampled id."""
    log_u = positions.out["teacher_logprob"] - positions.out["logprob"].detach()
    params = dict(recipe.estimator.params) if recipe.estimator.name == "pg" else {}
    of = {"w_f": ADVANTAGES, "minus_f": MINUS_F}[params.pop("weight", "w_f")]
    weigh = partial(of[recipe.divergence.name], **recipe.divergence.params)
    baseline = params.pop("baseline", "none")
    params.pop("k", None)
    return pg_advantages(
        log_u, weigh, positions.kd, positions.sequence, positions.num_sequences,
        kl=None if baseline == "none" else positions.out.get(baseline), **params,
    )  # fmt: skip


def reward_advantages(batch: LossBatch, positions: Positions) -> Tensor:
    """[N] the reward's advantages, 0 where none is trained."""
    zeros = torch.zeros_like(positions.out["logprob"])
    if batch.advantages is None:
        return zeros
    return torch.where(positions.rl, batch.advantages.to(zeros.dtype), zeros)


def policy_gradient(
    recipe: RecipeLike, positions: Positions, advantages: Tensor, part: Literal["kd", "rl"]
) -> tuple[Tensor, Tensor]:
    corrected = correction(recipe, part)
    params = dict(corrected.params)
    old = _old(params, positions)
    params.pop("denominator", None)
    if corrected.name == "anchor":
        params["teacher_logprobs"] = positions.out["teacher_logprob"]
    if corrected.name in OVER_SEQUENCES:
        params["where"] = Where(
            sequence=positions.sequence,
            num_sequences=positions.num_sequences,
            mask=positions.rl | positions.kd,
            foreign=positions.foreign,
            shared=positions.shared,
        )
    return OFFPOLICY[corrected.name](positions.out["logprob"], old, advantages, **params)


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
    if recipe.aggregate.name in JOINT:
        tokens, sequences = denominators.tokens, denominators.sequences

    def total(summed: Tensor) -> Tensor:
        return AGGREGATES[recipe.aggregate.name](
            summed, weights, mask, positions.sequence, positions.num_sequences, tokens=tokens,
            sequences=sequences, **recipe.aggregate.params,
        )  # fmt: skip

    return noted(total, values, positions.shares)
