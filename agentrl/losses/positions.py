"""One pass over the trained positions: their log-probs, divergences and scores, and which of them train what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from agentrl.losses.batch import HELD, OWN, REHEARSAL, LossBatch, RecipeLike, correction, kd_takes_sampled_ids
from agentrl.losses.chunked import Outputs, chunk_rows, per_position
from agentrl.losses.estimators import DENSE
from agentrl.losses.features import compute
from agentrl.losses.masking import sequence_sum
from agentrl.losses.policy_gradient import DENSE_WEIGHTS
from agentrl.losses.terms import Share

REFERENCED = frozenset({"kl_ref", "kl_ref_weighted", "js_rehearsal", "chi2", "last_token_mse"})
"""Regularisers that look at version 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """What the forward pass gave for each position, and which positions train what."""

    out: Outputs
    """[N] by name, as `agentrl.losses.features` says: logprob and entropy; with a teacher teacher_logprob and gap; and
    what the recipe's options ask for."""
    sequence: Tensor
    """[N] 0..S-1."""
    num_sequences: int
    behavior_logprobs: Tensor
    """[N] the sampler's; the policy's own, detached, where nothing is trained or the sampler's are unknown."""
    kd: Tensor
    """[N] bool: trained by distillation. As the denominators count them, but without dropped sequences."""
    rl: Tensor
    """[N] bool: trained by reward or preference."""
    either: Tensor
    """[N] bool: kd or rl."""
    rehearsal: Tensor
    """[N] bool: of version 0's own answers; neither kd nor rl."""
    foreign: Tensor
    """[N] bool: ids that the policy, or an older one, did not sample on the plain prompt."""
    shared: Mapping[str, float]
    """Numbers of the whole step."""
    forced: Tensor
    """[N] bool: the support was one id."""
    late: Tensor
    """[N] bool: positions of dropped sequences that would have been trained."""
    dropped: tuple[int, ...]
    not_held: tuple[int, ...]
    """Labels of held sequences that the teacher would have begun otherwise and that no other loss takes."""
    shares: list[Share] | None = None
    """Where every sum of the loss is noted by position, when somebody wants to know."""

    @classmethod
    def of(cls, recipe: RecipeLike, batch: LossBatch, chunk_size: int | None) -> Positions:
        streams = (batch.hidden, batch.token_ids, batch.teacher_hidden, batch.ref_hidden)
        function = partial(compute, recipe, batch.head, batch.teacher_head, batch.ref_head)
        out = per_position(function, streams, chunk_size=chunk_size or chunk_rows(batch.head.shape[0]))
        if batch.teacher_logprobs is not None:
            out["teacher_logprob"] = batch.teacher_logprobs.detach().to(out["logprob"].dtype)

        labels, sequence = torch.unique(batch.sequence, return_inverse=True)
        nowhere = torch.zeros_like(batch.token_ids, dtype=torch.bool)
        forced = nowhere if batch.num_allowed is None else batch.num_allowed == 1
        kd = _inside(batch.kd_weights, nowhere) if recipe.uses_kd else nowhere
        if kd_takes_sampled_ids(recipe):
            kd = kd & ~forced
        preferred = recipe.uses_rl or recipe.uses_pairs
        rl = _inside(batch.rl_weights, nowhere) & ~forced if preferred else nowhere
        rehearsed = nowhere if batch.source is None else batch.source == REHEARSAL
        kd, rl = kd & ~rehearsed, rl & ~rehearsed
        far = _too_far(recipe, batch, out["logprob"].detach(), kd | rl, sequence, labels.numel())
        _check(recipe, batch, out, kd, rl)
        late = (kd | rl) & far[sequence]
        kd, rl = kd & ~late, rl & ~late
        held = nowhere if batch.source is None else kd & (batch.source == HELD)
        kd = kd & ~_apart(recipe, out, held, sequence)
        idle = nowhere.new_zeros(labels.numel()).index_fill(0, sequence[held], value=True)
        idle = idle.index_fill(0, sequence[kd | rl], value=False)
        # Elsewhere the streams may hold anything; exp of that could overflow, and 0 · inf is nan in the backward pass.
        own = out["logprob"].detach()
        out["teacher_logprob"] = torch.where(kd | rl, out.get("teacher_logprob", own), own)
        sampler = own
        if batch.behavior_logprobs is not None:
            sampler = torch.where(kd | rl, batch.behavior_logprobs.to(own.dtype), own)
        return cls(
            out=out,
            sequence=sequence,
            num_sequences=labels.numel(),
            behavior_logprobs=sampler,
            kd=kd,
            rl=rl,
            either=kd | rl,
            rehearsal=rehearsed & ~forced,
            foreign=nowhere
            if batch.source is None
            else ~torch.isin(batch.source, OWN.to(batch.source.device)),
            shared=batch.shared,
            forced=forced,
            late=late,
            dropped=tuple(labels[far].tolist()),
            not_held=tuple(labels[idle].tolist()),
        )


