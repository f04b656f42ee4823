"""What a teacher says of a batch's N trained ids, handed out micro batch by micro batch.

weights   self, external   whole batch first, without gradient: hidden states [N, H] and an output matrix
joint     the policy       one micro batch at a time, with gradient: only then does its graph fit into memory
cached    no model         log-probs [N] of the sampled ids
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from agentrl.learner.pack import Row, teacher_positions
from agentrl.learner.streams import trained_positions
from agentrl.learner.teacher_weights import JointWeights, Weights
from agentrl.teacher.scores import ScoreFile, fingerprint
from agentrl.types import TrainingSample


class Scored(Protocol):
    def at(self, slots: Tensor) -> dict[str, Tensor]:
        """Streams of the positions `slots` [n] under the names of `LossBatch`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenScores:
    hidden: Tensor
    """[N, H]"""
    head: Tensor
    """[V, H]"""

    def at(self, slots: Tensor) -> dict[str, Tensor]:
        return {"teacher_hidden": self.hidden[slots], "teacher_head": self.head}


@dataclass(frozen=True, slots=True, kw_only=True)
class JointScores:
    weights: JointWeights
    views: Sequence[Row]
    """What the teacher reads of each sample; their positions are the N trained ids."""
    max_tokens: int

    def at(self, slots: Tensor) -> dict[str, Tensor]:
        """Computed anew at every call, with gradient where gradients are on."""
        ends = torch.tensor(list(accumulate(len(view.positions) for view in self.views)), device=slots.device)
        members = torch.unique(torch.searchsorted(ends, slots, right=True)).tolist()
        views = [self.views[index] for index in members]
        ordered = torch.cat(
            [torch.arange(int(ends[i]) - len(self.views[i].positions), int(ends[i])) for i in members]
        ).to(slots.device)
        hidden = self.weights.hidden(self.weights.pack(views, max_tokens=self.max_tokens), len(ordered))
        return {
            "teacher_hidden": hidden[torch.searchsorted(ordered, slots)],
            "teacher_head": self.weights.head(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownScores:
    logprobs: Tensor
    """[N]"""

    def at(self, slots: Tensor) -> dict[str, Tensor]:
        return {"teacher_logprobs": self.logprobs[slots]}


def score(teacher: Weights, samples: Sequence[TrainingSample], *, max_tokens: int) -> Scored:
    """What a teacher with weights says of the samples' trained ids."""
    views = [view_of(sample) for sample in samples]
    if isinstance(teacher, JointWeights):
        return JointScores(weights=teacher, views=views, max_tokens=max_tokens)
    total = sum(len(view.positions) for view in views)
    # nothing is kept for a backward pass: there is room for a conversation's tails beside its longest row
    room = max(max_tokens, 2 * max(len(view.token_ids) for view in views))
    return HiddenScores(
        hidden=teacher.hidden(teacher.pack(views, max_tokens=room), total), head=teacher.head()
    )


def view_of(sample: TrainingSample) -> Row:
    """The ids that the teacher reads, and where the sample's trained ids stand in them."""
    positions = trained_positions(sample)
    if sample.teacher is None:
        return Row(token_ids=sample.token_ids, positions=positions)
    there = teacher_positions(sample.teacher, sample.token_ids, positions)
    return Row(token_ids=sample.teacher.token_ids, positions=there)


class CachedScores:
    """The file of scores that a recipe names.

    Args:
        path: the file.
        model: the teacher that must have given them: its folder or its fingerprint.

    Raises:
        ConfigError: the file cannot be read, or another teacher has written it.
        ModelError: the model's folder holds no weights.
    """

    def __init__(self, path: Path, model: str) -> None:
        self._path = path
        self._teacher = fingerprint(model)
        with self._open():
            pass

    def _open(self) -> ScoreFile:
        return ScoreFile.open(self._path, teacher=self._teacher)

    def sift(self, samples: Sequence[TrainingSample]) -> tuple[list[TrainingSample], list[TrainingSample]]:
        """Samples that can be trained, and those that would be distilled but have no score."""
        kept: list[TrainingSample] = []
        unknown: list[TrainingSample] = []
        with self._open() as file:
            for sample in samples:
                is_known = not _is_distilled(sample) or _found(file, view_of(sample)) is not None
                (kept if is_known else unknown).append(sample)
        return kept, unknown

    def score(self, samples: Sequence[TrainingSample], device: torch.device) -> KnownScores:
        """Log-probs of the samples' trained ids; 0, which nothing reads, where a sample is not distilled."""
        values: list[float] = []
        with self._open() as file:
            for sample in samples:
                view = view_of(sample)
                values.extend(_found(file, view) or (0.0,) * len(view.positions))
        return KnownScores(logprobs=torch.tensor(values, dtype=torch.float32, device=device))


def _found(file: ScoreFile, view: Row) -> tuple[float, ...] | None:
    score = file.get(view.token_ids)
    return None if score is None else score.at(view.positions)


def _is_distilled(sample: TrainingSample) -> bool:
    weights = sample.weights.get("kd", (1.0,) * len(sample.token_ids))
    return any(trained and weight != 0 for trained, weight in zip(sample.loss_mask, weights, strict=True))
