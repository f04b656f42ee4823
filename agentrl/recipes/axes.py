"""The fifteen axes of a recipe and the options of each.

A learning method is one point in this space. An option here holds its name, its parameters and their ranges; the pure
function of the same name that does the work is registered where it runs, and a test holds both lists equal:

    rollout, transform           agentrl.learner              (how samples are collected and edited)
    context                      agentrl.teacher.contexts
    teacher, sync                agentrl.learner              (whose weights, and when they follow)
    target                       agentrl.losses.targets
    divergence                   agentrl.losses.divergence
    estimator                    agentrl.losses.estimators
    token_weight                 agentrl.losses.token_weights
    route                        agentrl.recipes.routes
    advantage                    agentrl.recipes.credit
    mix                          agentrl.losses.mix
    offpolicy                    agentrl.losses.policy_gradient
    regularisers                 agentrl.losses.objective
    aggregate                    agentrl.losses.masking

In a preset an option is its name, or a table where it has parameters: `divergence = "fkl"`,
`divergence = { name = "jsd", beta = 0.5 }`.

Symbols: π the policy on the plain prompt, q the teacher (detached), μ the sampler, g = ∇ log π.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Position = Literal["system", "last_user", "tail"]
Denominator = Literal["sampler", "trainer"]


class Option(BaseModel):
    """One option of one axis."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    name: str

    @property
    def params(self) -> dict[str, Any]:
        """The keyword arguments of the function registered under `name`."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}


def _named(value: Any) -> Any:
    """A bare name stands for the option with its defaults."""
    return {"name": value} if isinstance(value, str) else value


_NAMED = BeforeValidator(_named)
_BY_NAME = Field(discriminator="name")


# 1 rollout


class Stream(Option):
    """Every turn of live traffic is a sample of its own."""

    name: Literal["stream"] = "stream"


class Student(Option):
    """Groups of `group_size` turns sampled by the policy for one task key."""

    name: Literal["student"] = "student"
    group_size: int = Field(default=8, ge=1)
    group_timeout_s: float = Field(default=600.0, gt=0)
    """How long an incomplete group waits for its other turns before it is rejected."""


Rollout = Annotated[Annotated[Stream | Student, _BY_NAME], _NAMED]


# 2 transform


class NoTransform(Option):
    """Records are trained as sampled."""

    name: Literal["none"] = "none"


Transform = Annotated[NoTransform, _NAMED]


# 3 context: what the teacher sees and the policy does not


class NoContext(Option):
    """The teacher reads the served prompt."""

    name: Literal["none"] = "none"


class Solution(Option):
    """The reference answer: the text that a signal says would have been preferred. OPSD, arXiv 2601.18734."""

    name: Literal["solution"] = "solution"
    position: Position = "last_user"


class HindsightHint(Option):
    """What somebody who had seen the next state would have said beforehand. OpenClaw-RL, arXiv 2603.10165."""

    name: Literal["hindsight_hint"] = "hindsight_hint"
    position: Position = "tail"
    recall: float = Field(default=0.0, ge=0, le=1)
    """0: the turn's own hint alone. Above: what earlier requests brought that share this part of their words."""


class SkillContext(Option):
    """Skills chosen from the library for this task. Skill-SD, arXiv 2604.10674."""

    name: Literal["skill"] = "skill"
    position: Position = "system"


class EnvFeedback(Option):
    """What the environment answered to this very turn. SDPO, arXiv 2601.20802."""

    name: Literal["env_feedback"] = "env_feedback"
    position: Position = "tail"
    max_chars: int = Field(default=2000, ge=1)
    """Longer feedback keeps its end, where shells and test runners put the error."""


Context = Annotated[
    Annotated[NoContext | Solution | HindsightHint | SkillContext | EnvFeedback, _BY_NAME], _NAMED
]


# 4 teacher


class NoTeacher(Option):
    """No teacher: reward alone."""

    name: Literal["none"] = "none"


class SelfTeacher(Option):
    """The policy's own weights, as the sync axis says, on the prompt with the privileged context."""

    name: Literal["self"] = "self"


class CachedTeacher(Option):
    """Log-probs of the sampled ids that were stored with the sample; no other id has a score."""

    name: Literal["cached"] = "cached"


Teacher = Annotated[Annotated[NoTeacher | SelfTeacher | CachedTeacher, _BY_NAME], _NAMED]


# 5 sync: which weights the self-teacher has


class Fixed(Option):
    """The weights of version 0, always."""

    name: Literal["fixed"] = "fixed"


class Live(Option):
    """The weights that are being trained, at every step."""

    name: Literal["live"] = "live"


class CopyEvery(Option):
    """A copy of the policy, renewed after every `steps` optimiser steps."""

    name: Literal["copy_every"] = "copy_every"
    steps: int = Field(default=1, ge=1)


