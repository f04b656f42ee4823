"""Which distance to the teacher, how it is computed, and which tokens count: divergence, estimator, token weight."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

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


class ChiSquare(Option):
    """χ²(q‖π) = Σ(q−π)²/π: forward KL's neighbour that punishes missing mass far harder."""

    name: Literal["chi2"] = "chi2"


class Alpha(Option):
    """Amari's D_a: a = 0 is rkl, 1 fkl, ½ four times the squared Hellinger distance, 2 half of chi2."""

    name: Literal["alpha"] = "alpha"
    alpha: float = Field(default=0.5, ge=0, le=2)


class Rank(Option):
    """−log P(the teacher's order of the listed ids) under Plackett-Luce with the policy's scores. PLD, 2506.12542."""

    name: Literal["rank"] = "rank"
    weighted: bool = True
    """Each place counts by the teacher's probability of its id."""


class Ce(Option):
    """−log π of the sample's own id: imitation of a text; no teacher is asked."""

    name: Literal["ce"] = "ce"


Divergence = Annotated[Annotated[Fkl | Rkl | Jsd | ChiSquare | Alpha | Rank | Ce, BY_NAME], NAMED]


# 8 estimator


class Full(Option):
    """The sum over the whole vocabulary at every sampled position."""

    name: Literal["full"] = "full"
    pointwise_clip: float | None = Field(default=None, gt=0)
    """Largest term of one id, in nats; a larger term gets no gradient, and with fkl the other terms push its id away.
    None = no clip."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"kd"} if self.pointwise_clip is None else {"kd", "kd_cut"})


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
    """Policy gradient on the sampled id with the divergence's own advantage w_t + KL_t + Σ_{s≥1} gamma^s·w_{t+s}."""

    name: Literal["pg"] = "pg"
    weight: Literal["w_f", "minus_f"] = "w_f"
    """w_f: −E[w_f·∇ log π] is the divergence's gradient. minus_f: −f(u) alone, which is so for rkl only; for
    comparison. OPD+, arXiv 2606.01039."""
    baseline: Literal["none", "kl", "kl_topk"] = "none"
    """Of rkl: adds KL(π‖q) of the position, over the vocabulary or the policy's `k` likeliest ids renormalised. It
    changes no expected gradient, and its variance mostly for the better with large vocabularies. vOPD, 2605.07865."""
    k: int = Field(default=100, ge=1)
    """Ids of the baseline kl_topk."""
    gamma: float = Field(default=0.0, ge=0, le=1)
    """Credit of a token for the later ones of its sequence; 1 is the gradient of the sequence's divergence. A ratio
    corrects the token itself, not what an older policy sampled behind it."""
    single_step: bool = False
    """The position's own term over the whole vocabulary instead of by the sampled id. MiniLLM, 2306.08543."""
    length_norm: bool = False
    """Divides each sum over later tokens by their number. MiniLLM."""
    ratio_clip: float | None = Field(default=None, gt=0)
    """log q − log π is first brought to ±this many nats. None = no clip. OPD+."""
    reward_floor: float | None = None
    """Smallest advantage of one token, before baseline and sum. None = no floor. The code of vOPD has log(λ/(1−λ))."""

    @property
    def features(self) -> frozenset[str]:
        own = frozenset({"kd"}) if self.single_step else frozenset()
        return own if self.baseline == "none" else own | {self.baseline}


class K2(Option):
    """½(log π − log q)² on the sampled id: on-policy its gradient is that of rkl."""

    name: Literal["k2"] = "k2"


class K3(Option):
    """e^{−ℓ} − 1 + ℓ on the sampled id, ℓ = log π − log q: on-policy its gradient is that of fkl, though its value
    estimates rkl."""

    name: Literal["k3"] = "k3"


class IwK3(Option):
    """ρ·k3 on the sampled id with a differentiable ρ: the gradient of rkl whatever the sampler was."""

    name: Literal["iw_k3"] = "iw_k3"
    denominator: Denominator = "sampler"


Estimator = Annotated[Annotated[Full | TopK | Pg | K2 | K3 | IwK3, BY_NAME], NAMED]


# 9 token weight


