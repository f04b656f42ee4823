"""What tokens are compared by: numbers of single positions, without gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from agentrl.losses.chunked import Outputs

Score = Literal["entropy", "kl", "soft_or", "q3", "delta_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a weight may look at, each [N] without gradient; None where it was not computed."""

    entropy: Tensor
    """H(π), nats."""
    gap: Tensor | None = None
    """½Σ_v|q_v − π_v|, the share of probability that the teacher moves; in [0, 1]."""
    kl: Tensor | None = None
    """KL(π‖q), nats."""
    fkl: Tensor | None = None
    """KL(q‖π), nats."""
    delta_loss: Tensor | None = None
    """KL(q‖π) − KL(q‖π_0), nats: how far the policy is behind version 0."""
    teacher_entropy: Tensor | None = None
    """H(q), nats."""
    log_u: Tensor | None = None
    """log q − log π of the sampled id."""

    @classmethod
    def of(cls, out: Outputs) -> Self:
        """From what the forward pass gave (`agentrl.losses.features`)."""
        log_u = None
        if "teacher_logprob" in out:
            log_u = (out["teacher_logprob"] - out["logprob"]).detach()
        return cls(
            entropy=out["entropy"].detach(),
            gap=out.get("gap"),
            kl=out.get("kl"),
            fkl=out.get("fkl"),
            delta_loss=out.get("delta_loss"),
            teacher_entropy=out.get("teacher_entropy"),
            log_u=log_u,
        )

    def by(self, score: Score, rows: Tensor) -> Tensor:
        """[n] the score of some positions; two scores joined into one are scaled over these positions.

        entropy H(π). kl KL(π‖q). soft_or ĥ + δ̂ − ĥδ̂ with ĥ the scaled entropy and δ̂ the scaled KL(π‖q); q3
        KL(q‖π)·(1 − ĥ), where the policy is sure of something else (both TIP, arXiv 2604.14084). delta_loss
        KL(q‖π) − KL(q‖π_0) (AdaSPEC, arXiv 2510.19779).
        """
        if score == "entropy":
            return self.entropy[rows]
        if score == "soft_or":
            return soft_or(self.entropy[rows], known(self.kl, score)[rows])
        if score == "q3":
            return known(self.fkl, score)[rows] * (1.0 - scaled(self.entropy[rows]))
        return known(self.kl if score == "kl" else self.delta_loss, score)[rows]


def highest(values: Tensor, frac: float) -> Tensor:
    """n/k on the k = ⌈frac·n⌉ highest of n values, else 0; of equal values the earlier goes first.

    Args:
        values: [n], n ≥ 1.
        frac: in (0, 1].

    Returns:
        [n] with mean 1.
    """
    count = values.numel()
    keep = math.ceil(frac * count)
    order = torch.argsort(values, descending=True, stable=True)
    weights = torch.zeros_like(values)
    weights[order[:keep]] = count / keep
    return weights


def soft_or(entropy: Tensor, kl: Tensor) -> Tensor:
    """ĥ + δ̂ − ĥδ̂ of two streams scaled to [0, 1]; at least the larger of both, at most 1.

    Args:
        entropy, kl: [n], n ≥ 1.

    Returns:
        [n] in [0, 1].
    """
    h, d = scaled(entropy), scaled(kl)
    return h + d - h * d


def scaled(values: Tensor) -> Tensor:
    """[n] between 0 at the least and 1 at the largest value; a constant stream gives 0."""
    low, high = values.min(), values.max()
    width = high - low
    return torch.where(width > 0, (values - low) / width.clamp(min=torch.finfo(values.dtype).tiny), 0.0)


def known(values: Tensor | None, name: str) -> Tensor:
    """The values, of which `name` cannot do without."""
    assert values is not None, f"{name} needs what the teacher gives"
    return values
