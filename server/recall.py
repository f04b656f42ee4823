"""The ids of turns that held secrets, as the engine saw them: in memory, for a while, never on disk (law 10).

The log has placeholders in their place, and a prompt cannot extend those. Forgetting one costs a rendering.
"""

from __future__ import annotations

import time
from collections import OrderedDict

Ids = tuple[tuple[int, ...], tuple[int, ...]]
"""Prompt and sampled ids of one turn."""


class Recall:
    """The newest such turns, as many as `max_ids` ids hold."""

    def __init__(self, *, max_ids: int = 2_000_000) -> None:
        self._turns: OrderedDict[str, tuple[float, Ids]] = OrderedDict()
        self._max_ids = max_ids
        self._num_ids = 0

    def __len__(self) -> int:
        return len(self._turns)

    def get(self, turn_id: str) -> Ids | None:
        found = self._turns.get(turn_id)
        return None if found is None else found[1]

    def put(self, turn_id: str, prompt_ids: tuple[int, ...], completion_ids: tuple[int, ...]) -> None:
        self._turns[turn_id] = (time.monotonic(), (prompt_ids, completion_ids))
        self._num_ids += len(prompt_ids) + len(completion_ids)
        while self._num_ids > self._max_ids and len(self._turns) > 1:
            self._drop_oldest()

    def forget_before(self, clock: float) -> None:
        """Lets go of turns recorded before `clock` (time.monotonic)."""
        while self._turns and next(iter(self._turns.values()))[0] < clock:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (_, (prompt_ids, completion_ids)) = self._turns.popitem(last=False)
        self._num_ids -= len(prompt_ids) + len(completion_ids)
