"""Sampling: logits to ids, with the log-probs that training needs, for a whole batch at once.

Order of operations: the grammar's mask, temperature, then top-k, then top-p on what top-k left. Temperature 0 is
greedy: the support is one id, so its log-prob is 0. `raw` log-probs are always those at temperature 1 without mask or
filters.

Each sequence brings its own uniform number per step, drawn from its own seed, and its id is read off the cumulated
distribution. So a seeded sequence does not depend on who else is in the batch.

Shapes: B sequences, V vocabulary, K candidates kept by a filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agentrl.types import Sampling

Masks = Mapping[int, NDArray[np.bool_]]

FIRST_CANDIDATES = 1024
"""Candidates looked at before the whole vocabulary is sorted: top-p rarely keeps more."""

LARGEST_UNIFORM = 1.0 - 2.0**-53


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """One sampled id per sequence, in plain numbers; every list has B entries."""

    token_ids: list[int]
    logprobs: list[float]
    raw_logprobs: list[float]
    num_allowed: list[int]
    top: dict[int, tuple[tuple[int, float], ...]]
    """By sequence index, for those that asked: the likeliest ids with raw log-probs, best first."""
    broken: tuple[int, ...] = ()
    """Sequences whose logits were not finite: their draws mean nothing."""


def draw(
    logits: Tensor, requests: Sequence[Sampling], uniforms: Sequence[float], masks: Masks | None = None
) -> Draws:
    """Samples one id for each sequence.

    Args:
        logits: [B, V] fp32.
        requests: [B] how to sample each sequence.
        uniforms: [B] numbers in [0, 1), one per sequence; greedy sequences ignore theirs.
        masks: by sequence index, for those that follow a grammar: [V] the ids that may be drawn, at least one.

    Returns:
        The ids with both log-probs and the size of the support sampled from.
    """
    vocab = logits.shape[1]
    raw = free = torch.log_softmax(logits, dim=-1)
    sizes = [vocab] * len(requests)
    if masks:
        logits, raw = masked(logits, raw, masks)
        for i, mask in masks.items():
            sizes[i] = int(np.count_nonzero(mask))
    plain = [i for i, r in enumerate(requests) if r.temperature > 0 and not filters(r, vocab)]
    greedy = [i for i, r in enumerate(requests) if r.temperature <= 0]
    filtered = [i for i, r in enumerate(requests) if r.temperature > 0 and filters(r, vocab)]

    count = len(requests)
    if len(plain) == count:
        ids, logprobs = draw_plain(logits, raw, requests, uniforms)
        allowed = torch.tensor(sizes)
    elif len(greedy) == count:
        ids, logprobs = logits.argmax(-1), torch.zeros(count)
        allowed = torch.ones(count, dtype=torch.long)
    else:
        ids = torch.empty(count, dtype=torch.long, device=logits.device)
        logprobs = torch.zeros(count, device=logits.device)
        allowed = torch.ones(count, dtype=torch.long, device=logits.device)
        if plain:
            at = torch.tensor(plain, device=logits.device)
            few, few_u = [requests[i] for i in plain], [uniforms[i] for i in plain]
            ids[at], logprobs[at] = draw_plain(logits[at], raw[at], few, few_u)
            allowed[at] = torch.tensor([sizes[i] for i in plain], device=logits.device)
        if greedy:
            at = torch.tensor(greedy, device=logits.device)
            ids[at] = logits[at].argmax(-1)
        if filtered:
            at = torch.tensor(filtered, device=logits.device)
            few, few_u = [requests[i] for i in filtered], [uniforms[i] for i in filtered]
            ids[at], logprobs[at], allowed[at] = draw_filtered(logits[at], few, few_u)

    chosen = free.gather(1, ids.unsqueeze(1)).squeeze(1).tolist()
    return Draws(
        token_ids=ids.tolist(),
        logprobs=logprobs.tolist(),
        raw_logprobs=chosen,
        num_allowed=allowed.tolist(),
        top=most_likely(free, requests),
        broken=tuple(i for i, value in enumerate(chosen) if not value > -torch.inf),
    )


def masked(logits: Tensor, logprobs: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
    """[B, V] logits and log-probs: masked sequences have only what their masks allow, the others are as they were."""
    places = sorted(masks)
    barred = torch.from_numpy(~np.stack([masks[i] for i in places])).to(logits.device)
    if len(places) == len(logits):
        left = logits.masked_fill(barred, -torch.inf)
        return left, torch.log_softmax(left, dim=-1)
    rows = torch.tensor(places, device=logits.device)
    left = logits[rows].masked_fill(barred, -torch.inf)
    return logits.index_copy(0, rows, left), logprobs.index_copy(0, rows, torch.log_softmax(left, dim=-1))


def filters(request: Sampling, vocab: int) -> bool:
    """Whether top-k or top-p can remove an id."""
    return 0 < request.top_k < vocab or request.top_p < 1.0


def draw_plain(
    logits: Tensor, raw: Tensor, requests: Sequence[Sampling], uniforms: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Ids [B] and log-probs [B] from the full vocabulary; `raw` [B, V] serves where the temperature is 1."""
    logprobs = raw
    if any(request.temperature != 1.0 for request in requests):
        logprobs = torch.log_softmax(logits / column([r.temperature for r in requests], logits), dim=-1)
    ids = invert(logprobs.exp(), uniforms)
    return ids, logprobs.gather(1, ids.unsqueeze(1)).squeeze(1)


