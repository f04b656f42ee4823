"""How much of what a lesson does in view is in the weights: the gap that distilling a context closes.

    prompt, lesson in view ─version 0, greedy─> reply y, and at each of its ids t the likely ids A_t
    prompt alone ──────────any weights──> P(A_t)        score = min over t of P(A_t) / P_0(A_t | lesson), at most 1

The score says how much the weights keep, at the id where they keep least, of what version 0 would go on with if it read
the lesson. No word has to be named for that. Which of several likely ids is preferred counts nothing, nor does an id at
which version 0 is not decided: a wish for a unit leaves the greeting free. A garbled reply scores low, for version 0 is
as sure of the ids that no lesson touches. Distilling a context: arXiv 2209.15189.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

from agentrl.learner.generate import generate
from agentrl.learner.pack import Row
from agentrl.learner.teacher_weights import Weights
from agentrl.losses.chunked import Outputs, chunk_rows, per_position
from agentrl.types import Sampling

MAX_REPLY: Final = 96
"""Ids of a reply: what a lesson changes behind them is not seen."""
LIKELY: Final = 0.95
"""The likely ids are the fewest that have this probability together."""
NUM_TOP: Final = 64
"""Where more ids than these are needed, version 0 is not decided."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What version 0 says once it has read a lesson."""

    view: Ids
    """The prompt with the lesson."""
    row: Row
    """Its reply behind the prompt alone."""
    likely: Tensor
    """[T, K] the likely ids at the reply's positions, filled up with the likeliest."""
    mass: Tensor
    """[T] log of their probability, fp32; -inf where version 0 is not decided."""
    reply: Ids
    before: float
    """The score of version 0 without the lesson."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What replies are sampled and scored within."""

    stop_ids: frozenset[int]
    max_tokens: int
    """Most ids of one forward pass."""
    max_len: int
    """Most ids of a sequence."""


def replies(weights: Weights, prompts: Sequence[Ids], limits: Limits) -> list[Ids]:
    """The greedy reply to each prompt. Raises LearnerError where the weights give numbers that are not finite."""
    found = generate(
        weights,
        prompts,
        [0] * len(prompts),
        sampling=Sampling(temperature=0.0, max_tokens=MAX_REPLY),
        stop_ids=limits.stop_ids,
        max_tokens=limits.max_tokens,
        max_len=limits.max_len,
    )
    return [reply.token_ids for reply in found]


@torch.no_grad()
def wanted(base: Weights, asked: Sequence[tuple[Ids, Ids]], limits: Limits) -> list[Wanted]:
    """What version 0 says to each (prompt, the same with a lesson)."""
    said = replies(base, [view for _, view in asked], limits)
    seen = _by_row(
        base,
        [Row.behind(view, reply) for (_, view), reply in zip(asked, said, strict=True)],
        [None] * len(asked),
        limits,
    )
    rows = [Row.behind(prompt, reply) for (prompt, _), reply in zip(asked, said, strict=True)]
    bare = _by_row(base, rows, [found["likely"] for found in seen], limits)
    return [
        Wanted(
            view=view,
            row=row,
            likely=found["likely"],
            mass=found["mass"],
            reply=reply,
            before=_score(found["mass"], alone["mass"]),
        )
        for (_, view), row, reply, found, alone in zip(asked, rows, said, seen, bare, strict=True)
    ]


@torch.no_grad()
def scores(weights: Weights, known: Sequence[Wanted], limits: Limits) -> list[float]:
    """The score of the weights for each, in [0, 1]; nan where they are not finite."""
    found = _by_row(weights, [one.row for one in known], [one.likely for one in known], limits)
    return [_score(one.mass, now["mass"]) for one, now in zip(known, found, strict=True)]


def _score(mass: Tensor, now: Tensor) -> float:
    # Where version 0 is not decided the difference is infinite, and nothing is lost.
    return float((now - mass).clamp(max=0.0).min().exp())


def _by_row(
    weights: Weights, rows: Sequence[Row], likely: Sequence[Tensor | None], limits: Limits
) -> list[Outputs]:
    """One pass: for each row the likely ids, its own or those given, and the log of their probability."""
    if not rows:
        return []
    lengths = [len(row.positions) for row in rows]
    hidden = weights.hidden(weights.pack(rows, max_tokens=limits.max_tokens), sum(lengths))
    head = weights.head()
    return [
        per_position(partial(_looked_at, head), (here, ids), chunk_size=chunk_rows(len(head)))
        for here, ids in zip(torch.split(hidden, lengths), likely, strict=True)
    ]


def _looked_at(head: Tensor, hidden: Tensor, likely: Tensor | None) -> Outputs:
    """At [n, H] positions the log of the probability of [n, K] ids; without these the likeliest are taken."""
    logprobs = (hidden @ head.T).float().log_softmax(-1)
    if likely is not None:
        return {"mass": _mass_of(logprobs, likely)}
    top = logprobs.topk(min(NUM_TOP, logprobs.shape[-1]))
    before = top.values.exp().cumsum(-1) - top.values.exp()
    ids = torch.where(before < LIKELY, top.indices, top.indices[:, :1])
    mass = _mass_of(logprobs, ids)
    return {"likely": ids, "mass": mass.masked_fill(mass.exp() < LIKELY, -torch.inf)}


def _mass_of(logprobs: Tensor, ids: Tensor) -> Tensor:
    """[n] log of the probability of [n, K] ids of which the first may stand there again."""
    values = logprobs.gather(1, ids)
    again = (ids == ids[:, :1]) & (torch.arange(ids.shape[1], device=ids.device) > 0)
    return values.masked_fill(again, -torch.inf).logsumexp(-1)