class Ema(Option):
    """θ̄ ← (1−rate)·θ̄ + rate·θ after every optimiser step."""

    name: Literal["ema"] = "ema"
    rate: float = Field(default=0.05, ge=0, le=1)


Sync = Annotated[Annotated[Fixed | Live | CopyEvery | Ema, _BY_NAME], _NAMED]


# 6 target: the distribution that is learnt


class TeacherTarget(Option):
    """q itself."""

    name: Literal["q"] = "q"


class Temper(Option):
    """softmax(log q / temperature)."""

    name: Literal["temper"] = "temper"
    temperature: float = Field(default=1.0, gt=0)


class Extrap(Option):
    """∝ q^coef·π_0^(1−coef), π_0 version 0 on the plain prompt: what the context changed, made larger.

    ExOPD, arXiv 2602.12125, which finds 1.25 good and 1.5 unstable.
    """

    name: Literal["extrap"] = "extrap"
    coef: float = Field(default=1.25, ge=1, le=2)


Target = Annotated[Annotated[TeacherTarget | Temper | Extrap, _BY_NAME], _NAMED]


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


Divergence = Annotated[Annotated[Fkl | Rkl | Jsd, _BY_NAME], _NAMED]


# 8 estimator


class Full(Option):
    """The sum over the whole vocabulary at every sampled position."""

    name: Literal["full"] = "full"
    pointwise_clip: float | None = Field(default=None, gt=0)
    """Largest term of one id, in nats; a larger term gets no gradient. None = no clip."""


class TopK(Option):
    """The sum over the `k` likeliest ids of one side, and what is done with the rest."""

    name: Literal["topk"] = "topk"
    k: int = Field(default=100, ge=1)
    support: Literal["student", "teacher"] = "student"
    tail: Literal["bucket", "renorm", "drop"] = "bucket"
    """bucket: one bin for all other ids; renorm: both sides renormalised, another objective; drop: left out."""


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


Estimator = Annotated[Annotated[Full | TopK | Pg | K2 | IwK3, _BY_NAME], _NAMED]


# 9 token weight: mean 1 within each sequence


class One(Option):
    """Every token counts the same."""

    name: Literal["one"] = "one"


class TopFrac(Option):
    """Only the share `frac` of each sequence's tokens that scores highest. TIP, arXiv 2604.14084."""

    name: Literal["top_frac"] = "top_frac"
    frac: float = Field(default=0.5, gt=0, le=1)
    score: Literal["entropy", "kl", "soft_or"] = "soft_or"


class Gap(Option):
    """In proportion to floor + (1−floor)·½Σ|q−π|: tokens on which teacher and policy agree count little."""

    name: Literal["gap"] = "gap"
    floor: float = Field(default=0.05, gt=0, le=1)


TokenWeight = Annotated[Annotated[One | TopFrac | Gap, _BY_NAME], _NAMED]


# 10 route: which samples take which loss


class All(Option):
    """Every sample takes every loss that it has the inputs for."""

    name: Literal["all"] = "all"


class HasContext(Option):
    """Distillation only where the teacher sees something that the policy does not."""

    name: Literal["has_context"] = "has_context"


Route = Annotated[Annotated[All | HasContext, _BY_NAME], _NAMED]


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


Advantage = Annotated[Annotated[NoAdvantage | Raw | Group | LeaveOneOut, _BY_NAME], _NAMED]


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


Mix = Annotated[Annotated[KdOnly | RlOnly | Sum | AdvAdd, _BY_NAME], _NAMED]


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


OffPolicy = Annotated[Annotated[NoCorrection | Ppo | Tis, _BY_NAME], _NAMED]


# 14 regularisers


class KlRef(Option):
    """coef·KL(π‖π_0), π_0 version 0 on the plain prompt."""

    name: Literal["kl_ref"] = "kl_ref"
    coef: float = Field(gt=0)
    estimator: Literal["full", "k2", "k3"] = "full"
    """k3, the usual choice, has the gradient of the other direction, KL(π_0‖π), on the policy's own samples."""


class Entropy(Option):
    """−coef·H(π): keeps the policy from becoming certain too early."""

    name: Literal["entropy"] = "entropy"
    coef: float = Field(gt=0)


Regulariser = Annotated[Annotated[KlRef | Entropy, _BY_NAME], _NAMED]


# 15 aggregate


class TokenMean(Option):
    """The sum over trained tokens of the whole batch, divided by their number."""

    name: Literal["token_mean"] = "token_mean"


class SeqMean(Option):
    """The mean over sequences of each sequence's token mean."""

    name: Literal["seq_mean"] = "seq_mean"


Aggregate = Annotated[Annotated[TokenMean | SeqMean, _BY_NAME], _NAMED]