class One(Option):
    """Every token counts the same."""

    name: Literal["one"] = "one"


Score = Literal["entropy", "kl", "soft_or", "q3", "delta_loss"]
SCORED_BY: dict[str, frozenset[str]] = {
    "entropy": frozenset(),
    "kl": frozenset({"kl"}),
    "soft_or": frozenset({"kl"}),
    "q3": frozenset({"fkl"}),
    "delta_loss": frozenset({"delta_loss"}),
}
"""What must be computed at each position for a score."""


class Ranking(Option):
    """What chooses tokens by a score."""

    frac: float = Field(default=0.5, gt=0, le=1)
    score: Score = "soft_or"
    """entropy H(π) · kl KL(π‖q) · soft_or of both · q3 KL(q‖π) where the policy is sure · delta_loss how far KL(q‖π) is
    behind that of the reference (AdaSPEC)."""
    reference: str | None = None
    """For delta_loss: the folder of another model of the policy's shape. It stands in version 0's place wherever this
    recipe looks at it; None = version 0."""

    @property
    def features(self) -> frozenset[str]:
        return SCORED_BY[self.score]

    @model_validator(mode="after")
    def _only_delta_loss_has_a_reference(self) -> Self:
        if self.reference is not None and self.score != "delta_loss":
            raise ValueError(
                f"reference is not looked at by score = {self.score!r}: set score = 'delta_loss'"
            )
        return self


class TopFrac(Ranking):
    """Only the share `frac` of each sequence's tokens that scores highest. TIP, arXiv 2604.14084."""

    name: Literal["top_frac"] = "top_frac"


class BatchTopFrac(Ranking):
    """As top_frac, ranked and scaled over the batch: a whole sequence may be left out. TIP, arXiv 2604.14084."""

    whole_batch: ClassVar[bool] = True

    name: Literal["batch_top_frac"] = "batch_top_frac"


class NegTeacherEntropy(Option):
    """In proportion to e^{−beta·H(q)}, mean 1 over the distilled tokens of the batch. SRPO, arXiv 2604.02288."""

    whole_batch: ClassVar[bool] = True

    name: Literal["neg_teacher_entropy"] = "neg_teacher_entropy"
    beta: float = Field(default=1.0, ge=0)

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"teacher_entropy"})


class CumGap(Option):
    """1 + gamma·(1 − share of the sequence's |log q − log π| that lies behind): less where the prefix has gone astray.

    IW-OPD, arXiv 2606.22600.
    """

    name: Literal["cum_gap"] = "cum_gap"
    gamma: float = Field(default=0.5, ge=0)


class SigmoidEntropy(Option):
    """σ(H(π) − H(q)): tokens of which the teacher is surer than the policy. TSD-KD."""

    name: Literal["sigmoid_entropy"] = "sigmoid_entropy"

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"teacher_entropy"})


class SigmoidGap(Option):
    """σ(scale·(log q − log π)) of the sampled id: the teacher counts where it approves. SDAR, arXiv 2605.15155."""

    name: Literal["sigmoid_gap"] = "sigmoid_gap"
    scale: float = Field(default=1.0, gt=0)


class EarlyTokens(Option):
    """A straight line from `early` at a sequence's first token to 1 at its last, mean 1. CORD, arXiv 2601.16547."""

    name: Literal["position"] = "position"
    early: float = Field(default=2.0, gt=0)


class SkipFirst(Option):
    """Not the first `n` tokens of each sequence, which tell of the teacher's context. SDFT, arXiv 2601.19897."""

    name: Literal["skip_first"] = "skip_first"
    n: int = Field(default=3, ge=0)


class Gap(Option):
    """In proportion to floor + (1−floor)·½Σ|q−π|: tokens on which teacher and policy agree count little."""

    name: Literal["gap"] = "gap"
    floor: float = Field(default=0.05, gt=0, le=1)


TokenWeight = Annotated[
    Annotated[
        One
        | TopFrac
        | BatchTopFrac
        | Gap
        | NegTeacherEntropy
        | CumGap
        | SigmoidEntropy
        | SigmoidGap
        | EarlyTokens
        | SkipFirst,
        BY_NAME,
    ],
    NAMED,
]