def draw_filtered(
    logits: Tensor, requests: Sequence[Sampling], uniforms: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids [B], log-probs [B] and support sizes [B] after top-k and top-p.

    top-p keeps the smallest set of likeliest ids whose mass reaches p, the likeliest always. Ties at an edge are cut
    by rank, so top-k keeps exactly k ids.
    """
    vocab = logits.shape[1]
    scaled = logits / column([r.temperature for r in requests], logits)
    limits = [r.top_k if 0 < r.top_k < vocab else vocab for r in requests]
    width = min(vocab, max(limits))
    if width > FIRST_CANDIDATES:
        best, ids = scaled.topk(FIRST_CANDIDATES, dim=-1)
        mass = (best - scaled.logsumexp(-1, keepdim=True)).exp().sum(-1).tolist()
        enough = all(
            limit <= FIRST_CANDIDATES or reached >= request.top_p
            for limit, reached, request in zip(limits, mass, requests, strict=True)
        )
        if not enough:
            best, ids = scaled.topk(width, dim=-1)
    else:
        best, ids = scaled.topk(width, dim=-1)

    rank = torch.arange(best.shape[1], device=logits.device)
    # Mass is measured against what top-k kept: within K where top-k cuts, against the vocabulary where it does not.
    kept = best.masked_fill(rank >= column(limits, rank), -torch.inf)
    cut = torch.tensor([limit <= best.shape[1] for limit in limits], device=logits.device)
    total = torch.where(cut, kept.logsumexp(-1), scaled.logsumexp(-1)).unsqueeze(1)
    probs = (kept - total).exp()
    before = probs.cumsum(-1, dtype=torch.float64) - probs
    kept = kept.masked_fill((before >= column([r.top_p for r in requests], before)) & (rank > 0), -torch.inf)

    logprobs = torch.log_softmax(kept, dim=-1)
    at = invert(logprobs.exp(), uniforms).unsqueeze(1)
    allowed = (kept > -torch.inf).sum(-1)
    return ids.gather(1, at).squeeze(1), logprobs.gather(1, at).squeeze(1), allowed


def invert(probs: Tensor, uniforms: Sequence[float]) -> Tensor:
    """The index [B] at which the cumulated probabilities [B, K] first exceed u.

    Cumulated in fp64, and scaled by the true total, so an id with probability 0 is never returned: its cumulated
    value does not exceed its predecessor's.
    """
    cumulated = probs.cumsum(-1, dtype=torch.float64)
    target = column([min(u, LARGEST_UNIFORM) for u in uniforms], cumulated) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, target, right=True).squeeze(1).clamp_max(probs.shape[1] - 1)


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """[B, 1] of the same type and device as `like`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(1)


def most_likely(raw: Tensor, requests: Sequence[Sampling]) -> dict[int, tuple[tuple[int, float], ...]]:
    """The likeliest ids of the sequences that asked for them."""
    asked = [i for i, request in enumerate(requests) if request.top_logprobs > 0]
    if not asked:
        return {}
    width = min(raw.shape[1], max(requests[i].top_logprobs for i in asked))
    values, ids = raw[torch.tensor(asked, device=raw.device)].topk(width, dim=-1)
    rows = zip(asked, ids.tolist(), values.tolist(), strict=True)
    return {
        i: tuple(zip(row_ids[: requests[i].top_logprobs], row_values, strict=False))
        for i, row_ids, row_values in rows
    }
