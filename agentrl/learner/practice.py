"""A user's standing wishes practised on other requests like those that were made.

    first request of a claimed turn's conversation ─other numbers─> prompt ─policy─> answer ─┐
    standing hints, as the turn's teacher is shown them ─────────────────────────────────────┴─> KL(teacher || policy)

A wish says how every answer is to be, and a user repeats it until it is kept. Behind the first correction stand the few
requests of one conversation: used again and again they teach what to do with these numbers, not what to do. What the
policy answers to variations of them is its own mistake on a request nobody had to make, and the teacher, with the wish
in view, corrects it at once. On-policy context distillation, as of the claimed turns themselves.

Practised is what conversations began with whose first answer was corrected: where that was right the wish is kept, and
more of the same would only move the weights and unteach what happens later in a conversation.

No turn stands behind a practised answer, so it is in nobody's count (law 3); it is never executed and never shown.
Which requests a step gets follows from the seed, its number and its turns, so a replay has the same (law 11). Varied is
what the step's own conversations began with, each with the hints of its own scope (law 10), and only where that turn is
trained itself: nothing that is held out is practised.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from agentrl.errors import UserError
from agentrl.learner.context_gap import Ids
from agentrl.learner.generate import generate
from agentrl.learner.pairs import answer_sample
from agentrl.learner.teacher_weights import Weights
from agentrl.teacher.contexts import num_practised
from agentrl.types import JSON, Block, Completion, Sampling, TrainingSample, Turn

if TYPE_CHECKING:
    from agentrl.learner.situations import Reader
    from agentrl.learner.trainer import Trainer

MAX_PROMPT: Final = 1024
"""Ids: a longer request is not practised."""
MAX_ANSWER: Final = 96
"""Ids of an answer."""

OPERATORS: Final = {"system", "developer"}
"""Who may speak before a conversation's first request."""
NUMBER: Final = re.compile(r"[0-9]+")

Beginnings = Callable[[Sequence[str]], Mapping[str, Turn]]


class Practice:
    """What steps are given.

    Args:
        trainer: with a teacher that has weights.
        reader: of the policy's model.
        beginnings: by turn id the trained turn that its conversation began with, where that was corrected
            (`LearningLog.corrected_beginnings`).
    """

    def __init__(self, trainer: Trainer, reader: Reader, beginnings: Beginnings) -> None:
        self._trainer = trainer
        self._reader = reader
        self._beginnings = beginnings

    @classmethod
    def of(cls, trainer: Trainer, reader: Reader, beginnings: Beginnings) -> Practice | None:
        """None where the recipe practises nothing."""
        return cls(trainer, reader, beginnings) if num_practised(trainer.recipe.context) else None

    def samples(self, shown: Sequence[tuple[str, Sequence[Block]]]) -> list[TrainingSample]:
        """Those of the next step; none where no request of its conversations may be varied.

        Args:
            shown: the ids of its turns, each with the hints that its teacher is shown.
        """
        first = self._beginnings([turn_id for turn_id, hints in shown if hints])
        begun = [
            (first[turn_id], hints) for turn_id, hints in shown if turn_id in first and begins(first[turn_id])
        ]
        if not begun:
            return []
        trainer = self._trainer
        draw = random.Random(f"practice/{trainer.seed}/{trainer.num_steps}")
        asked = []
        for _ in range(num_practised(trainer.recipe.context)):
            turn, hints = draw.choice(begun)
            prompt = self._prompt(turn, draw)
            if prompt:
                asked.append((prompt, hints))
        answers = generate(
            Weights(trainer.policy, None),
            [prompt for prompt, _ in asked],
            [draw.getrandbits(32) for _ in asked],
            sampling=Sampling(max_tokens=MAX_ANSWER),
            stop_ids=frozenset(self._reader.stop_ids),
            max_tokens=trainer.recipe.batch.micro_tokens,
            max_len=trainer.max_len,
        )
        samples = [
            self._sample(prompt, answer, hints)
            for (prompt, hints), answer in zip(asked, answers, strict=True)
        ]
        return [sample for sample in samples if sample is not None]

    def _prompt(self, turn: Turn, draw: random.Random) -> Ids:
        """The ids of a variation; none where it is too long or cannot be written."""
        messages = [*turn.messages[:-1], varied(turn.messages[-1], draw)]
        try:
            ids = self._reader.prompt(messages, turn.tools, None).ids
        except UserError:
            return ()
        return ids if len(ids) <= min(MAX_PROMPT, self._trainer.max_len - 1) else ()

    def _sample(self, prompt: Ids, answer: Completion, hints: Sequence[Block]) -> TrainingSample | None:
        """None where the hints have no place."""
        ids, before = prompt + answer.token_ids, len(prompt)
        try:
            view = self._reader.insert(ids, before, hints)
        except UserError:
            return None
        if len(view.token_ids) > self._trainer.max_len:
            return None
        assert answer.raw_logprobs is not None
        assert answer.num_allowed is not None
        return answer_sample(
            prompt,
            answer.token_ids,
            behavior_logprobs=(0.0,) * before + answer.raw_logprobs,
            num_allowed=(0,) * before + answer.num_allowed,
            teacher=view,
            source="practice",
        )


def begins(turn: Turn) -> bool:
    """Whether a turn answers the first request of a conversation, and freely."""
    *operators, user = [message.get("role") for message in turn.messages] or [None]
    return user == "user" and set(operators) <= OPERATORS and turn.sampling.grammar is None


def varied(message: JSON, draw: random.Random) -> JSON:
    """A message with other numbers of as many digits in its text."""

    def other(found: re.Match[str]) -> str:
        digits = len(found[0])
        return str(draw.randrange(10 ** (digits - 1), 10**digits))

    def changed(text: str) -> str:
        return NUMBER.sub(other, text)

    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": changed(content)}
    if not isinstance(content, list):
        return message
    texts = [part.get("text") for part in content]
    parts = [
        {**part, "text": changed(text)} if isinstance(text, str) else part
        for part, text in zip(content, texts, strict=True)
    ]
    return {**message, "content": parts}
