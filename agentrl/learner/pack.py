"""Sequences -> micro batches that compute what the sequences share only once.

Turns of live traffic begin alike: the same system prompt and tools, often the same conversation. Their rows become
the paths of a tree (`agentrl.learner.tree`); sorted paths are cut into runs, and each run is computed in the cheaper
of two ways. Which cuts and which way: what the estimate of ids, passes and pairs of attention says.

    buckets   the prefix common to the run in a pass of its own, then what is left of each path behind the prefix's
              keys and values, in buckets of similar length, padded on the right. Attention is causal: no mask.
              Best for many short paths behind one preamble, and for a conversation that only grew: one path.
    tree      the longest path as the prefix, then all that leaves it as one masked sequence in which every id stands
              once. Best where paths fork again and again: rewritten histories, a teacher's block at every turn's tail.

    path 0  [ prefix .......... ][ rest 0 ]pad        prefix   [P]     once
    path 1  [ prefix .......... ][ rest 1    ]        rest     [B, S]  reads the prefix's keys and values
    path 2  [ prefix .......... ][ rest 2             another bucket; a tree's branches are one of [1, S]
                                                      hidden of trained ids only: [n, H]

The gradient flows through the prefix's keys and values: the result is that of every row alone, up to the order of
floating-point sums. Lengths: L = ids of a row, N = trained ids of all rows, n = those of one micro batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from agentrl.learner.runs import cheapest_runs
from agentrl.learner.tree import Path, branches_of, common, forks_of, paths_of
from agentrl.learner.tree import Row as Row
from agentrl.types import TeacherView

Sharing = Literal["none", "prefix", "tree"]
"""What a model can do: rows alone; a prefix's keys and values read by many rows; a tree's mask besides."""

MIN_PREFIX = 16
"""A shorter common prefix is not worth a pass of its own."""
PASS_COST = 64
"""What one more forward pass costs, in ids; small models feel it, large ones do not."""
MAX_MASK = 2**27
"""Most entries of a tree's mask: an eighth of a GiB of truth values, and four times that where they become numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Paths of one micro batch with rests of similar length, or branches of its prefix as one sequence."""

    rest: Tensor
    """[B, S] the ids behind the prefix, padded with id 0 on the right."""
    gather: Tensor
    """[m] positions in the flattened [B * S] whose hidden states predict trained ids."""
    depths: Tensor | None = None
    """[S] of branches, with B = 1: position of each id on its path."""
    reads: Tensor | None = None
    """[S] of branches: how many ids of the prefix each id sees."""
    ends: Tensor | None = None
    """[S] of branches: where the ids that see each id end."""

    def to(self, device: torch.device) -> Bucket:
        return Bucket(
            rest=self.rest.to(device),
            gather=self.gather.to(device),
            depths=None if self.depths is None else self.depths.to(device),
            reads=None if self.reads is None else self.reads.to(device),
            ends=None if self.ends is None else self.ends.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """What is computed at a time: one pass for the prefix, where there is one, and one a bucket."""

    prefix: Tensor
    """[P] ids that every path begins with, or the longest path itself, which the others branch from; P may be 0."""
    prefix_gather: Tensor
    """[p] positions in the prefix whose hidden states predict trained ids."""
    buckets: tuple[Bucket, ...]
    slots: Tensor
    """[n] where the trained ids, the prefix's and then the buckets', stand among the N of all rows, rows in the order
    given, ids ascending."""

    @property
    def num_ids(self) -> int:
        """Ids computed, padding included."""
        return len(self.prefix) + sum(bucket.rest.numel() for bucket in self.buckets)

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(
            prefix=self.prefix.to(device),
            prefix_gather=self.prefix_gather.to(device),
            buckets=tuple(bucket.to(device) for bucket in self.buckets),
            slots=self.slots.to(device),
        )


@dataclass(slots=True, kw_only=True)
class IdCount:
    """What sharing saved over a number of calls of `pack`."""

    num_in_rows: int = 0
    """Ids that rows computed one by one would have taken."""
    num_computed: int = 0

    def add(self, rows: Sequence[Row], micros: Sequence[MicroBatch]) -> None:
        self.num_in_rows += sum(len(row.needed) for row in rows)
        self.num_computed += sum(micro.num_ids for micro in micros)

    def metrics(self, name: str) -> dict[str, float]:
        """Both numbers and their ratio for the pass `name`; none where nothing was computed."""
        if not self.num_computed:
            return {}
        return {
            f"num_{name}_ids_in_rows": float(self.num_in_rows),
            f"num_{name}_ids_computed": float(self.num_computed),
            f"{name}_prefix_sharing": self.num_in_rows / self.num_computed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """How wide the rests of a bucket are made."""

    multiple_of: int = 1
    max_len: int = 2**31
    """Most ids of a path, padding included; a model may know no more positions."""

    def width(self, length: int, num_prefix: int) -> int:
        """For rests of `length` ids behind a prefix."""
        return max(length, min(-(-length // self.multiple_of) * self.multiple_of, self.max_len - num_prefix))


def pack(
    rows: Sequence[Row],
    *,
    max_tokens: int,
    share: Sharing = "tree",
    pairs_per_id: float = 1024.0,
    padding: Padding = Padding(),
) -> list[MicroBatch]:
    """Cuts rows into micro batches of limited size. What is cut apart repeats only its path to the root.

    Args:
        rows: each with at least one position.
        max_tokens: most ids computed in one, padding included, a prefix counted once; where a single row has more,
            as many as the longest, for that one must be computed anyway.
        share: what the model can do.
        pairs_per_id: how many pairs of attention take as long as all the rest that is done for one id.
        padding: of buckets; a tree has none.
    """
    for row in rows:
        assert row.positions, "a row without trained ids has nothing to compute"
        assert row.positions[0] >= 1, "the first id of a sequence is predicted by nothing"
    paths = paths_of(rows, merge=share != "none")
    shared = [0] * (len(paths) - 1) if share == "none" else _shared(paths)
    limit = max([max_tokens, *(padding.width(len(path.token_ids), 0) for path in paths)])

    def plans(end: int) -> Iterator[tuple[float, bool]]:
        """The cheaper plan of the runs [end - 1, end), [end - 2, end) ..., and whether it is a tree. Every run holds
        the ids of the shorter ones, so the first that is too large for either plan is the last one looked at."""
        num_prefix = num_nodes = num_ids = squares = longest = 0
        for begin in range(end - 1, -1, -1):
            count, length = end - begin, len(paths[begin].token_ids)
            if count > 1:
                num_prefix = shared[begin] if count == 2 else min(num_prefix, shared[begin])
                num_nodes -= shared[begin]
            num_nodes, num_ids, squares = num_nodes + length, num_ids + length, squares + length * length
            longest = max(longest, length)
            prefix = _usable(num_prefix)
            ahead = prefix + PASS_COST + prefix * prefix / pairs_per_id if prefix else 0.0
            best: tuple[float, bool] | None = None
            if prefix + count * padding.width(longest - prefix, prefix) <= limit:
                pairs = squares - prefix * num_ids
                best = ahead + num_ids - count * prefix + PASS_COST + pairs / pairs_per_id, False
            rest = num_nodes - longest
            fits = num_nodes <= limit and (rest * num_nodes <= MAX_MASK or _fits(paths, shared, begin, end))
            if share == "tree" and count > 1 and fits:
                pairs = longest * longest + rest * num_nodes
                price = num_nodes + 2 * PASS_COST + pairs / pairs_per_id
                if best is None or price < best[0]:
                    best = price, True
            if best is None:
                return
            yield best

    micros = []
    for begin, end, is_tree in cheapest_runs(len(paths), plans):
        run, inner = paths[begin:end], shared[begin : end - 1]
        micros.append(
            _tree(run, inner, MAX_MASK)
            if is_tree
            else _in_buckets(run, _usable(min(inner, default=0)), padding)
        )
    return micros


def as_tree(rows: Sequence[Row], *, max_mask: int = MAX_MASK) -> MicroBatch:
    """All rows as one tree, whatever it costs; its branches are written in as many sequences as masks of `max_mask`
    entries demand."""
    paths = paths_of(rows)
    return _tree(paths, _shared(paths), max_mask)


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


def _shared(paths: Sequence[Path]) -> list[int]:
    """[paths - 1] the common prefix of each path and the next one."""
    return [common(a.token_ids, b.token_ids) for a, b in itertools.pairwise(paths)]


def _usable(num_prefix: int) -> int:
    return num_prefix if num_prefix >= MIN_PREFIX else 0


def _trunk(paths: Sequence[Path]) -> int:
    """Number of the longest path, the first of them."""
    return max(range(len(paths)), key=lambda number: len(paths[number].token_ids))


def _fits(paths: Sequence[Path], shared: Sequence[int], begin: int, end: int) -> bool:
    """Whether no branch of the run needs a mask that is too large; several share as many as they need."""
    run = paths[begin:end]
    trunk = _trunk(run)
    num_trunk = len(run[trunk].token_ids)
    forks = forks_of(run, shared[begin : end - 1], trunk)
    largest = max(len(path.token_ids) - fork for path, fork in zip(run, forks, strict=True))
    return largest * (num_trunk + largest) <= MAX_MASK


def _in_buckets(paths: Sequence[Path], num_prefix: int, padding: Padding) -> MicroBatch:
    """Paths behind their prefix, padded; rests of very different length stand in buckets of their own."""
    paths = sorted(paths, key=lambda path: len(path.token_ids))
    widths = [padding.width(len(path.token_ids) - num_prefix, num_prefix) for path in paths]

    def padded(end: int) -> Iterator[tuple[float, bool]]:
        for begin in range(end - 1, -1, -1):
            yield (end - begin) * widths[end - 1] + PASS_COST, False

    within, slots = _before(paths, [num_prefix] * len(paths))
    buckets = []
    for begin, end, _ in cheapest_runs(len(paths), padded):
        width = widths[end - 1]
        ids: list[list[int]] = []
        gather: list[int] = []
        for number, path in enumerate(paths[begin:end]):
            rest = path.token_ids[num_prefix:]
            ids.append([*rest, *[0] * (width - len(rest))])
            for place, slot in zip(path.places, path.slots, strict=True):
                if place >= num_prefix:
                    gather.append(number * width + place - num_prefix)
                    slots.append(slot)
        buckets.append(Bucket(rest=torch.tensor(ids), gather=torch.tensor(gather, dtype=torch.long)))
    return MicroBatch(
        prefix=torch.tensor(paths[0].token_ids[:num_prefix], dtype=torch.long),
        prefix_gather=torch.tensor(within, dtype=torch.long),
        buckets=tuple(buckets),
        slots=torch.tensor(slots),
    )


def _before(paths: Sequence[Path], ends: Sequence[int]) -> tuple[list[int], list[int]]:
    """Places and slots of the wanted hidden states that stand before each path's end."""
    wanted = [
        (place, slot)
        for path, end in zip(paths, ends, strict=True)
        for place, slot in zip(path.places, path.slots, strict=True)
        if place < end
    ]
    return [place for place, _ in wanted], [slot for _, slot in wanted]


def _tree(paths: Sequence[Path], shared: Sequence[int], max_mask: int) -> MicroBatch:
    """Sorted paths as their longest one and its branches."""
    trunk = _trunk(paths)
    within, slots = _before(paths, forks_of(paths, shared, trunk))
    buckets = []
    for branches in branches_of(paths, shared, trunk, max_mask=max_mask):
        buckets.append(
            Bucket(
                rest=torch.tensor([branches.token_ids]),
                gather=torch.tensor(branches.gather, dtype=torch.long),
                depths=torch.tensor(branches.depths),
                reads=torch.tensor(branches.reads),
                ends=torch.tensor(branches.ends),
            )
        )
        slots += branches.slots
    return MicroBatch(
        prefix=torch.tensor(paths[trunk].token_ids, dtype=torch.long),
        prefix_gather=torch.tensor(within, dtype=torch.long),
        buckets=tuple(buckets),
        slots=torch.tensor(slots),
    )
