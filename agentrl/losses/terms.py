"""What single positions add to a loss: noted beside its sums, never part of them.

    total_k = Σ_t share_kt            every sum of the loss, one position a term     (`noted`)
    L = Σ_k (∂L/∂total_k)·total_k     a loss is linear in its sums, so that
    L = Σ_t Σ_k (∂L/∂total_k)·share_kt

The factors of a recipe's mix, its weights and coefficients, are thus asked of the loss itself. No number of the loss is
computed in another way than without notes, and nothing of the forward pass is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One sum of a loss and what each position gave to it."""

    total: Tensor
    """[] with its gradient path."""
    terms: Tensor
    """[N] detached; they add up to `total`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the positions of a micro batch gave, [N] each and detached."""

    loss: Tensor
    """What each adds to `LossOutput.loss`; nan where nothing is trained. Of a loss that couples answers every position
    has an equal part."""
    logprob: Tensor
    """log π of the sampled id."""
    teacher_logprob: Tensor
    """log of the target at the sampled id; nan where nothing is distilled."""
    advantage: Tensor
    """The reward's; nan where no reward is trained."""
    ratio: Tensor
    """π/μ of the sampled id; nan where no reward is trained or the sampler's log-prob is unknown."""


def noted(total: Callable[[Tensor], Tensor], values: Tensor, notes: list[Share] | None) -> Tensor:
    """`total(values)`, with what each value gave to it written into `notes`, where there are any.

    Args:
        total: [N] -> [], linear.
        values: [N].
    """
    found = total(values)
    if notes is not None:
        with torch.enable_grad():
            own = values.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(total(own), own)
        if (
            not found.requires_grad
        ):  # it adds to the loss, and its factor is asked of the loss like any other's
            found = found.detach().requires_grad_()
        # where, not a product: 0 · inf is nan.
        notes.append(Share(total=found, terms=torch.where(slopes != 0, slopes * own.detach(), 0.0)))
    return found


def summed(loss: Tensor, shares: Sequence[Share], zeros: Tensor) -> Tensor:
    """[N] what each position gives to `loss`; its graph stays as it is.

    Args:
        loss: [] linear in the totals.
        shares: of all its sums.
        zeros: [N].
    """
    if not shares:
        return zeros
    totals = [share.total for share in shares]
    slopes = torch.autograd.grad(loss, totals, retain_graph=True, allow_unused=True)
    found = zeros
    for share, slope in zip(shares, slopes, strict=True):
        if slope is not None:
            found = found + slope * share.terms
    return found
