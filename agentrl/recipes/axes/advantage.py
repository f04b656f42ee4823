"""What rewards become: the advantage axis. Options that hold a `base` begin with the base's advantages and change them
when the whole batch has been scored."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from agentrl.recipes.axes.base import BY_NAME, NAMED, Option

# 11 advantage


class NoAdvantage(Option):
    """Rewards are not used."""

    name: Literal["none"] = "none"


class Raw(Option):
    """A = r: the turn's own reward where it has one, else its episode's; with weights outcome·R + process·r of both."""

    name: Literal["raw"] = "raw"
    outcome: float | None = Field(default=None, ge=0)
    """Weight of the episode's reward, the environment's. A live turn then waits for the end of its episode, with that
    reward or, by a typed end, without; what comes later does not count. 1 where only `process` is given."""
    process: float | None = Field(default=None, ge=0)
    """Weight of the turn's own reward, the environment's word aside; 0 = the outcome alone. 1 where only `outcome` is
    given."""

    @property
    def weights(self) -> tuple[float, float] | None:
        """Of outcome and process; None where one of both stands for the other."""
        if self.outcome is None and self.process is None:
            return None
        return 1.0 if self.outcome is None else self.outcome, 1.0 if self.process is None else self.process


class Group(Option):
    """A = (r − mean) / (std + eps) over the group; without std, A = r − mean."""

    name: Literal["group"] = "group"
    std: Literal["population", "sample", "none"] = "population"
    eps: float = Field(default=1e-6, ge=0)


class LeaveOneOut(Option):
    """A = r − mean of the other members' rewards."""

    name: Literal["loo"] = "loo"


class StepIndexGroup(Option):
    """Like group, but only turns that are the same number of turns into their episodes are compared. OpenClaw-RL,
    arXiv 2603.10165, for agents with a reward of every step."""

    name: Literal["step_index_group"] = "step_index_group"
    std: Literal["population", "sample", "none"] = "population"
    eps: float = Field(default=1e-6, ge=0)
    outcome: float = Field(default=1.0, ge=0)
    """Weight of the episode's reward in that of each of its turns."""
    process: float = Field(default=1.0, ge=0)
    """Weight of the turn's own reward; with 0 the turns are compared by the outcome alone."""

    @property
    def weights(self) -> tuple[float, float]:
        """Of outcome and process."""
        return self.outcome, self.process


class FirstTurn(Option):
    """A second answer's reward less the mean reward of the group's first answers, which train nothing. RLTF,
    arXiv 2602.02482."""

    name: Literal["first_turn"] = "first_turn"


class PositiveOnly(Option):
    """Like group, but what is not better than the group's mean trains nothing."""

    name: Literal["positive_only"] = "positive_only"
    std: Literal["population", "sample", "none"] = "population"
    eps: float = Field(default=1e-6, ge=0)


class Based(Option):
    """An option that changes the advantages of another one when the whole batch has been scored."""

    whole_batch: ClassVar[bool] = True

    base: Base = Group()
    """What it begins with."""

    @property
    def parts(self) -> tuple[Option, ...]:
        return (*self.base.parts, self)


class EntropyShift(Based):
    """A − gamma·(mean entropy of the sequence). GTPO, arXiv 2508.03772."""

    name: Literal["entropy_shift"] = "entropy_shift"
    gamma: float = Field(default=0.1, ge=0)
    max_entropy: float | None = Field(default=None, gt=0)
    """Sequences of a greater mean entropy, in nats, train nothing; GTPO: ln 2, where version 0 lies below it."""


class Conflict(Based):
    """A·gain on ids that a better and a worse answer of a group share at their beginnings or ends, and 0 on the worse
    one's: what both need is not unlearnt. GTPO, arXiv 2508.03772."""

    name: Literal["conflict"] = "conflict"
    gain: float = Field(default=2.0, gt=0)


class TopTokens(Based):
    """Only the share `frac` of the batch's tokens that scores highest; their weight is 1/frac. D3S, SPINE."""

    name: Literal["top_tokens"] = "top_tokens"
    frac: float = Field(default=0.2, gt=0, le=1)
    score: Literal["entropy", "advantage_entropy"] = "entropy"
    """advantage_entropy: |A|·H."""


class Tempered(Based):
    """(1−α)·A + α·1[right]·π_T(y)/π_old(y): pushes the policy's own distribution towards an entropy. DCPO."""

    name: Literal["tempered"] = "tempered"
    entropy: float = Field(gt=0)
    """H*, nats. α = x/(1+x) with x = min(|H* − H|, width)/(share of right answers)."""
    width: float = Field(default=0.1, gt=0)
    warm: float = Field(default=1.2, gt=0)
    """T while H < H*."""
    cold: float = Field(default=0.8, gt=0)
    """T otherwise."""
    threshold: float = 0.5
    """Right from this reward on."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"warm_logprob", "cold_logprob"})


class Process(Based):
    """A − beta·log(π/π_0) of the whole turn: each turn pays for how far it goes from version 0. PRL."""

    name: Literal["process"] = "process"
    beta: float = Field(default=0.01, gt=0)

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"ref_logprob"})


class EntropyRank(Based):
    """Wrong answers of a group get up to `bonus` more reward, the most certain one the most; then the group's
    standardised advantages. R3, arXiv 2601.19620."""

    name: Literal["entropy_rank"] = "entropy_rank"
    bonus: float = Field(default=0.1, gt=0)
    threshold: float = 0.5
    """Right from this reward on."""


class Discriminative(Option):
    """Gradient of mean s over right answers − tau·log mean e^{s/tau} over wrong ones, group by group; s is the mean of
    what the off-policy axis differentiates, log π or ρ. DisCO."""

    whole_batch: ClassVar[bool] = True

    name: Literal["discriminative"] = "discriminative"
    tau: float = Field(default=10.0, gt=0)
    shortness: float | None = Field(default=None, gt=0)
    """λ: right answers weigh e^{−length/(λ·longest right answer)}; None = all alike. DRPO."""
    threshold: float = 0.5
    """Right from this reward on."""


Base = Annotated[
    Annotated[
        Raw
        | Group
        | LeaveOneOut
        | PositiveOnly
        | EntropyShift
        | Conflict
        | TopTokens
        | Tempered
        | Process
        | EntropyRank,
        BY_NAME,
    ],
    NAMED,
]
for _option in (Based, EntropyShift, Conflict, TopTokens, Tempered, Process, EntropyRank):
    _option.model_rebuild()

Advantage = Annotated[
    Annotated[
        NoAdvantage
        | Raw
        | Group
        | LeaveOneOut
        | StepIndexGroup
        | FirstTurn
        | PositiveOnly
        | EntropyShift
        | Conflict
        | TopTokens
        | Tempered
        | Process
        | EntropyRank
        | Discriminative,
        BY_NAME,
    ],
    NAMED,
]
