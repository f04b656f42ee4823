"""What is added to the loss, and what it is divided by: regularisers and aggregate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agentrl.recipes.axes.base import BY_NAME, NAMED, Option

# 14 regularisers


class KlRef(Option):
    """coef·KL(π‖π_0), π_0 version 0 on the plain prompt."""

    name: Literal["kl_ref"] = "kl_ref"
    coef: float = Field(gt=0)
    estimator: Literal["full", "k2", "k3"] = "full"
    """k3, the usual choice, has the gradient of the other direction, KL(π_0‖π), on the policy's own samples."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"kl_ref" if self.estimator == "full" else "ref_logprob"})


class Entropy(Option):
    """−coef·H(π): keeps the policy from becoming certain too early."""

    name: Literal["entropy"] = "entropy"
    coef: float = Field(gt=0)

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"live_entropy"})


Regulariser = Annotated[Annotated[KlRef | Entropy, BY_NAME], NAMED]


# 15 aggregate


class TokenMean(Option):
    """The sum over trained tokens of the whole batch, divided by their number."""

    name: Literal["token_mean"] = "token_mean"


class SeqMean(Option):
    """The mean over sequences of each sequence's token mean."""

    name: Literal["seq_mean"] = "seq_mean"


Aggregate = Annotated[Annotated[TokenMean | SeqMean, BY_NAME], NAMED]
