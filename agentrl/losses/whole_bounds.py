"""Bounds, penalties and draws over the whole batch: stages of the off-policy axis and of regularisers.

Each function is an option's stage of `agentrl.losses.whole`: the batch scored without gradient -> a changed copy.
Shapes: N positions of S sequences.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from agentrl.losses.batch import RecipeLike
from agentrl.losses.masking import sequence_sum
from agentrl.losses.policy_gradient import clipped, ratio_of
from agentrl.losses.whole import WHOLE_BATCH, WholeBatch
from agentrl.losses.whole_sequences import (
    compares_episodes,
    groups,
    judged_sequences,
    last_positions,
    old_logprobs,
    reward_mean,
    right_sequences,
    standardised,
    trained_lengths,
)

# off-policy


def adaptive_clip(
    batch: WholeBatch,
    recipe: RecipeLike,
    *,
    denominator: str,
    share: float,
    low: tuple[float, float],
    high: tuple[float, float],
    step: float,
    dual_clip: float | None,
) -> WholeBatch:
    """The bounds of ρ for this batch: first the lower, then the upper rises by `step` until the share is reached.

    BAPO, arXiv 2510.18927. The share is that of positive advantages in Σ ρ|A| over the tokens that the clip lets
    through, which are those with a gradient. Raising the lower bound leaves out unlikely ids of bad answers, raising
    the upper lets likely ids of good ones in. Without positive or negative advantages nothing is searched.

    Args:
        batch: with its advantages.
        recipe: not used.
        denominator: whose log-probs divide.
        share: of positive advantages, to be reached.
        low, high: first and last value of each bound.
        step: of both.
        dual_clip: of the clip.
    """
    del recipe
    old = old_logprobs(batch, {"denominator": denominator})
    weight = torch.where(batch.rl, ratio_of(batch.out["logprob"], old) * batch.advantages.abs(), 0.0)

    def reached(lower: float, upper: float) -> bool:
        _, cut = clipped(
            batch.out["logprob"], old, batch.advantages,
            eps_low=1.0 - lower, eps_high=upper - 1.0, dual_clip=dual_clip,
        )  # fmt: skip
        passed = torch.where(cut, 0.0, weight)
        return bool(passed[batch.advantages > 0].sum() >= share * passed.sum())

    lower, upper = low[0], high[0]
    signs = batch.advantages[batch.rl].sign()
    if bool((signs > 0).any()) and bool((signs < 0).any()):
        bounds = [(value, upper) for value in _steps(low, step)]
        bounds += [(low[1], value) for value in _steps(high, step)]
        lower, upper = next((pair for pair in bounds if reached(*pair)), bounds[-1])
    return replace(batch, shared={**batch.shared, "clip_low": lower, "clip_high": upper})


def kl_constraint(
    batch: WholeBatch, recipe: RecipeLike, *, denominator: str, score: str, beta: float, delta: float
) -> WholeBatch:
    """Adds sg[β·(K − δ)]₊·K, K the recipe's mean of log π_old − log π over the trained ids, an estimate of KL(π_old‖π).

    DisCO: nothing while K < δ, then a pull back that grows with the distance.

    Args:
        batch: with log-probs of the sampler.
        recipe: with its aggregate.
        denominator: whose log-probs π_old are.
        score: of the surrogate.
        beta: β.
        delta: δ, nats.
    """
    del score
    old = old_logprobs(batch, {"denominator": denominator})

    def loss(logprobs: Tensor) -> Tensor:
        distance = reward_mean(batch, recipe, old.to(logprobs.dtype) - logprobs)
        return (beta * (distance.detach() - delta)).clamp(min=0.0) * distance

    return batch.with_coupled(loss)


def clip_cov(
    batch: WholeBatch,
    recipe: RecipeLike,
    *,
    denominator: str,
    frac: float,
    between: tuple[float, float],
    eps_low: float,
    eps_high: float,
) -> WholeBatch:
    """Weight 0 on a random max(⌊frac·n⌋, 1) of the n tokens, drawn among those whose covariance lies in `between`.

    Entropy mechanism, arXiv 2505.22617. The draw's seed is a checksum of the batch's ids, which the step's record
    names: the same turns make the same draw (law 11).

    Args:
        batch: with its advantages.
        recipe, denominator, eps_low, eps_high: not used.
        frac: of the tokens with reward.
        between: bounds of (A − mean A)(log π − mean log π), exclusive.
    """
    del recipe, denominator, eps_low, eps_high
    rows = torch.nonzero(batch.rl).squeeze(-1)
    if rows.numel() == 0:
        return batch
    values = covariance(batch, rows)
    inside = rows[(values > between[0]) & (values < between[1])]
    count = min(max(int(frac * rows.numel()), 1), inside.numel())
    seed = zlib.crc32(batch.token_ids.cpu().numpy().tobytes())
    order = torch.randperm(inside.numel(), generator=torch.Generator().manual_seed(seed))
    scale = batch.rl_scale.clone()
    scale[inside[order[:count].to(inside.device)]] = 0.0
    return replace(batch, rl_scale=scale)


def kl_cov(
    batch: WholeBatch, recipe: RecipeLike, *, denominator: str, frac: float, coef: float
) -> WholeBatch:
    """Adds the recipe's mean of coef·|log ρ| on the max(⌊frac·n⌋, 1) of the n tokens of largest covariance.

    Entropy mechanism, arXiv 2505.22617. At π = π_old its gradient is 0: it acts on turns of an older policy.

    Args:
        batch: with its advantages.
        recipe: with its aggregate.
        denominator: whose log-probs divide.
        frac: of the tokens with reward.
        coef: of the penalty.
    """
    rows = torch.nonzero(batch.rl).squeeze(-1)
    if rows.numel() == 0:
        return batch
    order = torch.argsort(covariance(batch, rows), descending=True, stable=True)
    chosen = torch.zeros_like(batch.rl)
    chosen[rows[order[: max(int(frac * rows.numel()), 1)]]] = True
    old = old_logprobs(batch, {"denominator": denominator})

    def loss(logprobs: Tensor) -> Tensor:
        distance = (logprobs - old.to(logprobs.dtype)).abs()
        return reward_mean(batch, recipe, torch.where(chosen, coef * distance, 0.0 * distance))

    return batch.with_coupled(loss)


# regularisers


@compares_episodes
def kl_ref_weighted(
    batch: WholeBatch,
    recipe: RecipeLike,
    *,
    coef: float,
    direction: str,
    by: Literal["reward", "difficulty"],
    tau: float,
    threshold: float,
) -> WholeBatch:
    """Factors of the penalty: by reward e^{R_i/τ} over its mean, i an episode; by difficulty 1 − p_group where A > 0.

    RAPO's reference reweighted by reward; APO's penalty on what is good, the stronger the harder the task. Where
    nothing was judged the weight by reward is the mean, 1 (law 6).

    Args:
        batch: rewards and groups of its members, and advantages.
        recipe, coef, direction: not used.
        by, tau: which weight, and its temperature.
        threshold: right from this reward on.
    """
    del recipe, coef, direction
    judged = judged_sequences(batch)
    weights = torch.ones(batch.num_sequences, dtype=batch.penalty_scale.dtype, device=judged.device)
    if by == "reward" and bool(judged.any()):
        raw = (batch.members.reward[judged].to(weights.dtype) / tau).exp()
        weights[judged] = raw / raw.mean()
    if by == "difficulty":
        right = right_sequences(batch, threshold)
        better = sequence_sum(batch.advantages, batch.sequence, batch.num_sequences) > 0
        weights = torch.zeros_like(weights)
        for members in groups(batch, judged):
            weights[members] = 1.0 - right[members].to(weights.dtype).mean()
        weights = torch.where(better, weights, 0.0)
    return replace(batch, penalty_scale=weights[batch.sequence])


@compares_episodes
def length(
    batch: WholeBatch, recipe: RecipeLike, *, coef: float, of: Literal["all", "wrong"], threshold: float
) -> WholeBatch:
    """A + coef·λ_i, λ_i = ½ − (n_i − min n)/(max n − min n) within the group, for wrong answers min(0, λ_i).

    Kimi k1.5, arXiv 2501.12599. Groups of equal lengths change nothing; with `of` "wrong" only wrong answers do.

    Args:
        batch: with its advantages; n counts the trained ids of an episode.
        recipe: not used.
        coef: weight of λ.
        of: whose advantages.
        threshold: right from this reward on.
    """
    del recipe
    right = right_sequences(batch, threshold)
    count = trained_lengths(batch)
    change = torch.zeros_like(count)
    for members in groups(batch, judged_sequences(batch)):
        own = count[members]
        width = own.max() - own.min()
        if width > 0:
            change[members] = 0.5 - (own - own.min()) / width
    limited = torch.zeros_like(change) if of == "wrong" else change
    change = torch.where(right, limited, change.clamp(max=0.0))
    shifted = batch.advantages + coef * change[batch.sequence]
    return replace(batch, advantages=torch.where(batch.rl, shifted, batch.advantages))


@compares_episodes
def last_token_mse(
    batch: WholeBatch,
    recipe: RecipeLike,
    *,
    coef: float,
    token: int,
    beta: float,
    share: float,
    min_std: float,
    threshold: float,
) -> WholeBatch:
    """Weights n/(2·n_class) of judged episodes, and A := (1−share)·A + share·(the group's standardised self-scores).

    LaSeR. A self-score is β·log π(z)/π_0(z) where the episode's last trained id is predicted, and the weight stands
    there.

    Args:
        batch: with mark_logprob and ref_mark_logprob, and advantages.
        recipe, coef, token: not used.
        beta: β.
        share: of the advantage.
        min_std: self-scores of a smaller standard deviation are noise, and give 0.
        threshold: right from this reward on.
    """
    del recipe, coef, token
    judged, right = judged_sequences(batch), right_sequences(batch, threshold)
    total, good = int(judged.sum()), int(right.sum())
    shared = {
        **batch.shared,
        "last_token_right": total / (2.0 * max(good, 1)),
        "last_token_wrong": total / (2.0 * max(total - good, 1)),
    }
    last = last_positions(batch)
    reward = batch.members.reward
    classes = torch.where(reward >= threshold, shared["last_token_right"], shared["last_token_wrong"])
    weights = torch.where(reward.isnan(), 0.0, classes).to(batch.advantages.dtype)
    score = beta * (batch.out["mark_logprob"] - batch.out["ref_mark_logprob"])
    own = sequence_sum(torch.where(last, score, 0.0), batch.sequence, batch.num_sequences)
    advantages = torch.zeros_like(own)
    for members in groups(batch, judged):
        if bool(own[members].std(correction=0) >= min_std):
            advantages[members] = standardised(own[members], 1e-6)
    mixed = (1.0 - share) * batch.advantages + share * advantages[batch.sequence]
    return replace(
        batch,
        shared=shared,
        advantages=torch.where(batch.rl, mixed, batch.advantages),
        mark_weights=torch.where(last, weights[batch.sequence], 0.0),
    )


def covariance(batch: WholeBatch, rows: Tensor) -> Tensor:
    """[n] (A − mean A)(log π − mean log π) of the tokens `rows`.

    A step Δz = A of the logits changes the entropy by minus its mean over π, to first order.
    """
    advantages, logprobs = batch.advantages[rows], batch.out["logprob"][rows]
    return (advantages - advantages.mean()) * (logprobs - logprobs.mean())


def _steps(bounds: tuple[float, float], step: float) -> list[float]:
    """From the first to the last value, both included."""
    number = math.ceil((bounds[1] - bounds[0]) / step - 1e-9)
    return [bounds[0] + step * index for index in range(number)] + [bounds[1]]


WHOLE_BATCH |= {
    "adaptive_clip": adaptive_clip,
    "kl_constraint": kl_constraint,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
    "kl_ref_weighted": kl_ref_weighted,
    "length": length,
    "last_token_mse": last_token_mse,
}
