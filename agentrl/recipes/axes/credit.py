"""Which samples take which loss, what rewards become, how both are mixed and corrected: route, advantage, mix,
off-policy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agentrl.recipes.axes.base import BY_NAME, NAMED, Denominator, Option

# 10 route: which samples take which loss


class All(Option):
    """Every sample takes every loss that it has the inputs for."""

    name: Literal["all"] = "all"


class HasContext(Option):
    """Distillation only where the teacher sees something that the policy does not."""

    name: Literal["has_context"] = "has_context"


Route = Annotated[Annotated[All | HasContext, BY_NAME], NAMED]


# 11 advantage


class NoAdvantage(Option):
    """Rewards are not used."""

    name: Literal["none"] = "none"


class Raw(Option):
    """A = r."""

    name: Literal["raw"] = "raw"


class Group(Option):
    """A = (r − mean) / (std + eps) over the group; without std, A = r − mean."""

    name: Literal["group"] = "group"
    std: Literal["population", "sample", "none"] = "population"
    eps: float = Field(default=1e-6, ge=0)


class LeaveOneOut(Option):
    """A = r − mean of the other members' rewards."""

    name: Literal["loo"] = "loo"


Advantage = Annotated[Annotated[NoAdvantage | Raw | Group | LeaveOneOut, BY_NAME], NAMED]


# 12 mix: how distillation and reward become one loss


class KdOnly(Option):
    """Distillation alone."""

    name: Literal["kd"] = "kd"


class RlOnly(Option):
    """Reward alone."""

    name: Literal["rl"] = "rl"


class Sum(Option):
    """rl·RL + kd·KD, each over its own denominator."""

    name: Literal["sum"] = "sum"
    kd: float = Field(default=1.0, ge=0)
    rl: float = Field(default=1.0, ge=0)


class AdvAdd(Option):
    """One policy-gradient loss with A = reward·A_r + distill·A_q, A_q the divergence's own advantage."""

    name: Literal["adv_add"] = "adv_add"
    reward: float = Field(default=1.0, ge=0)
    distill: float = Field(default=1.0, ge=0)


Mix = Annotated[Annotated[KdOnly | RlOnly | Sum | AdvAdd, BY_NAME], NAMED]


# 13 off-policy correction of policy-gradient losses


class NoCorrection(Option):
    """−A·log π: assumes that the policy itself has sampled."""

    name: Literal["none"] = "none"


class Ppo(Option):
    """−min(ρA, clip(ρ, 1−eps_low, 1+eps_high)·A); with dual_clip c and A < 0 at most −cA."""

    name: Literal["ppo"] = "ppo"
    denominator: Denominator
    """Whose log-probs divide: the sampler's own, or the trainer's before its first step on the batch."""
    eps_low: float = Field(default=0.2, gt=0, lt=1)
    eps_high: float = Field(default=0.2, gt=0)
    dual_clip: float | None = Field(default=None, gt=1)


class Tis(Option):
    """−min(ρ, cap)·A·log π with ρ detached: truncated importance sampling."""

    name: Literal["tis"] = "tis"
    denominator: Denominator
    """Whose log-probs divide: the sampler's own, or the trainer's before its first step on the batch."""
    cap: float = Field(default=2.0, gt=0)


OffPolicy = Annotated[Annotated[NoCorrection | Ppo | Tis, BY_NAME], NAMED]
