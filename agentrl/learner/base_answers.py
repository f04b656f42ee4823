"""What version 0 itself answers to prompts that clients sent: there from a run's first step on, so that every candidate
can be held against it.

    recent trained prompts ─version 0, temperature 1, fixed seeds─> answers         asked once for each prompt
                                                                      │
    prompt + answer, prompt + lesson + answer ──version 0──> p, q ────┴─> what is no drift:  (p + q) / 2

The prompts are those of trained turns, one of them replaced with each step: nothing else is there in a run's first
minutes. An answer at temperature 1 is a fair sample of what version 0 says, so that a divergence at its ids, averaged,
is one at the places that version 0 goes to. What was rightly learned is no drift: version 0 that has read what the
teacher was shown (q) is the reference as much as version 0 that has not (p). Of a divergence only what exceeds the
reference's own entropy counts, for what version 0 itself is unsure of may move: a version that does wholly the one
or the other pays nothing then, and where version 0 babbles little is asked. And an id counts `MOST` nats at most:
halfway to a rare name a version is at a loss at the one id where the name begins, which is a word and no other
language. What is left is a lower bound still. With nano on the way to such a name, or to a wish, the mean stays below
.4 at rates up to 1e-3 (a plain mean of divergences comes to .97), and garbled by 2e-2 it is 1.6 to 2.7.

All of it stands in RUN_DIR/base_answers.json as well (`answers_file`), so that a version is asked the same after a
restart. It follows the traffic, not the versions, so a rollback leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agentrl.learner.answers_file import AnswersFile, Kept
from agentrl.learner.generate import generate
from agentrl.learner.outline import Outline, divergences, mixed
from agentrl.learner.pack import Row
from agentrl.learner.streams import trained_positions
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.types import Sampling, TrainingSample

NUM_REPLIES: Final = 8
"""Answers that are compared; with fewer prompts each is answered several times."""
MAX_NEW: Final = 1
"""Prompts of a step that take the place of older ones: version 0 is asked once for each."""
MIN_REPLIES: Final = 4
"""Answers that are compared however long the prompts are: a gate measures nothing on fewer."""
MAX_IDS: Final = 8192
"""Ids of all prompts that are asked for one version, beyond the first `MIN_REPLIES`."""
MAX_REPLY: Final = 32
"""Sampled ids of an answer: noise shows in its first words."""
SHORT: Final = 8
"""A shorter answer counts as one of so many ids: one taught word may be all of it."""
MOST: Final = 3.0
"""Nats that an id counts."""

Ids = tuple[int, ...]
Asked = tuple[Ids, int]
"""A prompt and a seed."""


class BaseAnswers:
    """Remembers prompts and what version 0 answered.

    Args:
        stop_ids: what ends an answer.
        file: where they are kept as well; None keeps them in memory alone.
    """

    def __init__(self, stop_ids: Iterable[int], file: AnswersFile | None = None) -> None:
        self.stop_ids = frozenset(stop_ids)
        self._file = file
        self._views: dict[Ids, Ids] = {}
        """By prompt what the teacher was shown, or the prompt as it is."""
        self._answers: dict[Asked, Ids] = {}
        self._outlines: dict[Asked, Outline] = {}
        for kept in [] if file is None else file.read()[-NUM_REPLIES:]:
            self._views[kept.prompt] = kept.view
            self._answers |= {(kept.prompt, seed): ids for seed, ids in kept.answers}

    def add(self, samples: Sequence[TrainingSample], views: Mapping[Ids, Ids] = {}) -> None:
        """Remembers what stood before the first trained id of each turn: as many as fit, then `MAX_NEW` in the place of
        the oldest.

        Args:
            views: by prompt what is to be read in the place of what the teacher was shown.
        """
        before = dict(self._views)
        room = max(NUM_REPLIES - len(self._views), MAX_NEW)
        for sample in (sample for sample in samples if sample.turn_ids):
            first = trained_positions(sample)[0]
            shown = sample.token_ids if sample.teacher is None else sample.teacher.token_ids
            prompt = sample.token_ids[:first]
            view = views.get(prompt, shown[: len(shown) - len(sample.token_ids) + first])
            if room or prompt in self._views:
                room -= self.learn(prompt, view)
        if self._views != before:
            self._save()

    def learn(self, prompt: Ids, view: Ids) -> bool:
        """Remembers one prompt in the place of the oldest; whether it is new. A known one keeps its
        place, and of what was taught on it the newest lesson counts.

        Args:
            view: the same with what the teacher is shown.
        """
        if not prompt:
            return False
        if prompt in self._views:
            if view not in (prompt, self._views[prompt]):
                self._views[prompt] = view
                self._outlines = {key: one for key, one in self._outlines.items() if key[0] != prompt}
            return False
        self._views[prompt] = view
        while len(self._views) > NUM_REPLIES:
            gone = next(iter(self._views))
            del self._views[gone]
            self._answers = {key: ids for key, ids in self._answers.items() if key[0] != gone}
            self._outlines = {key: one for key, one in self._outlines.items() if key[0] != gone}
        return True

    def asked(self, trainer: Trainer) -> list[Asked]:
        """The questions of now, `NUM_REPLIES` or, where prompts are long, fewer; none where no prompt is known."""
        prompts = [prompt for prompt, view in self._views.items() if len(view) < trainer.max_len]
        if not prompts:
            return []
        asked: list[Asked] = []
        room = MAX_IDS
        for index in range(NUM_REPLIES):
            prompt = prompts[index % len(prompts)]
            room -= len(prompt)
            if room < 0 and index >= MIN_REPLIES:
                break
            asked.append((prompt, index // len(prompts)))
        return asked

    def view(self, prompt: Ids) -> Ids:
        """A known prompt with what the teacher was shown."""
        return self._views[prompt]

    def is_shown(self, prompt: Ids, view: Ids) -> bool:
        """Whether what the teacher was shown with a prompt is still this, or the prompt no longer known."""
        return self._views.get(prompt, view) == view

    def replies(self, weights: Weights, trainer: Trainer, asked: Sequence[Asked]) -> list[Ids]:
        """What any weights answer. Raises LearnerError where they give numbers that are not finite."""
        if not asked:
            return []
        found = generate(
            weights,
            [prompt for prompt, _ in asked],
            [seed for _, seed in asked],
            sampling=Sampling(max_tokens=MAX_REPLY),
            stop_ids=self.stop_ids,
            max_tokens=trainer.recipe.batch.micro_tokens,
            max_len=trainer.max_len,
        )
        return [reply.token_ids for reply in found]

    def of_base(self, trainer: Trainer, asked: Sequence[Asked]) -> list[Ids]:
        """What version 0 answers, asked once."""
        base = trainer.base
        assert base is not None, "somebody is there to be asked"
        new = [key for key in asked if key not in self._answers]
        if new:
            self._answers |= zip(new, self.replies(base, trainer, new), strict=True)
            self._save()
        return [self._answers[key] for key in asked]

    def drift(self, trainer: Trainer) -> list[float]:
        """How far the weights that the trainer has are from what is no drift, in nats an id of each answer; nothing
        where nobody can be asked."""
        base = trainer.base
        if base is None:
            return []
        asked = self.asked(trainer)
        answers = dict(zip(asked, self.of_base(trainer, asked), strict=True))
        new = {key: answer for key, answer in answers.items() if key not in self._outlines}
        self._outlines |= self.references(base, trainer, new)
        return drifts(trainer, answers, self._outlines)

    def references(
        self, weights: Weights, trainer: Trainer, replies: Mapping[Asked, Ids]
    ) -> dict[Asked, Outline]:
        """What any weights say along replies, half as they read the question and half with what the teacher was
        shown."""
        rows = rows_of(replies)
        views = {key: Row.behind(self.view(key[0]), replies[key]) for key in rows}
        return mixed(weights, rows, views, max_tokens=trainer.recipe.batch.micro_tokens)

    def _save(self) -> None:
        if self._file is None:
            return
        answers: dict[Ids, list[tuple[int, Ids]]] = {}
        for (prompt, seed), ids in self._answers.items():
            answers.setdefault(prompt, []).append((seed, ids))
        self._file.write(
            Kept(prompt=prompt, view=view, answers=tuple(answers.get(prompt, ())))
            for prompt, view in self._views.items()
        )


def rows_of(replies: Mapping[Asked, Ids]) -> dict[Asked, Row]:
    """Each reply behind its question; without empty ones."""
    return {key: Row.behind(key[0], reply) for key, reply in replies.items() if reply}


def drifts(
    trainer: Trainer, replies: Mapping[Asked, Ids], references: Mapping[Asked, Outline]
) -> list[float]:
    """How far the weights that the trainer has are from references along their replies, in nats an id of each: beyond
    what the reference is unsure of, and `MOST` an id.

    Args:
        references: with entropy; of each reply that is not empty.
    """
    rows, most = rows_of(replies), trainer.recipe.batch.micro_tokens
    found = divergences(Weights(trainer.policy, None), rows, references, max_tokens=most)
    drift = []
    for key, values in found.items():
        unsure = references[key].entropy
        assert unsure is not None, "it was asked for"
        beyond = (values - unsure).clamp(min=0.0, max=MOST)
        drift.append(float(beyond.sum()) / max(len(beyond), SHORT))
    return drift
