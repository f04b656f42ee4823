"""Losses of samples that a second generation stage has made: one of what a critique led to, one that trains the
teacher with the policy. Options of the mix."""

from __future__ import annotations

from dataclasses import replace

import torch

from agentrl.losses.batch import Denominators, LossBatch, RecipeLike
from agentrl.losses.mix import MIXES, Mixed, aggregate, policy_gradient, reward_advantages, rl_loss
from agentrl.losses.positions import Positions


def self_distill(
    recipe: RecipeLike,
    batch: LossBatch,
    positions: Positions,
    denominators: Denominators,
    *,
    coef: float,
    floor: float | None,
) -> Mixed:
    """RL + coef·(1/Z_kd)·Σ −A_t·1[log π(y_t) ≥ floor]·log π(y_t). RLTF, arXiv 2602.02482.

    The second sum goes over what the route gives to distillation: the answer to a critique on the prompt without it,
    A = R(y1) − mean R(y0), or the critique itself, A = 1. No ratio to the prompt it was sampled on is taken, so in
    expectation this is not the gradient of what the policy would get on its own (identity I22). The floor keeps ids
    out that the policy would never say without the critique; they stay in the denominator.

    Args:
        recipe, batch, positions, denominators: as every mix gets them.
        coef: of the cross entropy.
        floor: in nats; None = no floor.
    """
    rewarded = rl_loss(recipe, batch, positions, denominators)
    logprobs = positions.out["logprob"]
    values = torch.zeros_like(logprobs)
    if batch.advantages is not None:
        values = -batch.advantages.to(logprobs.dtype) * logprobs
    weights = positions.kd.to(logprobs.dtype)
    if floor is not None:
        weights = weights * (logprobs.detach() >= floor)
    learnt = aggregate(recipe, values, weights, positions, denominators, "kd")
    silenced = positions.kd & (weights == 0)
    return Mixed(
        loss=rewarded.loss + coef * learnt,
        metrics=rewarded.metrics | {"loss/self_distill": learnt, "num_below_floor": silenced.sum()},
    )


def joint(
    recipe: RecipeLike,
    batch: LossBatch,
    positions: Positions,
    denominators: Denominators,
    *,
    alpha: float,
    beta: float,
) -> Mixed:
    """α·L_T + (1−α)·L_S of ids that the teacher has sampled. π-Distill, arXiv 2602.04942.

        L_T = (1/Z_rl)·Σ −S(π_T/μ, A) + β·(1/Z_kd)·Σ KL(π_T‖sg π_S)
        L_S = (1/Z_rl)·Σ −S(π_S/μ, A) + β·(1/Z_kd)·Σ KL(sg π_T‖π_S)

    μ is the sampler, that is π_T as it sampled, so E_μ[(π_S/μ)·R] = E_{π_S}[R] (identity I22). S is the recipe's
    off-policy correction. Both sides are the same weights.

    Args:
        recipe, batch, positions, denominators: as every mix gets them.
        alpha: share of the teacher's objective.
        beta: of both divergences.
    """
    out = positions.out
    advantages = reward_advantages(batch, positions)
    parts, cut = {}, torch.zeros_like(positions.rl)
    for side, logprob, divergence in (
        ("teacher", "joint_logprob", "joint_kl"),
        ("policy", "logprob", "kd"),
    ):
        own = replace(positions, out=out | {"logprob": out[logprob]})
        values, clipped = policy_gradient(recipe, own, advantages, "rl")
        surrogate = aggregate(recipe, values, positions.rl.to(values.dtype), positions, denominators, "rl")
        distance = aggregate(
            recipe, out[divergence], positions.kd.to(values.dtype), positions, denominators, "kd"
        )
        parts[side] = surrogate + beta * distance
        cut = cut | (clipped & positions.rl)
    return Mixed(
        loss=alpha * parts["teacher"] + (1.0 - alpha) * parts["policy"],
        metrics={
            "loss/joint_teacher": parts["teacher"],
            "loss/joint_policy": parts["policy"],
            "num_clipped_rl": cut.sum(),
        },
    )


MIXES["self_distill"] = self_distill
MIXES["joint"] = joint
