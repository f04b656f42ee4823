"""What is kept of a policy's distributions, so that another one can be held against it later, and how far that one is.

    KL(new || old) >= sum over old's top ids and the rest of p log(p / q),  q the old one's, p the new one's

Old distributions are kept as their `NUM_TOP` likeliest ids and the probability of all others together, so that a
large vocabulary costs no more memory than a small one. Merging ids can only lower a KL divergence: what is reported is
a lower bound, exact where the vocabulary has no more ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import torch
from torch import Tensor

from agentrl.learner.pack import Row
from agentrl.learner.teacher_weights import Weights
from agentrl.losses.chunked import Outputs, chunk_rows, per_position

NUM_TOP: Final = 64
SMALLEST: Final = 1e-9
"""Least probability of the other ids together: below, rounding speaks."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What is kept of a policy's distributions at a row's T positions."""

    ids: Tensor
    """[T, K] the likeliest ids."""
    logprobs: Tensor
    """[T, K] theirs, fp32."""
    entropy: Tensor | None = None
    """[T] of the whole distributions, in nats, where it was asked for."""


@torch.no_grad()
def looked_at(
    weights: Weights, rows: Mapping[K, Row], known: Mapping[K, Outline], *, max_tokens: int
) -> tuple[dict[K, Outline], dict[K, Tensor]]:
    """One pass: the outlines of the rows, and of those with a known one [T] the divergence from it."""
    if not rows:
        return {}, {}
    outlines, divergences = {}, {}
    head = weights.head()
    for name, here in zip(rows, _hidden(weights, rows, max_tokens), strict=True):
        old = known.get(name)
        streams = (here, None if old is None else old.ids, None if old is None else old.logprobs)
        found = per_position(partial(_outlined, head), streams, chunk_size=chunk_rows(len(head)))
        outlines[name] = Outline(ids=found["ids"], logprobs=found["logprobs"])
        if old is not None:
            divergences[name] = found["divergence"]
    return outlines, divergences


@torch.no_grad()
def divergences(
    weights: Weights, rows: Mapping[K, Row], known: Mapping[K, Outline], *, max_tokens: int
) -> dict[K, Tensor]:
    """[T] the divergence of each row from its known outline; no new ones are made.

    Args:
        known: has one of every row.
    """
    if not rows:
        return {}
    found = {}
    head = weights.head()
    for name, here in zip(rows, _hidden(weights, rows, max_tokens), strict=True):
        streams = (here, known[name].ids, known[name].logprobs)
        chunks = per_position(partial(_divergent, head), streams, chunk_size=chunk_rows(len(head)))
        found[name] = chunks["divergence"]
    return found


@torch.no_grad()
def mixed(
    weights: Weights, rows: Mapping[K, Row], others: Mapping[K, Row], *, max_tokens: int
) -> dict[K, Outline]:
    """The outlines, with entropy, of the even mixture of what the weights say at a row's positions and at those of its
    other row.

    Args:
        others: for each row one with as many positions.
    """
    if not rows:
        return {}
    head = weights.head()
    both = (_hidden(weights, given, max_tokens) for given in (rows, {name: others[name] for name in rows}))
    outlines = {}
    for name, *streams in zip(rows, *both, strict=True):
        found = per_position(partial(_mixture, head), streams, chunk_size=chunk_rows(len(head)))
        outlines[name] = Outline(**found)
    return outlines


def divergence(logprobs: Tensor, old: Outline) -> Tensor:
    """[T] KL(new || old) over the old version's likeliest ids and all others as one, in nats.

    Args:
        logprobs: [T, V] of the new version.
        old: at the same positions.
    """
    new = logprobs.gather(1, old.ids)
    inside = (new.exp() * (new - old.logprobs)).sum(-1)
    if old.ids.shape[1] == logprobs.shape[1]:
        return inside
    rest, was = (1.0 - part.double().exp().sum(-1) for part in (new, old.logprobs))
    rest, was = rest.clamp(min=SMALLEST), was.clamp(min=SMALLEST)
    return inside + (rest * (rest / was).log()).to(inside)


def _hidden(weights: Weights, rows: Mapping[K, Row], max_tokens: int) -> tuple[Tensor, ...]:
    """For each row [T, H]."""
    lengths = [len(row.positions) for row in rows.values()]
    micros = weights.pack(list(rows.values()), max_tokens=max_tokens)
    return torch.split(weights.hidden(micros, sum(lengths)), lengths)


def _outlined(head: Tensor, hidden: Tensor, ids: Tensor | None, logprobs: Tensor | None) -> Outputs:
    """The outline of [n, H] positions, and where an old one is given, [n] the divergence from it."""
    new = (hidden @ head.T).float().log_softmax(-1)
    found = _top(new)
    if ids is not None and logprobs is not None:
        found["divergence"] = divergence(new, Outline(ids=ids, logprobs=logprobs))
    return found


def _divergent(head: Tensor, hidden: Tensor, ids: Tensor, logprobs: Tensor) -> Outputs:
    """[n] the divergence of [n, H] positions from an old outline."""
    new = (hidden @ head.T).float().log_softmax(-1)
    return {"divergence": divergence(new, Outline(ids=ids, logprobs=logprobs))}


def _mixture(head: Tensor, hidden: Tensor, other: Tensor) -> Outputs:
    """The outline of the even mixture at two times [n, H] positions, and its entropy."""
    one, two = ((part @ head.T).float().log_softmax(-1) for part in (hidden, other))
    both = torch.logaddexp(one, two) - math.log(2.0)
    return _top(both) | {"entropy": torch.special.entr(both.exp()).sum(-1)}


def _top(logprobs: Tensor) -> Outputs:
    top = logprobs.topk(min(NUM_TOP, logprobs.shape[-1]))
    return {"ids": top.indices, "logprobs": top.values}