def _check(recipe: RecipeLike, batch: LossBatch, out: Outputs, kd: Tensor, rl: Tensor) -> None:
    """Raises ValueError naming the recipe's option and the stream that it misses. Positions that train nothing need
    nothing."""
    distils, rewards = bool(kd.any()) and recipe.divergence.name != "ce", bool(rl.any())
    dense = recipe.estimator.name in DENSE or recipe.estimator.params.get("single_step", False)
    if distils and dense and "kd" not in out:
        raise ValueError(f"estimator {recipe.estimator.name!r} needs teacher_hidden and teacher_head")
    if distils and "teacher_logprob" not in out:
        raise ValueError(f"estimator {recipe.estimator.name!r} needs teacher_hidden or teacher_logprobs")
    if rewards and recipe.uses_rl and batch.advantages is None:
        raise ValueError(f"mix {recipe.mix.name!r} needs advantages")
    corrected = correction(recipe, "kd")
    divides = recipe.estimator.name == "pg" or corrected.name in DENSE_WEIGHTS
    ratios = (
        [correction(recipe, "rl")] * rewards
        + [corrected] * (distils and divides)
        + [recipe.estimator] * distils
    )
    for option in ratios:
        if option.params.get("denominator") == "sampler" and batch.behavior_logprobs is None:
            raise ValueError(
                f"{option.name!r} divides by the sampler's raw log-probs: behavior_logprobs is missing; turns "
                "without them must be refused before (agentrl.recipes.eligibility)"
            )
    for item in recipe.regularisers:
        needed = item.name in REFERENCED and item.params.get("to") != "sampler"
        if needed and batch.ref_hidden is None:
            raise ValueError(f"regulariser {item.name!r} needs ref_hidden and ref_head")


def _inside(weights: Tensor | None, nowhere: Tensor) -> Tensor:
    return ~nowhere if weights is None else weights != 0


def _too_far(
    recipe: RecipeLike, batch: LossBatch, logprobs: Tensor, mask: Tensor, sequence: Tensor, num_sequences: int
) -> Tensor:
    """[S] bool: where mean |log π − log μ| over trained positions passes the limit; none where μ is unknown."""
    if batch.behavior_logprobs is None:
        return torch.zeros(num_sequences, dtype=torch.bool, device=logprobs.device)
    distance = torch.where(mask, (logprobs - batch.behavior_logprobs).abs(), torch.zeros_like(logprobs))
    count = sequence_sum(mask.to(distance.dtype), sequence, num_sequences)
    mean = sequence_sum(distance, sequence, num_sequences) / count.clamp(min=1.0)
    return ~(mean <= recipe.limits.max_logprob_gap)  # not (≤), so that nan is too far as well


def _apart(recipe: RecipeLike, out: Outputs, held: Tensor, sequence: Tensor) -> Tensor:
    """[N] bool: held positions from the first id of their sequence on that is less likely to the teacher than the
    recipe's bound: what the policy has learned since, and what follows from it, is not to be taken back."""
    apart = torch.zeros_like(held)
    if "teacher_logprob" not in out:
        return apart
    likely = out["teacher_logprob"] >= recipe.hold_logprob  # nan is not
    for index in torch.unique(sequence[held]).tolist():
        rows = torch.nonzero(held & (sequence == index)).squeeze(-1)
        apart[rows] = (~likely[rows]).cumsum(0) > 0
    return apart
