"""Losses of preferred and rejected answers to one prompt: options of the mix, in the place of distillation and reward.

A pair is one preferred answer and every answer to the same prompt that it was preferred to, normally one. Sums go over
an answer's trained ids: Δ = Σ_t log π(y_t) − log π_0(y_t), π_0 version 0 on the plain prompt.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from agentrl.recipes.axes.base import Option


class PairLoss(Option):
    """What all losses of pairs have in common: they see both answers at once, whichever micro batch they stand in."""

    whole_batch: ClassVar[bool] = True
    compares: ClassVar[bool] = True
    """Whether an answer that stands alone teaches nothing."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"ref_logprob"})


class Dpo(PairLoss):
    """−log σ(β(Δ⁺ − Δ⁻)). DPO, arXiv 2305.18290."""

    name: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0)


class FDpo(PairLoss):
    """−log σ(β(f'(u⁺) − f'(u⁻))), u = e^Δ: DPO whose policy is kept near version 0 by another divergence. f-DPO,
    arXiv 2309.16240."""

    name: Literal["f_dpo"] = "f_dpo"
    beta: float = Field(default=0.1, gt=0)
    divergence: Literal["rkl", "jsd", "alpha", "fkl"] = "jsd"
    """rkl is DPO itself."""
    alpha: float | None = Field(default=None, gt=0, lt=1)
    """Of divergence "alpha", and of no other; towards 0 it becomes rkl, towards 1 fkl."""

    @model_validator(mode="after")
    def _alpha_belongs_to_one_divergence(self) -> Self:
        if (self.divergence == "alpha") != (self.alpha is not None):
            raise ValueError("alpha is set with divergence = 'alpha', and only then")
        return self


class Adpo(PairLoss):
    """KL(t‖softmax(Δ/tau)) over the answers of a pair, t = 1 − noise on the preferred one and the rest shared out among
    the others. Anchored DPO, arXiv 2510.18913."""

    name: Literal["adpo"] = "adpo"
    tau: float = Field(default=10.0, gt=0)
    """1/tau is the beta of DPO, which noise = 0 and one rejected answer give."""
    noise: float = Field(default=0.0, ge=0, lt=1)
    """Share of preferences that are taken to be mistaken."""


class Redi(PairLoss):
    """−(mean_t log π(y⁺) − rejected·mean_t log π(y⁻)), without a reference. REDI, arXiv 2505.24850."""

    compares: ClassVar[bool] = False
    name: Literal["redi"] = "redi"
    rejected: float = Field(default=0.8, ge=0, le=1)
    """0 learns the preferred answers alone: the method's first stage."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset()
