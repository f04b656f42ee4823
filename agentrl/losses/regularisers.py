"""What is added to the loss whatever the method: each option's penalty at every position, and its mean.

A penalty on sampled ids leaves forced ones out: an id that could not have been another estimates nothing (law 7).
Options of the whole batch have first changed the advantages, the factors or the shared numbers that are read here
(`agentrl.losses.whole_bounds`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from agentrl.losses.batch import Denominators, LossBatch, Named, RecipeLike
from agentrl.losses.estimators import iw_k3, k2, k3
from agentrl.losses.extra_terms import certainty, hard_tokens, rank_order
from agentrl.losses.masking import AGGREGATES, masked_sum
from agentrl.losses.mix import aggregate
from agentrl.losses.positions import Positions
from agentrl.losses.terms import noted

Direction = Literal["reverse", "forward"]


def penalty(
    recipe: RecipeLike, item: Named, batch: LossBatch, positions: Positions, denominators: Denominators
) -> Tensor:
    """[] this micro batch's share of a regulariser's mean, without its coefficient."""
    values = REGULARISERS[item.name](batch, positions, **item.params)
    if item.name == "last_token_mse":  # one value an episode
        episodes = max(denominators.episodes, 1)
        return noted(lambda own: masked_sum(own, positions.either) / episodes, values, positions.shares)
    ones = torch.ones_like(values)
    if item.name == "js_rehearsal":  # tokens of their own

        def total(summed: Tensor) -> Tensor:
            return AGGREGATES[recipe.aggregate.name](
                summed, ones, positions.rehearsal, positions.sequence, positions.num_sequences,
                tokens=denominators.rehearsal_tokens, sequences=denominators.rehearsal_sequences,
                **recipe.aggregate.params,
            )  # fmt: skip

        return noted(total, values, positions.shares)
    return aggregate(recipe, values, ones, positions, denominators, "either")


def kl_ref(
    batch: LossBatch,
    positions: Positions,
    *,
    coef: float,
    estimator: Literal["full", "k2", "k3", "iw_k3"],
    direction: Direction,
    to: Literal["version_0", "sampler"],
    soup: str,
) -> Tensor:
    """KL(π‖r) or, with direction forward, KL(r‖π), over the vocabulary; or an estimate on the sampled id.

    r is version 0 or, on sampled ids, the sampler. Gradients on the policy's own samples: k2 ∇KL(π‖r), k3 ∇KL(r‖π);
    iw_k3 has ∇KL(π‖r) in expectation over any sampler.

    Args:
        batch: not used.
        positions: with kl_ref, kl_ref_forward or ref_logprob.
        coef: applied by the caller.
        estimator, direction, to: as above; direction is of `full` alone.
        soup: read by the learner, which then scores another version 0.

    Returns:
        [N].
    """
    del batch, coef, soup
    if estimator == "full":
        return _full(positions, direction)
    live = positions.out["logprob"]
    sampler = positions.behavior_logprobs
    reference = sampler if to == "sampler" else positions.out["ref_logprob"]
    if estimator == "iw_k3":
        sampled = iw_k3(live, reference, sampler)
    else:
        sampled = {"k2": k2, "k3": k3}[estimator](live, reference)
    return torch.where(positions.forced, torch.zeros_like(sampled), sampled)


def kl_ref_weighted(
    batch: LossBatch,
    positions: Positions,
    *,
    coef: float,
    direction: Direction,
    by: str,
    tau: float,
    threshold: float,
) -> Tensor:
    """w_i·KL(π‖π_0) or w_i·KL(π_0‖π), w from `whole_bounds.kl_ref_weighted`.

    Args:
        batch: with penalty_scale.
        positions: with kl_ref or kl_ref_forward.
        coef: applied by the caller.
        direction: which of both.
        by, tau, threshold: of the weights.

    Returns:
        [N].
    """
    del coef, by, tau, threshold
    values = _full(positions, direction)
    return values if batch.penalty_scale is None else values * batch.penalty_scale.to(values.dtype)


def js_rehearsal(
    batch: LossBatch, positions: Positions, *, coef: float, divergence: Literal["js", "fkl"]
) -> Tensor:
    """f(v) of ids that π_0 sampled, v = π/π_0; js: v ln v − (v+1) ln((v+1)/2), fkl: v − 1 − ln v.

    DPH-RL. The mean of the first over π_0 is 2·JSD_.5(π_0, π), of the second KL(π_0‖π): on what π_0 sampled, both
    are unbiased, values and gradients, however far π has gone. So no bound drops these samples.

    Args:
        batch: not used.
        positions: with ref_logprob.
        coef: applied by the caller.
        divergence: which f.

    Returns:
        [N].
    """
    del batch, coef
    log_v = (positions.out["logprob"] - positions.out["ref_logprob"]).clamp(-20.0, 20.0)
    if divergence == "fkl":
        return torch.expm1(log_v) - log_v
    v = log_v.exp()
    return v * log_v - (v + 1.0) * ((v + 1.0) / 2.0).log()


def entropy(batch: LossBatch, positions: Positions, *, coef: float) -> Tensor:
    """−H(π).

    Args:
        batch: not used.
        positions: with live_entropy.
        coef: applied by the caller.

    Returns:
        [N].
    """
    del batch, coef
    return -positions.out["live_entropy"]


def entropy_band(batch: LossBatch, positions: Positions, *, coef: float, low: float, high: float) -> Tensor:
    """max(low − H, 0) + max(H − high, 0) on tokens that the advantage lets train. SPINE.

    Args:
        batch: tokens of rl_scale 0 are left out; they stay in the denominator.
        positions: with live_entropy.
        coef: applied by the caller.
        low, high: nats.

    Returns:
        [N].
    """
    del coef
    live = positions.out["live_entropy"]
    outside = (low - live).clamp(min=0.0) + (live - high).clamp(min=0.0)
    return outside if batch.rl_scale is None else torch.where(batch.rl_scale != 0, outside, 0.0 * outside)


def chi2(batch: LossBatch, positions: Positions, *, coef: float) -> Tensor:
    """χ²(π‖π_0) = Σ_v π²/π_0 − 1 at each position.

    Args:
        batch: not used.
        positions: with chi2_ref.
        coef: applied by the caller.

    Returns:
        [N].
    """
    del batch, coef
    return positions.out["chi2_ref"]


def last_token_mse(
    batch: LossBatch,
    positions: Positions,
    *,
    coef: float,
    token: int,
    beta: float,
    share: float,
    min_std: float,
    threshold: float,
) -> Tensor:
    """w_i·(β·log π(z)/π_0(z) − R_i)² where episode i's last trained id is predicted, 0 elsewhere. LaSeR.

    w_i makes right and wrong answers weigh the same over the batch; an episode without a reward has no part (law 6).

    Args:
        batch: with rewards, and mark_weights from `whole_bounds.last_token_mse`.
        positions: with mark_logprob and ref_mark_logprob.
        coef: applied by the caller.
        token: z, read by the features.
        beta: β.
        share, min_std, threshold: of the stage before.

    Returns:
        [N].
    """
    del coef, token, share, min_std, threshold
    zeros = 0.0 * positions.out["mark_logprob"]
    if batch.rewards is None or batch.mark_weights is None:
        return zeros
    weights = batch.mark_weights.to(zeros.dtype)
    score = beta * (positions.out["mark_logprob"] - positions.out["ref_mark_logprob"])
    rewards = torch.where(weights != 0, batch.rewards.to(zeros.dtype), 0.0)
    return torch.where(weights != 0, weights * (score - rewards).square(), zeros)


REGULARISERS: dict[str, Callable[..., Tensor]] = {
    "kl_ref": kl_ref,
    "kl_ref_weighted": kl_ref_weighted,
    "js_rehearsal": js_rehearsal,
    "entropy": entropy,
    "entropy_band": entropy_band,
    "chi2": chi2,
    "last_token_mse": last_token_mse,
    "rank": rank_order,
    "certainty": certainty,
    "ce": hard_tokens,
}


def _full(positions: Positions, direction: Direction) -> Tensor:
    return positions.out["kl_ref" if direction == "reverse" else "kl_ref_forward"]
