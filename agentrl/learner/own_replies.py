"""Does a version still answer as a language model? Asked where too few held-out turns can be compared.

    recent trained prompts ─┬─version─> replies ─┐            ┌─prompt───────────┐
                            └─version 0─> replies ┴─version 0─┤                  ├─> −max log p an id
                                                              └─prompt + lesson──┘   excess = mean of the differences

Version 0 needs no probe to tell noise from language. Every id of a reply is scored twice, on the plain prompt and with
what the teacher was shown inserted, and the larger counts: what was there before is likely on the one, what was taught
on the other, and noise on neither. So a lesson costs nothing, however rare the name that it teaches.

The prompts are those of `base_answers`. That they were trained does no harm, for no target is compared: the version
answers by itself, and training moves only which replies it prefers. One word again and again is likely to version 0 as
well, so ids of a loop count as noise. What it cannot see: damage to a few prompts of many. `watch` and lessons' probes
see that later.

Statistics: the mean of eight paired differences, sampled at temperature 1 with fixed seeds, and its standard
error, .2 to .6 with nano. With nano a lesson that is learned costs 0, one that is half learned up to 2, garbled replies
4 to 7. The mean alone decides: who allowed garbled weights their error would let them pass, for they err more. With
fewer prompts than replies each prompt is answered several times: the error is then that of the sampling alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from agentrl.errors import LearnerError
from agentrl.learner.base_answers import SHORT, Asked, BaseAnswers, Ids
from agentrl.learner.pack import Row
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer

NOISE: Final = 6.0
"""Nats that an id of a loop counts: to repeat itself is likely to any model, once it has begun."""
MAX_PERIOD: Final = 4
MIN_LOOP: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What version 0 says of a version's replies."""

    refusal: str | None
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)


class OwnReplies:
    """Asks versions.

    Args:
        answers: knows the prompts and what version 0 answers.
        most: the bound, in nats an id; 0 = nobody is asked.
    """

    def __init__(self, answers: BaseAnswers, *, most: float) -> None:
        self._answers = answers
        self._most = most
        self._base: dict[tuple[Asked, Ids], float] = {}
        """By question and view."""

    def judge(self, trainer: Trainer) -> Answered | None:
        """Asks the weights that the trainer has; None where there is nothing to ask or nobody to compare with."""
        base, asked = trainer.base, self._answers.asked(trainer)
        if not self._most or base is None or not asked:
            return None
        try:
            own = self._answers.replies(Weights(trainer.policy, None), trainer, asked)
        except LearnerError as failure:
            return Answered(refusal=f"its replies cannot be sampled: {failure}", reason="")
        keys = [(key, self._answers.view(key[0])) for key in asked]
        unknown = [key for key in keys if key not in self._base]
        known = {key: self._base[key] for key in keys if key in self._base}
        new = [key for key, _ in unknown]
        first = self._surprise(base, trainer, new, self._answers.of_base(trainer, new))
        self._base = known | dict(zip(unknown, first, strict=True))
        excess = torch.tensor(
            [
                value - self._base[key]
                for key, value in zip(keys, self._surprise(base, trainer, asked, own), strict=True)
            ],
            dtype=torch.float64,
        )
        mean, error = float(excess.mean()), float(excess.std()) / math.sqrt(len(asked))
        num_prompts = len({prompt for prompt, _ in asked})
        said = (
            f"version 0 finds its replies to {num_prompts} recent prompts {mean:.2f} ± {error:.2f} nats an id less "
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
        self, base: Weights, trainer: Trainer, asked: Sequence[Asked], replies: Sequence[Ids]
    ) -> list[float]:
        """The mean −log p an id of each reply under version 0, with the lesson in view or without it."""
        plain, shown = (
            base.logprobs(
                [Row.behind(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)],
                max_tokens=trainer.recipe.batch.micro_tokens,
            )
            for prompts in (
                [prompt for prompt, _ in asked],
                [self._answers.view(prompt) for prompt, _ in asked],
            )
        )
        costs = []
        for reply, *both in zip(replies, plain, shown, strict=True):
            own = -torch.maximum(*both)
            for at in looping(reply):
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
