"""Sequences that begin alike, as a tree: what they share is one path of it, and every id stands in it once.

Rows are sorted by their ids. A row that is the beginning of another one (an earlier turn of the same conversation,
the same turn twice) needs no ids of its own: its hidden states are read off the longer path. The paths that are left
are the leaves of a tree whose forks are the places where a client rewrote its history or a block was inserted. The
longest of them is the trunk, an ordinary causal sequence. All that leaves it is written depth first, one path after
the other without what it shares with the trunk or the path before, as one sequence behind the trunk:

    path 0   a b c d e f    the trunk    sequence   x y | z | q
    path 1   a b c x y                   depth      3 4   4   1
    path 2   a b c x z                   reads      3 3   3   1      how much of the trunk it sees
    path 3   a q                         end        3 2   3   4      where those that descend from it end

An id sees itself and its ancestors: of the trunk, the first `reads`; of the sequence,

    j is seen from i   <=>   j <= i < end[j]

and its depth is its position, so it has the keys and values that it has in a sequence of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sequence and the ids of it that are looked at."""

    token_ids: tuple[int, ...]
    """[L]"""
    positions: tuple[int, ...]
    """[T] ascending positions in 1..L-1; the hidden state that predicts the id at t is that of t - 1."""

    @property
    def needed(self) -> tuple[int, ...]:
        """[positions[-1]] the ids up to the last hidden state that is looked at."""
        return self.token_ids[: self.positions[-1]]

    @classmethod
    def behind(cls, prompt: Sequence[int], ids: Sequence[int]) -> Row:
        """All of `ids` behind a prompt; the first id of a sequence has nothing before it to be scored on."""
        whole = (*prompt, *ids)
        return cls(token_ids=whole, positions=tuple(range(max(1, len(prompt)), len(whole))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Ids that are computed, and which of their hidden states are wanted for what."""

    token_ids: tuple[int, ...]
    """[L]"""
    places: tuple[int, ...]
    """[m] places in 0..L-1 whose hidden states are wanted; one may be wanted more than once."""
    slots: tuple[int, ...]
    """[m] where the wanted ones stand among those of all rows, rows in the order given, positions ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """What leaves a trunk of P ids, written depth first as one sequence."""

    token_ids: tuple[int, ...]
    """[S]"""
    depths: tuple[int, ...]
    """[S] where the id stands on its path."""
    reads: tuple[int, ...]
    """[S] in 0..P; how many ids of the trunk it sees."""
    ends: tuple[int, ...]
    """[S] in 1..S; the first place behind the id that does not descend from it."""
    gather: tuple[int, ...]
    """[m] places whose hidden states are wanted."""
    slots: tuple[int, ...]
    """[m] what they are wanted for, as `Path.slots`."""


def paths_of(rows: Sequence[Row], *, merge: bool = True) -> list[Path]:
    """The paths that hold every row, sorted by their ids; without `merge`, one a row, shortest first.

    Each wanted hidden state of each row is wanted of exactly one path, so that a row keeps its own weights, also where
    another one looks at the same place.
    """
    ends = list(itertools.accumulate(len(row.positions) for row in rows))
    needed = [row.needed for row in rows]
    paths: list[Path] = []
    places: list[int] = []
    slots: list[int] = []
    order = sorted(range(len(rows)), key=needed.__getitem__ if merge else lambda index: (len(needed[index]),))
    for at, index in enumerate(order):
        places += [position - 1 for position in rows[index].positions]
        slots += range(ends[index] - len(rows[index].positions), ends[index])
        own = needed[index]
        if merge and at + 1 < len(order) and needed[order[at + 1]][: len(own)] == own:
            continue  # sorted, the rows that go on from this one stand right behind it
        paths.append(Path(token_ids=own, places=tuple(places), slots=tuple(slots)))
        places, slots = [], []
    return paths


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix; halves the part that differs, for slices compare fast."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:  # a and b agree up to low, and differ before high
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def forks_of(paths: Sequence[Path], shared: Sequence[int], trunk: int) -> list[int]:
    """[paths] how many ids each of the sorted paths has in common with path number `trunk`; of its own, all.

    Args:
        shared: [paths - 1] the common prefix of each path and the next one.
    """
    before = list(itertools.accumulate(reversed(shared[:trunk]), min))[::-1]
    return [*before, len(paths[trunk].token_ids), *itertools.accumulate(shared[trunk:], min)]


def branches_of(paths: Sequence[Path], shared: Sequence[int], trunk: int, *, max_mask: int) -> list[Branches]:
    """Writes all paths but the trunk, as few sequences as their masks allow.

    Args:
        paths: sorted.
        shared: [paths - 1] the common prefix of each path and the next one.
        trunk: number of the path that is computed elsewhere.
        max_mask: most entries of a mask [S, P + S]; a path alone may pass it.
    """
    num_trunk = len(paths[trunk].token_ids)
    found: list[Branches] = []
    open_ = _Open()
    forks = forks_of(paths, shared, trunk)
    for number, (path, fork) in enumerate(zip(paths, forks, strict=True)):
        if number == trunk:
            continue  # what leaves the trunk on one side shares no more with the other side than the trunk does
        keep = max(fork, shared[number - 1]) if number else fork
        size = len(open_.ids) + len(path.token_ids) - keep
        if open_.ids and size * (num_trunk + size) > max_mask:
            found.append(open_.close())
            open_, keep = _Open(), fork
        open_.add(path, fork, keep)
    if open_.ids:
        found.append(open_.close())
    return found


class _Open:
    """A sequence of branches that is being written."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._depths: list[int] = []
        self._reads: list[int] = []
        self._ends: list[int] = []
        self._gather: list[int] = []
        self._slots: list[int] = []
        self._line: list[int] = []
        """Where the ids of the path at hand stand, from its fork on."""

    def add(self, path: Path, fork: int, keep: int) -> None:
        """A path that leaves the trunk after `fork` ids and the path before after `keep`, which is at least that."""
        self._leave(keep - fork)
        num_new = len(path.token_ids) - keep
        self._line += range(len(self.ids), len(self.ids) + num_new)
        self.ids += path.token_ids[keep:]
        self._depths += range(keep, len(path.token_ids))
        self._reads += [fork] * num_new
        self._ends += [0] * num_new
        for place, slot in zip(path.places, path.slots, strict=True):
            if place >= fork:
                self._gather.append(self._line[place - fork])
                self._slots.append(slot)

    def close(self) -> Branches:
        self._leave(0)
        return Branches(
            token_ids=tuple(self.ids),
            depths=tuple(self._depths),
            reads=tuple(self._reads),
            ends=tuple(self._ends),
            gather=tuple(self._gather),
            slots=tuple(self._slots),
        )

    def _leave(self, length: int) -> None:
        """Nothing descends any more from the ids of the path at hand behind its first `length`."""
        for place in self._line[length:]:
            self._ends[place] = len(self.ids)
        del self._line[length:]


def visible(reads: Tensor, ends: Tensor, num_trunk: int) -> Tensor:
    """[S, P + S] bool: whether an id of the sequence sees each of the trunk's P and each of its own.

    Args:
        reads, ends: [S] of `Branches`.
    """
    at = torch.arange(len(ends), device=ends.device)
    own = (at[None, :] <= at[:, None]) & (at[:, None] < ends[None, :])
    return torch.cat([torch.arange(num_trunk, device=ends.device) < reads[:, None], own], dim=1)
