"""Sequences -> micro batches that compute what the sequences share only once.

Turns of live traffic begin alike: the same system prompt and tools, often the same conversation. Rows are therefore
sorted by their ids and cut into runs; a run computes its common prefix in one pass and then only the rest of each
row, in buckets of similar length, padded on the right. Both cuts minimise the number of ids computed. Attention is
causal, so padding on the right changes nothing to its left and needs no mask, and the gradient flows through the
prefix's keys and values: the result is that of every row alone, up to the order of floating-point sums.

    row 0  [ prefix .......... ][ rest 0 ]pad        prefix   [P]     once
    row 1  [ prefix .......... ][ rest 1    ]        rest     [B, S]  reads the prefix's keys and values
    row 2  [ prefix .......... ][ rest 2            another bucket  ]
                                                     hidden of trained ids only: [n, H]

Lengths: L = ids of a row, N = trained ids of all rows, n = those of one micro batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agentrl.types import TeacherView

MIN_PREFIX = 16
"""A shorter common prefix is not worth a pass of its own."""
PASS_COST = 64
"""What one more forward pass costs, in ids; small models feel it, large ones do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sequence and the ids of it that are looked at."""

    token_ids: tuple[int, ...]
    """[L]"""
    positions: tuple[int, ...]
    """[T] ascending positions in 1..L-1; the hidden state that predicts the id at t is that of t - 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Rows of one micro batch with rests of similar length."""

    rest: Tensor
    """[B, S] the ids behind the prefix, padded with id 0 on the right."""
    gather: Tensor
    """[m] positions in the flattened [B * S] whose hidden states predict trained ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """What is computed at a time: one pass for the prefix, where there is one, and one a bucket."""

    prefix: Tensor
    """[P] ids that every row begins with; P may be 0."""
    buckets: tuple[Bucket, ...]
    slots: Tensor
    """[n] where the buckets' trained ids stand among the N of all rows, rows in the order given, ids ascending."""

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(
            prefix=self.prefix.to(device),
            buckets=tuple(
                Bucket(rest=bucket.rest.to(device), gather=bucket.gather.to(device))
                for bucket in self.buckets
            ),
            slots=self.slots.to(device),
        )


def pack(rows: Sequence[Row], *, max_tokens: int, share: bool = True) -> list[MicroBatch]:
    """Cuts rows into micro batches of at most `max_tokens` computed ids; a longer row has a batch of its own.

    Args:
        rows: each with at least one position.
        max_tokens: padding included, a prefix counted once.
        share: whether the model can read a prefix's keys and values from a cache.
    """
    for row in rows:
        assert row.positions, "a row without trained ids has nothing to compute"
        assert row.positions[0] >= 1, "the first id of a sequence is predicted by nothing"
    ends = list(itertools.accumulate(len(row.positions) for row in rows))
    first_slot = [end - len(row.positions) for end, row in zip(ends, rows, strict=True)]
    order = sorted(
        range(len(rows)), key=lambda index: rows[index].token_ids if share else (len(rows[index].token_ids),)
    )
    ordered = [rows[index] for index in order]
    shared = [_shared(a, b) if share else 0 for a, b in itertools.pairwise(ordered)]

    def cost(begin: int, end: int) -> tuple[int, int]:
        num_prefix = _usable(min(shared[begin : end - 1], default=0))
        rests = [len(row.token_ids) - num_prefix for row in ordered[begin:end]]
        passes = 2 if num_prefix else 1
        return num_prefix + sum(rests) + passes * PASS_COST, num_prefix + len(rests) * max(rests)

    micros = []
    for begin, end in _cheapest_runs(len(ordered), cost, max_tokens):
        num_prefix = _usable(min(shared[begin : end - 1], default=0))
        members = sorted(order[begin:end], key=lambda index: len(rows[index].token_ids))
        micros.append(_micro_batch(rows, members, num_prefix, first_slot))
    return micros


def teacher_positions(
    view: TeacherView, token_ids: Sequence[int], positions: Sequence[int]
) -> tuple[int, ...]:
    """Where positions of the sample's own ids stand in the teacher's ids.

    Raises:
        ValueError: deleting the inserted spans does not give `token_ids`: the teacher would judge another text.
    """
    keep: list[int] = []
    at = 0
    for start, end in view.inserted_spans:
        keep.extend(range(at, start))
        at = end
    keep.extend(range(at, len(view.token_ids)))
    if len(keep) != len(token_ids):
        raise ValueError(f"the teacher's view holds {len(keep)} of the sample's {len(token_ids)} ids")
    for own, there in enumerate(keep):
        if view.token_ids[there] != token_ids[own]:
            raise ValueError(
                f"the teacher's view has id {view.token_ids[there]} where the sample has {token_ids[own]} "
                f"(position {own})"
            )
    return tuple(keep[position] for position in positions)


def _shared(a: Row, b: Row) -> int:
    """Length of the common prefix that leaves every needed hidden state in the rest of both rows."""
    limit = min(a.positions[0], b.positions[0]) - 1
    for at, (left, right) in enumerate(zip(a.token_ids[:limit], b.token_ids[:limit], strict=True)):
        if left != right:
            return at
    return limit


def _usable(num_prefix: int) -> int:
    return num_prefix if num_prefix >= MIN_PREFIX else 0


def _cheapest_runs(
    count: int, cost: Callable[[int, int], tuple[int, int]], max_tokens: int
) -> list[tuple[int, int]]:
    """The partition of 0..count-1 into runs [begin, end) of least total cost, by dynamic programming.

    Args:
        cost: (begin, end) -> what the run costs, and how many ids it has at most, padding included. The second number
            must not fall when a run is extended to the left.
        max_tokens: a run of more than one member keeps to it.
    """
    best = [0.0] + [float("inf")] * count
    cut = [0] * (count + 1)
    for end in range(1, count + 1):
        for begin in range(end - 1, -1, -1):
            price, num_tokens = cost(begin, end)
            if num_tokens > max_tokens and begin < end - 1:
                break
            if best[begin] + price < best[end]:
                best[end], cut[end] = best[begin] + price, begin
    runs = []
    end = count
    while end:
        runs.append((cut[end], end))
        end = cut[end]
    return runs[::-1]


def _micro_batch(
    rows: Sequence[Row], members: Sequence[int], num_prefix: int, first_slot: Sequence[int]
) -> MicroBatch:
    """`members` are indices of rows, shortest first."""
    rests = [rows[index].token_ids[num_prefix:] for index in members]

    def padded(begin: int, end: int) -> tuple[int, int]:
        num_tokens = (end - begin) * len(rests[end - 1])
        return num_tokens + PASS_COST, num_tokens

    buckets = []
    slots: list[int] = []
    for begin, end in _cheapest_runs(len(rests), padded, max_tokens=sum(map(len, rests)) * len(rests)):
        width = len(rests[end - 1])
        ids = [[*rest, *[0] * (width - len(rest))] for rest in rests[begin:end]]
        gather: list[int] = []
        for place, index in enumerate(members[begin:end]):
            row = rows[index]
            gather.extend(place * width + position - 1 - num_prefix for position in row.positions)
            slots.extend(range(first_slot[index], first_slot[index] + len(row.positions)))
        buckets.append(Bucket(rest=torch.tensor(ids), gather=torch.tensor(gather)))
    prefix = torch.tensor(rows[members[0]].token_ids[:num_prefix], dtype=torch.long)
    return MicroBatch(prefix=prefix, buckets=tuple(buckets), slots=torch.tensor(slots))
