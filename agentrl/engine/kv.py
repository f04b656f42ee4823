"""Keys and values: rows of running sequences, and finished conversations kept for their next turn.

    Rows            one per policy version. Row r holds the sequence r of that version, padded to a common length,
                    so that a decode step reads rows [0, B) of each layer as one view and copies nothing.
    Conversations   one per engine. What a finished turn computed, by (cache key, version): the next turn of the
                    same conversation on the same version computes only the ids that are new.

Shapes: N layers, R rows, H key/value heads, L length of a row, D head dimension.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

MIN_LENGTH = 128
"""Shortest row that is set up: most agent turns fit without growing it."""

KEEP_POSITIONS = 8192
"""Rows of at most this many positions are kept while nobody uses them, or handed on to the next version."""

ENTRIES_PER_KEY = 4
"""Branches of one conversation that are kept: side requests (a title, a summary) must not push out the main line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KVShape:
    """What one id costs: 2 * num_layers * num_heads * head_dim numbers of `dtype`."""

    num_layers: int
    num_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


class Rows:
    """The keys and values of one version's running sequences, [N, 2, R, H, L, D] in one tensor.

    Unused positions hold zeros or what an earlier sequence left there: finite numbers, which the attention mask
    removes exactly. A sequence that produced numbers that are not finite must be erased (`erase`).
    """

    def __init__(self, shape: KVShape, storage: Tensor | None = None) -> None:
        self.shape = shape
        self.num_rows = 0
        self.length = 0
        self.storage = shape_of(shape, 0, 0) if storage is None else storage
        self._bind()

    def _bind(self) -> None:
        _, _, self.num_rows, heads, self.length, dim = self.storage.shape
        pairs = [layer.unbind(0) for layer in self.storage.unbind(0)]
        self.keys = [k.view(self.num_rows * heads, self.length, dim) for k, _ in pairs]
        """Per layer [R * H, L, D]: the form that a batched product takes without a copy."""
        self.values = [v.view(self.num_rows * heads, self.length, dim) for _, v in pairs]
        self.flat_keys = [k.view(-1, dim) for k in self.keys]
        """Per layer [R * H * L, D]: the form that new positions are written to."""
        self.flat_values = [v.view(-1, dim) for v in self.values]

    @property
    def num_positions(self) -> int:
        """Ids that the rows have room for."""
        return self.num_rows * self.length

    def reserve(self, num_rows: int, length: int) -> None:
        """Makes room for `num_rows` rows of `length` ids. Grows by a seventh or more at once: copies are rare."""
        if num_rows <= self.num_rows and length <= self.length:
            return
        rows = max(self.num_rows, power_of_two(num_rows))
        longest = max(self.length, few_sizes(max(length, MIN_LENGTH)))
        grown = shape_of(self.shape, rows, longest)
        if self.num_rows:
            grown[:, :, : self.num_rows, :, : self.length] = self.storage
        self.storage = grown
        self._bind()

    def save(self, row: int, length: int) -> Tensor:
        """A copy of a row's first positions, [N, 2, H, length, D]."""
        return self.storage[:, :, row, :, :length].clone()

    def load(self, row: int, saved: Tensor, length: int) -> None:
        """Puts the first `length` positions of a saved copy at the start of a row."""
        self.storage[:, :, row, :, :length] = saved[:, :, :, :length]

    def move(self, source: int, target: int, length: int) -> None:
        """Copies a row's first positions over another row."""
        self.storage[:, :, target, :, :length] = self.storage[:, :, source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        kept = self.save(one, length)
        self.move(other, one, length)
        self.load(other, kept, length)

    def erase(self, row: int) -> None:
        """Zeros a row, so that nothing of it can reach a later sequence."""
        self.storage[:, :, row].zero_()


def shape_of(shape: KVShape, num_rows: int, length: int) -> Tensor:
    """Zeroed storage. Zeros matter: a mask adds -inf to a score, and NaN from raw memory would survive that."""
    size = (shape.num_layers, 2, num_rows, shape.num_heads, length, shape.head_dim)
    return torch.zeros(size, dtype=shape.dtype, device=shape.device)


def power_of_two(least: int) -> int:
    return 1 << max(0, least - 1).bit_length()


def few_sizes(least: int) -> int:
    """The next of four sizes an octave: 1 to 8, 10, 12, 14, 16, 20, ..."""
    step = 1 << max(0, (least - 1).bit_length() - 3)
    return -(-least // step) * step


@dataclass(slots=True, eq=False)
class Conversation:
    """What one turn left behind. Without `saved` it is only a memory of what had been computed."""

    cache_key: str
    version: int
    token_ids: tuple[int, ...]
    saved: Tensor | None
    """[N, 2, H, len(token_ids), D]"""


@dataclass(slots=True)
class Conversations:
    """Finished turns, least recently used first out. Never shared across cache keys or versions.

    Ids whose version has gone stay as ghosts, without keys and values, for one reason: a turn that must be
    computed anew only because the version changed is counted as such.
    """

    max_tokens: int
    num_tokens: int = 0
    num_ghost_tokens: int = 0
    entries: OrderedDict[int, Conversation] = field(default_factory=OrderedDict)
    """By the identity of the entry, least recently used first."""
    by_key: dict[str, list[Conversation]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Entries that hold keys and values."""
        return sum(1 for entry in self.entries.values() if entry.saved is not None)

    def match(self, cache_key: str, token_ids: Sequence[int]) -> list[tuple[Conversation, int]]:
        """Entries of this key that share a prefix with `token_ids`, the longest (then the newest) first.

        The last id is never counted: its logits are wanted, so it must be computed.
        """
        found = []
        for entry in self.by_key.get(cache_key, ()) if cache_key else ():
            length = common_prefix(entry.token_ids, token_ids, len(token_ids) - 1)
            if length:
                found.append((entry, length))
        found.reverse()
        found.sort(key=lambda pair: -pair[1])
        return found

    def touch(self, entry: Conversation) -> None:
        """Marks an entry as just used."""
        self.entries.move_to_end(id(entry))

    def store(self, cache_key: str, version: int, token_ids: tuple[int, ...], saved: Tensor) -> None:
        """Keeps a finished turn. It replaces what it extends; too long a turn is not kept at all."""
        if not cache_key or not token_ids or len(token_ids) > self.max_tokens:
            return
        branches = self.by_key.get(cache_key, [])
        for entry in [e for e in branches if e.version == version or e.saved is None]:
            if entry.token_ids == token_ids[: len(entry.token_ids)]:
                self.remove(entry)
        while len(branches) >= ENTRIES_PER_KEY:
            self.remove(branches[0])
        entry = Conversation(cache_key, version, token_ids, saved)
        self.by_key.setdefault(cache_key, []).append(entry)
        self.entries[id(entry)] = entry
        self.num_tokens += len(token_ids)
        self._trim()

    def forget_version(self, version: int) -> None:
        """Lets the keys and values of a version go; its ids stay as ghosts."""
        for entry in [e for e in self.entries.values() if e.version == version and e.saved is not None]:
            entry.saved = None
            self.num_tokens -= len(entry.token_ids)
            self.num_ghost_tokens += len(entry.token_ids)
        self._trim()

    def _trim(self) -> None:
        while self.num_tokens > self.max_tokens:
            self.remove(next(e for e in self.entries.values() if e.saved is not None))
        while self.num_ghost_tokens > self.max_tokens:
            self.remove(next(e for e in self.entries.values() if e.saved is None))

    def remove(self, entry: Conversation) -> None:
        del self.entries[id(entry)]
        branches = self.by_key[entry.cache_key]
        branches.remove(entry)
        if not branches:
            del self.by_key[entry.cache_key]
        if entry.saved is None:
            self.num_ghost_tokens -= len(entry.token_ids)
        else:
            self.num_tokens -= len(entry.token_ids)


def common_prefix(one: Sequence[int], other: Sequence[int], limit: int) -> int:
    """Length of the longest common prefix, at most `limit`. Halving over slices: slices compare in C."""
    low, high = 0, min(len(one), len(other), max(0, limit))
    one, other = tuple(one[:high]), tuple(other[:high])
    if one == other:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
