"""Which samples take which loss, how both are mixed and corrected: route, mix, off-policy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from agentrl.recipes.axes.base import BY_NAME, NAMED, Denominator, Option, listed
from agentrl.recipes.axes.correction import Corrections
from agentrl.recipes.axes.pairs import Adpo, Dpo, FDpo, Redi
from agentrl.recipes.axes.second import Joint, SelfDistill

# 10 route: which samples take which loss


class All(Option):
    """Every sample takes every loss that it has the inputs for."""

    name: Literal["all"] = "all"


class HasContext(Option):
    """Distillation only where the teacher sees something that the policy does not."""

    name: Literal["has_context"] = "has_context"


class ContextOrHeld(Option):
    """As `has_context`; and turns that were right without one are held to what the teacher says of the plain prompt, as
    far as it would have given that answer too. So what no context concerns is not unlearned while the weights move for
    the rest, and what was learned from a context is not taken back. A step holds only beside something that it learns.
    """

    name: Literal["context_or_held"] = "context_or_held"
    weight: float = Field(default=1.0, ge=0)
    """Of a held turn's distillation; 0 is `has_context`."""
    threshold: float = 0.5
    """Right from this reward on, the turn's own: that of its episode also stands for turns which failed."""
    min_logprob: float = Field(default=-2.5, le=0)
    """Nats. A turn is held up to the first of its ids to which the teacher gives less."""
    rehearsed: int = Field(default=4, ge=0)
    """The teacher's own answers to everyday requests, made by us, that each step holds beside what it learns; 0 = none.
    They stand in no count of turns. None where `weight` is 0, or where the teacher moves: `sync` other than "fixed"."""


class WrongWithContext(Option):
    """Distillation for what is known to be wrong where the teacher sees more; reward for everything else. SRPO,
    arXiv 2604.02288."""

    name: Literal["wrong_with_context"] = "wrong_with_context"
    threshold: float = 0.5
    """Right from this reward on."""


class CorrectCeWrongKd(Option):
    """Reward for what is known to be right, whose advantage of 1 makes it a cross entropy; distillation for what is
    known to be wrong. SCOPE, arXiv 2604.10688."""

    name: Literal["correct_ce_wrong_kd"] = "correct_ce_wrong_kd"
    threshold: float = 0.5
    """Right from this reward on."""


class RewardAtLeast(Option):
    """Distillation from this reward on. KEPO, arXiv 2602.00400."""

    name: Literal["reward_at_least"] = "reward_at_least"
    threshold: float = 1.0


class WrongOnly(Option):
    """Distillation for what is known to be wrong. KDRL, arXiv 2506.02208."""

    name: Literal["wrong_only"] = "wrong_only"
    threshold: float = 0.5
    """Right from this reward on."""


class NoCorrectInGroup(Option):
    """Distillation in groups in which nothing is known to be right. KDRL, arXiv 2506.02208."""

    name: Literal["no_correct_in_group"] = "no_correct_in_group"
    threshold: float = 0.5
    """Right from this reward on."""


class PassRate(Option):
    """Every loss times p^a·(1−p)^b, p the share of the group that is right: 0 where all or none is. PACED,
    arXiv 2603.11178."""

    name: Literal["pass_rate"] = "pass_rate"
    a: float = Field(default=1.0, ge=0)
    b: float = Field(default=1.0, ge=0)
    threshold: float = 0.5
    """Right from this reward on."""


class GaussPassRate(Option):
    """Every loss times exp(−(p−centre)²/(2·width²)), p the share of the group that is right. FG-ExPO."""

    name: Literal["gauss"] = "gauss"
    centre: float = Field(default=0.5, ge=0, le=1)
    width: float = Field(default=0.25, gt=0)
    threshold: float = 0.5
    """Right from this reward on."""


class RewardSoftmax(Option):
    """Every loss times the softmax of reward/tau over the group, of mean 1."""

    name: Literal["reward_softmax"] = "reward_softmax"
    tau: float = Field(default=1.0, gt=0)


