"""Mixes of methods whose samples come from the second generation stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agentrl.recipes.axes.base import Option


class SelfDistill(Option):
    """RL + coef·CE: what was answered after a critique is learnt without it, each part over its own denominator. RLTF,
    arXiv 2602.02482."""

    name: Literal["self_distill"] = "self_distill"
    coef: float = Field(default=0.1, ge=0)
    floor: float | None = Field(default=None, lt=0)
    """Ids whose log-prob is below this take no cross entropy; None = all do."""


class Joint(Option):
    """alpha·J_T + (1−alpha)·J_S: one set of weights is trained as the teacher on its context and as the policy without.
    pi-Distill, arXiv 2602.04942."""

    name: Literal["joint"] = "joint"
    alpha: float = Field(default=0.5, ge=0, le=1)
    beta: float = Field(default=0.1, ge=0)
    """Of KL(π_T‖π_S), whose gradient goes into the teacher's side in J_T and into the policy's in J_S."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"joint_logprob", "joint_kl"})
