"""Numbers of single positions, computed from the logits of a chunk and kept when the logits are gone.

A recipe's options say by name what they need (`Option.features`); nothing else is computed. What is registered with
`gradient` is part of a loss; the rest is looked at, as a weight or a metric, and carries none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from agentrl.losses.batch import RecipeLike
from agentrl.losses.chunked import Outputs
from agentrl.losses.divergence import DIVERGENCES, fkl, rank, rkl
from agentrl.losses.estimators import DENSE, full, kl_topk, topk
from agentrl.losses.targets import TARGETS


class Chunk:
    """The distributions of n positions; every [n, V] array lives and dies here, and is made when first asked for."""

    def __init__(
        self,
        recipe: RecipeLike,
        *,
        policy: Tensor,
        token_ids: Tensor,
        teacher_logits: Callable[[], Tensor] | None,
        reference_logits: Callable[[], Tensor] | None,
    ) -> None:
        self.recipe = recipe
        self.policy = policy
        """[n, V] log π, with gradient."""
        self.token_ids = token_ids
        """[n]"""
        self._teacher_logits = teacher_logits
        self._reference_logits = reference_logits

    def has(self, side: Side) -> bool:
        """Whether this micro batch came with that side's hidden states."""
        return {
            "policy": True,
            "teacher": self._teacher_logits is not None,
            "reference": self._reference_logits is not None,
            "both": self._teacher_logits is not None and self._reference_logits is not None,
        }[side]

    @cached_property
    def reference(self) -> Tensor:
        """[n, V] log π_0 on the plain prompt."""
        assert self._reference_logits is not None
        with torch.no_grad():
            return log_softmax(self._reference_logits())

    @cached_property
    def target(self) -> Tensor:
        """[n, V] log-probs of the distribution that is learnt, made from the teacher's by the recipe's target."""
        assert self._teacher_logits is not None
        name, params = self.recipe.target.name, self.recipe.target.params
        with torch.no_grad():
            reference = self.reference if self.has("reference") else None
            return TARGETS[name](self._teacher_logits(), self.policy.detach(), reference, **params)

    @cached_property
    def live_teacher(self) -> Tensor:
        """[n, V] the teacher's own log-probs, with gradient where it is trained too."""
        assert self._teacher_logits is not None
        return log_softmax(self._teacher_logits())

    @property
    def terms(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The recipe's divergence: [n, B] of policy and target -> [n, B]."""
        return partial(DIVERGENCES[self.recipe.divergence.name], **self.recipe.divergence.params)

    def pick(self, logprobs: Tensor) -> Tensor:
        """[n] of the sampled ids."""
        return logprobs.gather(-1, self.token_ids.unsqueeze(-1)).squeeze(-1)


Side = Literal["policy", "teacher", "reference", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One number a position."""

    of: Callable[[Chunk], Tensor]
    """-> [n]"""
    side: Side = "policy"
    """Whose hidden states it needs beside the policy's; without them it is left out."""
    gradient: bool = False


def _entropy(logprobs: Tensor) -> Tensor:
    return -(logprobs.exp() * logprobs).sum(dim=-1)


def _dense(chunk: Chunk) -> Tensor:
    estimator = chunk.recipe.estimator
    if chunk.recipe.divergence.name == "ce":
        return -chunk.pick(chunk.policy)
    if estimator.name in DENSE:
        return DENSE[estimator.name](chunk.policy, chunk.target, chunk.terms, **estimator.params)
    return full(chunk.policy, chunk.target, chunk.terms)


def _cut(chunk: Chunk) -> Tensor:
    """[n] bool: whether the pointwise clip cuts a term."""
    if chunk.recipe.divergence.name == "ce":
        return torch.zeros_like(chunk.token_ids, dtype=torch.bool)
    most: float = chunk.recipe.estimator.params["pointwise_clip"]
    return (chunk.terms(chunk.policy, chunk.target) > most).any(dim=-1)


def _teacher_entropy(chunk: Chunk) -> Tensor:
    """[n] H of the target, in which an id may have probability 0."""
    terms: Tensor = torch.special.entr(chunk.target.exp())
    return terms.sum(dim=-1)


def _delta_loss(chunk: Chunk) -> Tensor:
    """[n] how much closer version 0 is to the target than the policy: KL(q‖π) − KL(q‖π_0)."""
    return fkl(chunk.policy, chunk.target).sum(dim=-1) - fkl(chunk.reference, chunk.target).sum(dim=-1)


def _rank(chunk: Chunk) -> Tensor:
    """[n] of the regulariser `rank`: the teacher's order of the policy's likeliest ids."""
    (k,) = {item.params["k"] for item in chunk.recipe.regularisers if item.name == "rank"}
    terms = partial(rank, weighted=False)
    return topk(chunk.policy, chunk.target, terms, k=k, support="student", tail="drop")


def _kl_topk(chunk: Chunk) -> Tensor:
    return kl_topk(chunk.policy, chunk.target, k=chunk.recipe.estimator.params["k"])


def _chi2_ref(chunk: Chunk) -> Tensor:
    """[n] χ²(π‖π_0) = Σ_v π²/π_0 − 1, the ratio at most e^20."""
    ratio = (chunk.policy - chunk.reference).clamp(max=20.0).exp()
    return (chunk.policy.exp() * ratio).sum(dim=-1) - 1.0


def _mark(chunk: Chunk) -> int:
    """The id of `last_token_mse`."""
    (token,) = (item.params["token"] for item in chunk.recipe.regularisers if item.name == "last_token_mse")
    return int(token)


def _tempered(which: str, chunk: Chunk) -> Tensor:
    """[n] log softmax(z_π/T) of the sampled id, T a temperature of the advantage `tempered`."""
    (temperature,) = (
        item.params[which] for item in chunk.recipe.whole_batch_options if item.name == "tempered"
    )
    return chunk.pick(log_softmax(chunk.policy / temperature))


FEATURES: dict[str, Feature] = {
    # always there
    "logprob": Feature(of=lambda c: c.pick(c.policy), gradient=True),
    "entropy": Feature(of=lambda c: _entropy(c.policy)),
    # there with a teacher
    "teacher_logprob": Feature(of=lambda c: c.pick(c.target), side="teacher"),
    "gap": Feature(of=lambda c: 0.5 * (c.target.exp() - c.policy.exp()).abs().sum(dim=-1), side="teacher"),
    # asked for by name
    "kd": Feature(of=_dense, side="teacher", gradient=True),
    "kd_cut": Feature(of=_cut, side="teacher"),
    "kl": Feature(of=lambda c: rkl(c.policy, c.target).sum(dim=-1), side="teacher"),
    "kl_topk": Feature(of=_kl_topk, side="teacher"),
    "fkl": Feature(of=lambda c: fkl(c.policy, c.target).sum(dim=-1), side="teacher"),
    "rank": Feature(of=_rank, side="teacher", gradient=True),
    "delta_loss": Feature(of=_delta_loss, side="both"),
    "teacher_entropy": Feature(of=_teacher_entropy, side="teacher"),
    "live_entropy": Feature(of=lambda c: _entropy(c.policy), gradient=True),
    "ref_logprob": Feature(of=lambda c: c.pick(c.reference), side="reference"),
    "kl_ref": Feature(of=lambda c: rkl(c.policy, c.reference).sum(dim=-1), side="reference", gradient=True),
    "kl_ref_forward": Feature(
        of=lambda c: fkl(c.policy, c.reference).sum(dim=-1), side="reference", gradient=True
    ),
    "chi2_ref": Feature(of=_chi2_ref, side="reference", gradient=True),
    "mark_logprob": Feature(of=lambda c: c.policy[:, _mark(c)], gradient=True),
    "ref_mark_logprob": Feature(of=lambda c: c.reference[:, _mark(c)], side="reference"),
    "warm_logprob": Feature(of=partial(_tempered, "warm")),
    "cold_logprob": Feature(of=partial(_tempered, "cold")),
    "joint_logprob": Feature(of=lambda c: c.pick(c.live_teacher), side="teacher", gradient=True),
    "joint_kl": Feature(
        of=lambda c: rkl(c.live_teacher, c.policy.detach()).sum(dim=-1), side="teacher", gradient=True
    ),
}
ALWAYS = frozenset({"logprob", "entropy"})
WITH_TEACHER = frozenset({"teacher_logprob", "gap"})


def compute(
    recipe: RecipeLike,
    head: Tensor,
    teacher_head: Tensor | None,
    ref_head: Tensor | None,
    hidden: Tensor,
    token_ids: Tensor,
    teacher_hidden: Tensor | None,
    ref_hidden: Tensor | None,
) -> Outputs:
    """The features of n positions from their hidden states.

    Args:
        recipe: names the features.
        head: [V, H]; `teacher_head` and `ref_head` likewise, None without that side.
        hidden: [n, H]; `teacher_hidden` and `ref_hidden` likewise.
        token_ids: [n].

    Returns:
        [n] by name.
    """

    def logits(states: Tensor | None, matrix: Tensor | None) -> Callable[[], Tensor] | None:
        return None if states is None or matrix is None else lambda: F.linear(states, matrix)

    chunk = Chunk(
        recipe,
        policy=log_softmax(F.linear(hidden, head)),
        token_ids=token_ids,
        teacher_logits=logits(teacher_hidden, teacher_head) if recipe.uses_kd else None,
        reference_logits=logits(ref_hidden, ref_head),
    )
    out: Outputs = {}
    for name in sorted(ALWAYS | recipe.features | (WITH_TEACHER if recipe.uses_kd else frozenset())):
        feature = FEATURES[name]
        if not chunk.has(feature.side):
            continue
        with torch.set_grad_enabled(feature.gradient and torch.is_grad_enabled()):
            out[name] = feature.of(chunk)
    return out


def log_softmax(logits: Tensor) -> Tensor:
    """In fp32 whatever the model's type; fp64, which gradient checks use, stays."""
    return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
