"""Does a version still answer as a language model? Asked where too few held-out turns can be compared.

    recent trained prompts ─┬─version─> replies ─┐            ┌─prompt───────────┐
                            └─version 0─> replies ┴─version 0─┤                  ├─> −max log p an id
                                                              └─prompt + lesson──┘   excess = mean of the differences

Version 0 needs no probe to tell noise from language. Every id of a reply is scored twice, on the plain prompt and with
what the teacher was shown inserted, and the larger counts: what was there before is likely on the one, what was taught
on the other, and noise on neither. So a lesson costs nothing, however rare the name that it teaches.

The prompts are those of trained turns, one of them replaced with each step: nothing else is there in a run's first
minutes. That they were trained does no harm, for no target is compared: the version answers by itself, and training
moves only which replies it prefers. One word again and again is likely to version 0 as well, so ids of a loop count as
noise. What it cannot see: damage to a few prompts of many. `watch` and lessons' probes see that later.

Statistics: the mean of `NUM_REPLIES` paired differences, sampled at temperature 1 with fixed seeds, and its standard
error, .2 to .6 with nano. With nano a lesson that is learned costs 0, one that is half learned up to 2, garbled replies
4 to 7. The mean alone decides: who allowed garbled weights their error would let them pass, for they err more. With
fewer prompts than replies each prompt is answered several times: the error is then that of the sampling alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from agentrl.errors import LearnerError
from agentrl.learner.generate import generate
from agentrl.learner.pack import Row
from agentrl.learner.streams import trained_positions
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.types import Sampling, TrainingSample

NUM_REPLIES: Final = 8
MAX_NEW: Final = 1
"""Prompts of a step that take the place of older ones: version 0 is asked once for each."""
MAX_PROMPT: Final = 1024
"""Ids: a longer one costs more than what it tells."""
MAX_REPLY: Final = 32
"""Sampled ids of a reply: noise shows in its first words."""
NOISE: Final = 6.0
"""Nats that an id of a loop counts: to repeat itself is likely to any model, once it has begun."""
MAX_PERIOD: Final = 4
MIN_LOOP: Final = 8
SHORT: Final = 8
"""A shorter reply counts as one of so many ids: one taught word may be all of it."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What version 0 says of a version's replies."""

    refusal: str | None
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)


class OwnReplies:
    """Remembers prompts and asks versions.

    Args:
        stop_ids: what ends a reply.
        most: the bound, in nats an id; 0 = nobody is asked.
    """

    def __init__(self, stop_ids: Iterable[int], *, most: float) -> None:
        self._stop_ids = frozenset(stop_ids)
        self._most = most
        self._prompts: dict[Ids, Ids] = {}
        """With what the teacher was shown, or as they are."""
        self._base: dict[tuple[Ids, int], float] = {}

    def add(self, samples: Sequence[TrainingSample]) -> None:
        """Remembers what stood before the first trained id of each turn: as many as fit, then `MAX_NEW` in the place of
        the oldest."""
        room = max(NUM_REPLIES - len(self._prompts), MAX_NEW)
        for sample in (sample for sample in samples if sample.turn_ids):
            first = trained_positions(sample)[0]
            prompt = sample.token_ids[:first]
            if room and 0 < len(prompt) <= MAX_PROMPT and prompt not in self._prompts:
                shown = sample.token_ids if sample.teacher is None else sample.teacher.token_ids
                self._prompts[prompt] = shown[: len(shown) - len(sample.token_ids) + first]
                room -= 1
        while len(self._prompts) > NUM_REPLIES:
            del self._prompts[next(iter(self._prompts))]
        self._base = {key: value for key, value in self._base.items() if key[0] in self._prompts}

    def judge(self, trainer: Trainer) -> Answered | None:
        """Asks the weights that the trainer has; None where there is nothing to ask or nobody to compare with."""
        base = trainer.base
        prompts = [prompt for prompt in self._prompts if len(prompt) < trainer.max_len]
        if not self._most or base is None or not prompts:
            return None
        asked = [(prompts[index % len(prompts)], index // len(prompts)) for index in range(NUM_REPLIES)]
        try:
            own = self._surprise(Weights(trainer.policy, None), base, trainer, asked)
            unknown = [key for key in asked if key not in self._base]
            self._base |= zip(unknown, self._surprise(base, base, trainer, unknown), strict=True)
        except LearnerError as failure:
            return Answered(refusal=f"its replies cannot be sampled: {failure}", reason="")
        excess = torch.tensor(
            [value - self._base[key] for key, value in zip(asked, own, strict=True)], dtype=torch.float64
        )
        mean, error = float(excess.mean()), float(excess.std()) / math.sqrt(len(asked))
        said = (
            f"version 0 finds its replies to {len(prompts)} recent prompts {mean:.2f} ± {error:.2f} nats an id less "
            f"likely than its own, guards.max_surprise allows {self._most:g}"
        )
        # written so that a NaN fails
        passed = mean <= self._most
        return Answered(
            refusal=None if passed else said,
            reason=said,
            metrics={"reply_surprise": mean, "reply_surprise_error": error},
        )

    def _surprise(
        self, weights: Weights, base: Weights, trainer: Trainer, asked: Sequence[tuple[Ids, int]]
    ) -> list[float]:
        """For each prompt and seed the mean −log p an id under version 0, with the lesson in view or without it, of the
        reply that `weights` give."""
        if not asked:
            return []
        most = trainer.recipe.batch.micro_tokens
        replies = generate(
            weights,
            [prompt for prompt, _ in asked],
            [seed for _, seed in asked],
            sampling=Sampling(max_tokens=MAX_REPLY),
            stop_ids=self._stop_ids,
            max_tokens=most,
            max_len=trainer.max_len,
        )
        plain, shown = (
            base.logprobs(
                [Row.behind(prompt, reply.token_ids) for prompt, reply in zip(prompts, replies, strict=True)],
                max_tokens=most,
            )
            for prompts in ([prompt for prompt, _ in asked], [self._prompts[prompt] for prompt, _ in asked])
        )
        costs = []
        for reply, *both in zip(replies, plain, shown, strict=True):
            own = -torch.maximum(*both)
            for at in looping(reply.token_ids):
                own[at] = NOISE
            costs.append(float(own.sum()) / max(len(own), SHORT))
        return costs


def looping(ids: Sequence[int]) -> set[int]:
    """Places of a reply at which it only repeats the `MAX_PERIOD` ids before, or fewer, for at least `MIN_LOOP` ids."""
    found: set[int] = set()
    for period in range(1, MAX_PERIOD + 1):
        run: list[int] = []
        for at in range(period, len(ids) + 1):
            if at < len(ids) and ids[at] == ids[at - period]:
                run.append(at)
            else:
                found.update(run if len(run) >= MIN_LOOP else ())
                run = []
    return found