class PplSoftmax(Option):
    """Reward losses in proportion to the policy's perplexity^(1/tau), distillation to the teacher's^(−1/tau), each of
    mean 1 over the sequences that take it. SCOPE, arXiv 2604.10688."""

    whole_batch: ClassVar[bool] = True

    name: Literal["ppl_softmax"] = "ppl_softmax"
    tau: float = Field(default=1.0, gt=0)
    """Large values make all sequences alike."""
    within: Literal["group", "batch"] = "group"
    """Which sequences are compared; on live traffic a group is one turn and its weight 1."""


Chosen = (
    HasContext
    | ContextOrHeld
    | WrongWithContext
    | CorrectCeWrongKd
    | RewardAtLeast
    | WrongOnly
    | NoCorrectInGroup
    | PassRate
    | GaussPassRate
    | RewardSoftmax
    | PplSoftmax
)
OneRoute = All | Chosen


class ProductRoute(Option):
    """The product of several routes; a list in a recipe. `route = ["correct_ce_wrong_kd", "ppl_softmax"]`"""

    name: Literal["product"] = "product"
    routes: tuple[Annotated[Annotated[Chosen, BY_NAME], NAMED], ...] = Field(min_length=2)

    @property
    def parts(self) -> tuple[Option, ...]:
        return self.routes


Route = Annotated[
    Annotated[OneRoute | ProductRoute, BY_NAME],
    listed("product", "routes"),
]


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


class Convex(Option):
    """weight·KD + (1−weight)·RL, each over its own denominator."""

    name: Literal["convex"] = "convex"
    weight: float = Field(default=0.5, ge=0, le=1)


class AdvConvex(Option):
    """One policy-gradient loss with A = weight·A_r + (1−weight)·A_q. SDPO, arXiv 2601.20802."""

    name: Literal["adv_convex"] = "adv_convex"
    weight: float = Field(default=0.9, ge=0, le=1)


class AdvMult(Option):
    """A policy gradient with A = A_r·((1−weight) + weight·clip((q/π)^sign(A_r), 1−eps, 1+eps)). RLSD, arXiv 2604.03128.

    The teacher moves how much a token gets of the reward's advantage, never its sign.
    """

    name: Literal["adv_mult"] = "adv_mult"
    weight: float = Field(default=0.5, ge=0, le=1)
    eps: float = Field(default=0.2, ge=0, lt=1)


class Routed(Option):
    """RL + KD where the route sends each sample to one of them: no coefficient, one denominator. SRPO, 2604.02288."""

    name: Literal["routed"] = "routed"


Mix = Annotated[
    Annotated[
        KdOnly
        | RlOnly
        | Sum
        | Convex
        | AdvAdd
        | AdvConvex
        | AdvMult
        | Routed
        | Dpo
        | FDpo
        | Adpo
        | Redi
        | SelfDistill
        | Joint,
        BY_NAME,
    ],
    NAMED,
]


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


class Anchor(Option):
    """Ppo with log ρ = alpha·log(π/π_old) + (1−alpha)·log(π/q): the teacher stands in the denominator,
    and there is no distillation loss. RLAD, arXiv 2602.22495."""

    name: Literal["anchor"] = "anchor"
    denominator: Denominator
    """Whose log-probs are π_old: the sampler's own, or the trainer's before its first step on the batch."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """1 is ppo, 0 leaves the teacher alone in the denominator."""
    eps_low: float = Field(default=0.2, gt=0, lt=1)
    eps_high: float = Field(default=0.28, gt=0)
    dual_clip: float | None = Field(default=None, gt=1)


class IsClip(Option):
    """A distillation loss over the vocabulary times min(π(y)/μ(y), cap), detached: caps nothing but the weight of
    tokens that an older policy sampled. SDPO, arXiv 2601.20802."""

    name: Literal["is_clip"] = "is_clip"
    denominator: Denominator = "sampler"
    cap: float = Field(default=2.0, gt=0)


class Split(Option):
    """One correction for the reward loss and another for the distillation loss."""

    name: Literal["split"] = "split"
    rl: Annotated[Annotated[Ppo | Tis, BY_NAME], NAMED]
    kd: Annotated[IsClip, NAMED]

    @property
    def parts(self) -> tuple[Option, ...]:
        return self.rl, self.kd


OffPolicy = Annotated[
    Annotated[NoCorrection | Ppo | Tis | Anchor | IsClip | Split | Corrections, BY_NAME], NAMED
]
