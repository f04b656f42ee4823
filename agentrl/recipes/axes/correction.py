"""Trust regions beyond the clip: more options of the off-policy axis."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from agentrl.recipes.axes.base import Denominator, Option

Divides = Annotated[
    Denominator,
    Field(
        description="Whose log-probs divide: the sampler's own, or the trainer's before its first step on the batch."
    ),
]


class Ratio(Option):
    """−ρA, ρ differentiable and without a clip."""

    name: Literal["ratio"] = "ratio"
    denominator: Divides


class SequenceRatio(Option):
    """−min(sA, clip(s, 1−eps_low, 1+eps_high)·A), s the geometric mean of a sequence's ratios."""

    name: Literal["sequence"] = "sequence"
    denominator: Divides
    eps_low: float = Field(default=3e-4, gt=0, lt=1)
    eps_high: float = Field(default=4e-4, gt=0)


class Square(Option):
    """(A − tau·log(π/π_old))²/(2·tau) over whole sequences: policy mirror descent. Kimi k1.5."""

    name: Literal["square"] = "square"
    denominator: Divides
    tau: float = Field(default=0.1, gt=0)


class Shape(Option):
    """−A·r/(r+gamma) on ids that the policy did not sample on the plain prompt, ppo on its own. LUFFY, HeRL, AMPO."""

    name: Literal["shape"] = "shape"
    denominator: Divides
    gamma: float = Field(default=1.0, gt=0)
    r: Literal["probability", "ratio"] = "probability"
    """π(y), or π(y)/π_old(y)."""
    eps_low: float = Field(default=0.2, gt=0, lt=1)
    eps_high: float = Field(default=0.2, gt=0)
    dual_clip: float | None = Field(default=None, gt=1)


class AdaptiveClip(Option):
    """ppo whose bounds are widened, batch by batch, until what was good makes up `share` of the update. BAPO,
    arXiv 2510.18927."""

    whole_batch: ClassVar[bool] = True

    name: Literal["adaptive_clip"] = "adaptive_clip"
    denominator: Divides
    share: float = Field(default=0.5, gt=0, lt=1)
    low: tuple[float, float] = (0.6, 0.9)
    """The lower bound of ρ, at first and at most."""
    high: tuple[float, float] = (1.2, 3.0)
    """The upper bound of ρ, at first and at most."""
    step: float = Field(default=0.05, gt=0)
    dual_clip: float | None = Field(default=3.0, gt=1)


class VarPenalty(Option):
    """−ρA + eta·((ρ−1)² − delta): a bound on the variance of the ratio instead of a clip. R2VPO, arXiv 2601.03320."""

    name: Literal["var_penalty"] = "var_penalty"
    denominator: Divides
    eta: float = Field(default=1.0, ge=0)
    """The multiplier; a `dual` schedule on it holds the metric ratio_variance at delta."""
    delta: float = Field(default=0.01, ge=0)


class KlConstraint(Option):
    """−A·score, plus beta·[KL(π_old‖π) − delta]₊·KL(π_old‖π) of the whole batch, the bracket detached. DisCO."""

    whole_batch: ClassVar[bool] = True

    name: Literal["kl_constraint"] = "kl_constraint"
    denominator: Divides
    score: Literal["logprob", "ratio"] = "logprob"
    beta: float = Field(default=1e3, gt=0)
    delta: float = Field(default=1e-4, ge=0)


class ClipCov(Option):
    """ppo, and a random share of the tokens whose covariance of log π and A lies in `between` trains nothing. Entropy
    mechanism, arXiv 2505.22617."""

    whole_batch: ClassVar[bool] = True

    name: Literal["clip_cov"] = "clip_cov"
    denominator: Divides
    frac: float = Field(default=2e-4, gt=0, le=1)
    """Of all trained tokens."""
    between: tuple[float, float] = (1.0, 5.0)
    eps_low: float = Field(default=0.2, gt=0, lt=1)
    eps_high: float = Field(default=0.2, gt=0)


class KlCov(Option):
    """−ρA, plus coef·|log ρ| on the share `frac` of tokens whose covariance of log π and A is largest. Entropy
    mechanism, arXiv 2505.22617."""

    whole_batch: ClassVar[bool] = True

    name: Literal["kl_cov"] = "kl_cov"
    denominator: Divides
    frac: float = Field(default=2e-3, gt=0, le=1)
    coef: float = Field(default=1.0, gt=0)


Corrections = (
    Ratio | SequenceRatio | Square | Shape | AdaptiveClip | VarPenalty | KlConstraint | ClipCov | KlCov
)
