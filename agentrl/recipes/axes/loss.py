"""Which distance to the teacher, how it is computed, and which tokens count: divergence, estimator, token weight."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agentrl.recipes.axes.base import BY_NAME, NAMED, Denominator, Option

# 7 divergence


class Fkl(Option):
    """KL(q‖π): covers what the teacher does, also where the policy has almost no mass."""

    name: Literal["fkl"] = "fkl"


class Rkl(Option):
    """KL(π‖q): keeps to what the policy already does."""

    name: Literal["rkl"] = "rkl"


class Jsd(Option):
    """β·KL(q‖m) + (1−β)·KL(π‖m), m = βq + (1−β)π; β = 0 is defined as fkl, β = 1 as rkl."""

    name: Literal["jsd"] = "jsd"
    beta: float = Field(default=0.5, ge=0, le=1)


Divergence = Annotated[Annotated[Fkl | Rkl | Jsd, BY_NAME], NAMED]


# 8 estimator


class Full(Option):
    """The sum over the whole vocabulary at every sampled position."""

    name: Literal["full"] = "full"
    pointwise_clip: float | None = Field(default=None, gt=0)
    """Largest term of one id, in nats; a larger term gets no gradient. None = no clip."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"kd"})


class TopK(Option):
    """The sum over the `k` likeliest ids of one side, and what is done with the rest."""

    name: Literal["topk"] = "topk"
    k: int = Field(default=100, ge=1)
    support: Literal["student", "teacher"] = "student"
    tail: Literal["bucket", "renorm", "drop"] = "bucket"
    """bucket: one bin for all other ids; renorm: both sides renormalised, another objective; drop: left out."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"kd"})


class Pg(Option):
    """Policy gradient on the sampled id with the divergence's own advantage."""

    name: Literal["pg"] = "pg"


class K2(Option):
    """½(log π − log q)² on the sampled id: on-policy its gradient is that of rkl."""

    name: Literal["k2"] = "k2"


class IwK3(Option):
    """ρ·k3 on the sampled id with a differentiable ρ: the gradient of rkl whatever the sampler was."""

    name: Literal["iw_k3"] = "iw_k3"
    denominator: Denominator = "sampler"


Estimator = Annotated[Annotated[Full | TopK | Pg | K2 | IwK3, BY_NAME], NAMED]


# 9 token weight: mean 1 within each sequence


class One(Option):
    """Every token counts the same."""

    name: Literal["one"] = "one"


class TopFrac(Option):
    """Only the share `frac` of each sequence's tokens that scores highest. TIP, arXiv 2604.14084."""

    name: Literal["top_frac"] = "top_frac"
    frac: float = Field(default=0.5, gt=0, le=1)
    score: Literal["entropy", "kl", "soft_or"] = "soft_or"

    @property
    def features(self) -> frozenset[str]:
        return frozenset() if self.score == "entropy" else frozenset({"kl"})


class Gap(Option):
    """In proportion to floor + (1−floor)·½Σ|q−π|: tokens on which teacher and policy agree count little."""

    name: Literal["gap"] = "gap"
    floor: float = Field(default=0.05, gt=0, le=1)


TokenWeight = Annotated[Annotated[One | TopFrac | Gap, BY_NAME], NAMED]
