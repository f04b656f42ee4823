"""What is added to the loss, and what it is divided by: regularisers and aggregate."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from agentrl.recipes.axes.base import BY_NAME, NAMED, Option

# 14 regularisers


class KlRef(Option):
    """coef·KL between the policy and a reference on the plain prompt."""

    name: Literal["kl_ref"] = "kl_ref"
    coef: float = Field(ge=0)
    estimator: Literal["full", "k2", "k3", "iw_k3"] = "full"
    """full: the whole vocabulary. On the policy's own samples k2 has the gradient of KL(π‖π_0), k3, the usual choice,
    that of the other direction, KL(π_0‖π); iw_k3 has that of KL(π‖π_0) whatever the sampler was. k1 has none."""
    direction: Literal["reverse", "forward"] = "reverse"
    """Of `full`: KL(π‖π_0), or KL(π_0‖π)."""
    to: Literal["version_0", "sampler"] = "version_0"
    """sampler: the policy that sampled, known at the sampled ids alone."""
    soup: str = ""
    """Folder of another model of the policy's shape: the mean of its weights and version 0's then stands in version 0's
    place wherever this recipe looks at it. SALSA."""

    @property
    def features(self) -> frozenset[str]:
        if self.to == "sampler":
            return frozenset()
        if self.estimator != "full":
            return frozenset({"ref_logprob"})
        return frozenset({"kl_ref" if self.direction == "reverse" else "kl_ref_forward"})


class WeightedKlRef(Option):
    """coef·w_i·KL to version 0 over the whole vocabulary, w_i a weight of the sequence."""

    whole_batch: ClassVar[bool] = True

    name: Literal["kl_ref_weighted"] = "kl_ref_weighted"
    coef: float = Field(ge=0)
    direction: Literal["reverse", "forward"] = "reverse"
    by: Literal["reward", "difficulty"] = "reward"
    """reward: e^{R/tau}, of mean 1 over the batch (RAPO). difficulty: the share of its group that is wrong, on
    sequences of positive advantage, else 0 (APO)."""
    tau: float = Field(default=1.0, gt=0)
    threshold: float = 0.5
    """Right from this reward on."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"kl_ref" if self.direction == "reverse" else "kl_ref_forward"})


class JsRehearsal(Option):
    """coef·2·JSD(π_0, π), or KL(π_0‖π), on version 0's own good answers, the samples of source "rehearsal". DPH-RL."""

    name: Literal["js_rehearsal"] = "js_rehearsal"
    coef: float = Field(default=0.05, ge=0)
    divergence: Literal["js", "fkl"] = "js"

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"ref_logprob"})


class Entropy(Option):
    """−coef·H(π): keeps the policy from becoming certain too early."""

    name: Literal["entropy"] = "entropy"
    coef: float = Field(ge=0)

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"live_entropy"})


class EntropyBand(Option):
    """coef·(how far H(π) lies outside [low, high]) on the tokens that are trained. SPINE."""

    name: Literal["entropy_band"] = "entropy_band"
    coef: float = Field(default=0.01, ge=0)
    low: float = Field(ge=0)
    """Nats."""
    high: float = Field(gt=0)
    """Nats."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"live_entropy"})


class Chi2(Option):
    """coef·χ²(π‖π_0) = coef·(Σ π²/π_0 − 1). ORPO with occupancy measures takes it of whole trajectories."""

    name: Literal["chi2"] = "chi2"
    coef: float = Field(default=0.01, ge=0)

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"chi2_ref"})


class Length(Option):
    """A + coef·λ, λ = ½ − (length − shortest)/(longest − shortest) of the group, at most 0 where the answer is wrong.
    Kimi k1.5."""

    whole_batch: ClassVar[bool] = True

    name: Literal["length"] = "length"
    coef: float = Field(default=0.1, ge=0)
    of: Literal["all", "wrong"] = "all"
    """wrong: only answers that are wrong lose by their length (APO)."""
    threshold: float = 0.5
    """Right from this reward on."""


class LastTokenMse(Option):
    """coef·(beta·log π(token)/π_0(token) − R)² where a sequence ends, right and wrong answers of equal weight. LaSeR.

    It teaches the policy to say, in the log-prob of one id that it never uses, whether its answer is right.
    """

    whole_batch: ClassVar[bool] = True

    name: Literal["last_token_mse"] = "last_token_mse"
    coef: float = Field(default=0.1, ge=0)
    token: int = Field(ge=0)
    """z, an id that does not occur in answers. Read where the sequence's last trained id is predicted."""
    beta: float = Field(default=0.1, gt=0)
    share: float = Field(default=0.0, ge=0, le=1)
    """Share of the advantage that is the group's standardised self-score. LaSeR: .1 after 200 steps."""
    min_std: float = Field(default=0.1, ge=0)
    """Groups whose self-scores differ less than this say nothing: their self-score's share of the advantage is 0."""
    threshold: float = 0.5
    """Right from this reward on."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"mark_logprob", "ref_mark_logprob"})


class RankOrder(Option):
    """coef·(−log P(the teacher's order of the policy's `k` likeliest ids)) where a sequence begins. TSD-KD."""

    name: Literal["rank"] = "rank"
    coef: float = Field(default=0.1, ge=0)
    k: int = Field(default=10, ge=2)
    prefix: float = Field(default=0.1, gt=0, le=1)
    """The beginning: as long as less than this share of the sequence's entropy lies behind."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"rank"})


class Certainty(Option):
    """coef·H(π) on the share `frac` of each sequence's tokens where it is highest: makes the policy decide. TSD-KD."""

    name: Literal["certainty"] = "certainty"
    coef: float = Field(default=1.0, ge=0)
    frac: float = Field(default=0.1, gt=0, le=1)

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"live_entropy"})


class HardTokens(Option):
    """−coef·log π of the samples' own ids: plain imitation of a text, beside what is distilled."""

    name: Literal["ce"] = "ce"
    coef: float = Field(default=1.0, ge=0)


Regulariser = Annotated[
    Annotated[
        KlRef
        | WeightedKlRef
        | JsRehearsal
        | Entropy
        | EntropyBand
        | Chi2
        | Length
        | LastTokenMse
        | RankOrder
        | Certainty
        | HardTokens,
        BY_NAME,
    ],
    NAMED,
]


# 15 aggregate


class TokenMean(Option):
    """The sum over trained tokens of the whole batch, divided by their number."""

    name: Literal["token_mean"] = "token_mean"


class RoutedTokenMean(Option):
    """The token sums of all losses, divided by the number of tokens that any of them trains. SRPO, arXiv 2604.02288."""

    name: Literal["routed_token_mean"] = "routed_token_mean"


class SeqMean(Option):
    """The mean over sequences of each sequence's token mean."""

    name: Literal["seq_mean"] = "seq_mean"


class SumConst(Option):
    """The sum over trained tokens divided by a constant: neither length nor number of tokens weighs a token. Dr. GRPO,
    arXiv 2503.20783; C3PO."""

    name: Literal["sum_const"] = "sum_const"
    budget: int = Field(default=16384, ge=1)
    """Tokens that a step is meant to hold."""


Aggregate = Annotated[Annotated[TokenMean | RoutedTokenMean | SeqMean | SumConst, BY_NAME], NAMED]
