"""Another model as the teacher: loaded from a folder of its own, and only with the policy's vocabulary.

Its scores are of ids, so an id must be the same text to both; that is compared before anything is scored. A model that
is too large to stand beside the policy can score turns beforehand instead (`score_turns`), and the recipe then names
the file of scores as teacher 'cached'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

from torch import Tensor
from transformers import AutoConfig

from agentrl.config import Precision
from agentrl.errors import ConfigError
from agentrl.learner.model import load_policy
from agentrl.learner.pack import Row
from agentrl.learner.scored import view_of
from agentrl.learner.teacher_weights import Weights
from agentrl.teacher.scores import Score, ScoreFile, fingerprint
from agentrl.text.vocabulary import check_vocabulary
from agentrl.types import TrainingSample, Turn

TURNS_AT_A_TIME = 64
"""Turns whose hidden states are held at once while a file of scores is written."""


class How(TypedDict, total=False):
    """Where and in what pieces a teacher computes."""

    device: str
    precision: Precision
    max_tokens: int
    """Most ids of one forward pass."""


class _Asked(NamedTuple):
    row: Row
    policy: str
    version: int


class ExternalWeights(Weights):
    """Another model's weights, never trained.

    Raises:
        ModelError: the folder holds no model that can score.
        ConfigError: its vocabulary is not the policy's, or its output matrix has fewer rows.
    """

    def __init__(
        self, path: Path, *, policy_path: Path, vocab_size: int, device: str, precision: Precision
    ) -> None:
        check_vocabulary(path, policy_path)
        model = load_policy(path, device=device, precision=precision, lora_rank=0, seed=0)
        super().__init__(model.requires_grad_(requires_grad=False), None)
        rows = self.model.head().shape[0]
        if rows < vocab_size:
            raise ConfigError(
                f"the teacher {path} has {rows} rows in its output matrix, the policy {policy_path} has {vocab_size}: "
                "choose a teacher with at least as many"
            )
        self._vocab_size = vocab_size

    def head(self) -> Tensor:
        """[V, H] the rows of the policy's ids. Matrices are padded to round sizes that differ between models of one
        family; the padding stands for no id."""
        return super().head()[: self._vocab_size]

    @property
    def max_len(self) -> int:
        """Most ids of one sequence."""
        return self.model.max_len


def score_turns(
    path: Path, turns: Iterable[Turn], *, teacher_path: Path, policy_path: Path, **how: Unpack[How]
) -> int:
    """Scores the sampled ids of turns on their served prompts and stores that under `path`, so that a recipe can name
    the file as teacher 'cached'.

    Args:
        path: the file of scores; one that the same teacher began is continued.
        turns: as the log holds them.
        teacher_path, policy_path: model folders.
        how: where and in what pieces the teacher computes.

    Returns:
        How many turns were scored; those that the file knows and those without sampled ids are left out.

    Raises:
        ConfigError: another vocabulary, or the file holds another teacher's scores.
        ModelError: a folder holds no model.
    """
    found = []
    for turn in turns:
        row = Row.behind(turn.prompt_ids, turn.completion.token_ids)
        found.append(_Asked(row, turn.policy, turn.completion.version))
    return _score(path, found, teacher_path, policy_path, **how)


def score_samples(
    path: Path,
    samples: Iterable[TrainingSample],
    *,
    policy: str,
    teacher_path: Path,
    policy_path: Path,
    **how: Unpack[How],
) -> int:
    """The same for samples, whose teacher may read inserted blocks. `policy` names the line that sampled them."""
    found = []
    for sample in samples:
        view = view_of(sample)
        to_the_end = tuple(range(view.positions[0], len(view.token_ids)))
        found.append(_Asked(Row(token_ids=view.token_ids, positions=to_the_end), policy, sample.version))
    return _score(path, found, teacher_path, policy_path, **how)


def _score(
    path: Path,
    asked: Sequence[_Asked],
    teacher_path: Path,
    policy_path: Path,
    *,
    device: str = "cpu",
    precision: Precision = "auto",
    max_tokens: int = 8192,
) -> int:
    check_vocabulary(teacher_path, policy_path)
    config = AutoConfig.from_pretrained(policy_path, local_files_only=True).get_text_config()
    with ScoreFile.create(path, teacher=fingerprint(teacher_path)) as file:
        teacher = ExternalWeights(
            teacher_path,
            policy_path=policy_path,
            vocab_size=int(config.vocab_size),
            device=device,
            precision=precision,
        )
        new = [item for item in asked if item.row.positions and file.get(item.row.token_ids) is None]
        for begin in range(0, len(new), TURNS_AT_A_TIME):
            part = new[begin : begin + TURNS_AT_A_TIME]
            found = teacher.logprobs([item.row for item in part], max_tokens=max_tokens)
            for item, logprobs in zip(part, found, strict=True):
                score = Score(
                    start=item.row.positions[0],
                    logprobs=tuple(logprobs.tolist()),
                    policy=item.policy,
                    version=item.version,
                )
                file.put(item.row.token_ids, score)
        return len(new)
