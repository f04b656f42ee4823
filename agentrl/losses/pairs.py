"""Losses of preferred and rejected answers to one prompt, each over a whole batch (`agentrl.losses.whole`).

    Δ_i = Σ_t log π(y_t) − log π_0(y_t)      over the trained ids of sequence i

A pair is one preferred sequence and the sequences of the same number that it was preferred to, normally one; with
several, each is compared with it, and the pair's loss is their mean. A pair of which a side has no trained id, because
it was dropped, trains nothing. The loss of a batch is the mean over all of its pairs, those included: dropping makes a
step smaller, never larger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from agentrl.losses.batch import RecipeLike
from agentrl.losses.masking import sequence_sum
from agentrl.losses.policy_gradient import MAX_LOG_RATIO
from agentrl.losses.whole import WHOLE_BATCH, WholeBatch

Margins = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons:
    """K comparisons of a preferred with a rejected sequence, in P complete pairs."""

    preferred: Tensor
    """[K] int64 index of a sequence."""
    rejected: Tensor
    """[K] int64 index of a sequence."""
    weight: Tensor
    """[K] 1 / (rejected sequences of the pair · pairs of the batch)."""


def comparisons(batch: WholeBatch) -> Comparisons:
    """The complete pairs of a batch.

    Raises:
        ValueError: a pair has several preferred answers.
    """
    members = batch.members
    trained = sequence_sum(batch.rl.to(torch.float64), batch.sequence, batch.num_sequences) > 0
    numbers = sorted({number for number in members.pair.tolist() if number >= 0})
    winners: list[int] = []
    losers: list[int] = []
    weights: list[float] = []
    for number in numbers:
        inside = members.pair == number
        best = (inside & members.preferred).nonzero().flatten().tolist()
        others = (inside & ~members.preferred & trained).nonzero().flatten().tolist()
        if len(best) > 1:
            raise ValueError(f"a pair has one preferred answer, not {len(best)}")
        if not best or not others or not trained[best[0]]:
            continue
        winners += best * len(others)
        losers += others
        weights += [1.0 / (len(others) * len(numbers))] * len(others)
    device = batch.sequence.device
    return Comparisons(
        preferred=torch.tensor(winners, dtype=torch.long, device=device),
        rejected=torch.tensor(losers, dtype=torch.long, device=device),
        weight=torch.tensor(weights, dtype=torch.float64, device=device),
    )


def dpo(batch: WholeBatch, recipe: RecipeLike, *, beta: float) -> WholeBatch:
    """−log σ(β(Δ⁺ − Δ⁻)). DPO, arXiv 2305.18290, eq. 7.

    Args:
        batch: with `ref_logprob`.
        recipe: not used.
        beta: how closely the policy is kept to version 0; larger is closer.
    """
    del recipe
    return _compared(batch, beta, lambda delta: delta)


def f_dpo(
    batch: WholeBatch,
    recipe: RecipeLike,
    *,
    beta: float,
    divergence: Literal["rkl", "jsd", "alpha", "fkl"],
    alpha: float | None,
) -> WholeBatch:
    """−log σ(β(f'(u⁺) − f'(u⁻))), u = e^Δ. f-DPO, arXiv 2309.16240, up to constants in f':

        rkl  ln u      jsd  −ln(1 + 1/u)      alpha  (1 − u^−α)/α      fkl  −1/u

    Args:
        batch: with `ref_logprob`.
        recipe: not used.
        beta: how closely the policy is kept to version 0.
        divergence: by which distance; rkl is `dpo`.
        alpha: of "alpha".
    """
    del recipe
    slopes: dict[str, Margins] = {
        "rkl": lambda delta: delta,
        "jsd": lambda delta: -F.softplus(-delta),
        "alpha": partial(_alpha_slope, alpha=alpha or 0.0),
        "fkl": partial(_alpha_slope, alpha=1.0),
    }
    return _compared(batch, beta, slopes[divergence])


def adpo(batch: WholeBatch, recipe: RecipeLike, *, tau: float, noise: float) -> WholeBatch:
    """KL(t‖p), p = softmax(Δ/τ) over the answers of a pair, t = 1 − noise on the preferred one and noise/K on each of
    the K others. ADPO, arXiv 2510.18913.

    noise 0 and K = 1 is DPO of β = 1/τ. The minimum of a pair lies at Δ⁺ − Δ⁻ = τ·ln((1 − noise)/noise): a margin that
    is finite, where DPO's grows for ever.

    Args:
        batch: with `ref_logprob`.
        recipe: not used.
        tau: temperature of the anchored scores.
        noise: probability that a preference is mistaken.
    """
    del recipe
    found = comparisons(batch)
    pairs = sorted(set(found.preferred.tolist()))

    def loss(logprobs: Tensor) -> Tensor:
        scores = _deltas(batch, logprobs) / tau
        total = 0.0 * logprobs.sum()
        for winner in pairs:
            inside = found.preferred == winner
            others = found.rejected[inside]
            logits = torch.cat((scores[winner : winner + 1], scores[others])).log_softmax(0)
            target = torch.full_like(logits, noise / others.numel())
            target[0] = 1.0 - noise
            entropy = torch.special.entr(target).sum()
            total = total + found.weight[inside].sum() * (-(target * logits).sum() - entropy)
        return total

    return _noted(batch.with_coupled(loss), batch, found)


def redi(batch: WholeBatch, recipe: RecipeLike, *, rejected: float) -> WholeBatch:
    """−(mean_i mean_t log π(y⁺) − rejected·mean_i mean_t log π(y⁻)), i over the answers of each kind. REDI,
    arXiv 2505.24850. A preferred answer needs no rejected one beside it.

    Args:
        batch: needs no reference.
        recipe: not used.
        rejected: weight of the rejected answers.
    """
    del recipe
    preferred = batch.members.preferred
    length = sequence_sum(batch.rl.to(torch.float64), batch.sequence, batch.num_sequences)
    sides = ((preferred, -1.0), (~preferred & (batch.members.pair >= 0), rejected))

    def loss(logprobs: Tensor) -> Tensor:
        means = _sums(batch, logprobs) / length.clamp(min=1.0)
        parts = [sign * means[side].sum() / side.sum().clamp(min=1) for side, sign in sides]
        return torch.stack(parts).sum()

    return batch.with_coupled(loss)


def _compared(batch: WholeBatch, beta: float, slope: Margins) -> WholeBatch:
    """Adds Σ_k weight_k·(−log σ(β(slope(Δ⁺) − slope(Δ⁻))))."""
    found = comparisons(batch)

    def loss(logprobs: Tensor) -> Tensor:
        scores = slope(_deltas(batch, logprobs))
        margins = scores[found.preferred] - scores[found.rejected]
        return -(found.weight * F.logsigmoid(beta * margins)).sum()

    return _noted(batch.with_coupled(loss), batch, found)


def _noted(changed: WholeBatch, batch: WholeBatch, found: Comparisons) -> WholeBatch:
    """`changed` with what users watch: how many comparisons there are, and in how many the policy has moved from
    version 0 towards the preferred answer."""
    deltas = _deltas(batch, batch.out["logprob"].double())
    right = (deltas[found.preferred] > deltas[found.rejected]).sum()
    count = found.preferred.numel()
    numbers = {"num_comparisons": float(count), "preferred_share": float(right) / max(count, 1)}
    return replace(changed, shared={**changed.shared, **numbers})


def _deltas(batch: WholeBatch, logprobs: Tensor) -> Tensor:
    """[S] Δ of every sequence.

    Raises:
        ValueError: version 0 has not scored the batch.
    """
    if "ref_logprob" not in batch.out:
        raise ValueError("a loss of pairs needs ref_hidden and ref_head")
    return _sums(batch, logprobs - batch.out["ref_logprob"].double())


def _sums(batch: WholeBatch, values: Tensor) -> Tensor:
    """[S] sums over the trained ids of every sequence."""
    return sequence_sum(torch.where(batch.rl, values, 0.0), batch.sequence, batch.num_sequences)


def _alpha_slope(delta: Tensor, alpha: float) -> Tensor:
    """(1 − e^−αΔ)/α, flat where the exponential would overflow."""
    return -torch.expm1((-alpha * delta).clamp(max=MAX_LOG_RATIO)) / alpha


WHOLE_BATCH["dpo"] = dpo
WHOLE_BATCH["f_dpo"] = f_dpo
WHOLE_BATCH["adpo"] = adpo
WHOLE_BATCH["redi"] = redi
