"""What a step gave at every trained id, for whoever asks later what was learned from a turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agentrl.learner.pack import Row
from agentrl.losses.terms import Terms
from agentrl.types import TrainingSample

NAMES = tuple(field.name for field in fields(Terms))
ALWAYS = frozenset({"loss", "logprob"})
"""Terms that every note has."""
HALF_MAX = 65504.0
"""The largest float16; what is larger is kept as that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One sample's part of a step."""

    start: int
    """Position of its first trained id."""
    end: int
    """Position behind its last trained id."""
    num_tokens: int
    """Trained ids of the step. The mean of all its terms over these is the step's loss."""
    streams: dict[str, NDArray[np.float16]]
    """[end - start] each, under the names of `Terms`, loss in nats an id: what an id adds to the step's loss, times
    `num_tokens`. nan on ids that are not trained; a stream that is neither of ALWAYS nor has
    any number is left out."""


@dataclass(slots=True)
class Notes:
    """Collects the terms of a step's micro batches."""

    _found: Tensor
    """[terms, N] float32."""
    _num_tokens: int

    @classmethod
    def of(cls, rows: Sequence[Row], num_tokens: int) -> Notes:
        """For a step over `rows`, of which `num_tokens` ids train."""
        total = sum(len(row.positions) for row in rows)
        return cls(torch.full((len(NAMES), total), torch.nan), num_tokens)

    def add(self, slots: Tensor, terms: Terms) -> None:
        """Notes the terms of the positions `slots` [n] among the N."""
        values = torch.stack([getattr(terms, name).detach().float() for name in NAMES])
        self._found[:, slots.cpu()] = values.cpu()

    def cut(
        self, rows: Sequence[Row], samples: Sequence[TrainingSample], kept: Sequence[TrainingSample]
    ) -> tuple[Note, ...]:
        """One note for each of `kept`, which are among the `samples` that the rows were made of."""
        found = self._found
        found[NAMES.index("loss")] *= self._num_tokens
        halves = found.clamp(-HALF_MAX, HALF_MAX).half().numpy()
        chosen = {id(sample) for sample in kept}
        ends = list(accumulate(len(row.positions) for row in rows))
        notes = []
        for sample, row, end in zip(samples, rows, ends, strict=True):
            if id(sample) not in chosen:
                continue
            own = halves[:, end - len(row.positions) : end]
            start, behind = row.positions[0], row.positions[-1] + 1
            streams = {}
            for name, values in zip(NAMES, own, strict=True):
                if name not in ALWAYS and np.isnan(values).all():
                    continue
                streams[name] = np.full(behind - start, np.nan, dtype=np.float16)
                streams[name][np.array(row.positions) - start] = values
            notes.append(Note(start=start, end=behind, num_tokens=self._num_tokens, streams=streams))
        return tuple(notes)
