"""A user's standing wishes practised on other requests like those that were made.

    first request of a claimed turn's conversation ─other numbers─> prompt ─policy─> answer ─┐
    standing hints, as the turn's teacher is shown them ─────────────────────────────────────┴─> KL(teacher || policy)

A wish says how every answer is to be, and a user repeats it until it is kept. Behind the first correction stand the few
requests of one conversation: used again and again they teach what to do with these numbers, not what to do. What the
policy answers to variations of them is its own mistake on a request nobody had to make, and the teacher, with the wish
in view, corrects it at once. On-policy context distillation, as of the claimed turns themselves.

Practised is what conversations began with whose first answer was corrected: where that was right the wish is kept, and
more of the same would only move the weights and unteach what happens later in a conversation.

Practised is only what stands whatever was asked: what a tool said of one command is no wish. And varied is only what
can be: no request without a number of its own, and none that is longer than `MAX_PROMPT` ids.

No turn stands behind a practised answer, so it is in nobody's count (law 3); it is never executed and never shown, and
it weighs what the turn weighs that it was made for (`TrainingSample.made_for`). Which requests a step gets follows from
the seed, its number and its turns, so a replay has the same (law 11). Varied is what the step's own conversations began
with, each with the hints of its own scope (law 10), a scope at most its part of the step, and only where that turn is
taught in this step or was before: nothing that is held out or was taken back is practised.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agentrl.errors import LearnerError, UserError
from agentrl.learner.context_gap import Ids
from agentrl.learner.generate import generate
from agentrl.learner.pack import teacher_positions
from agentrl.learner.pairs import answer_sample
from agentrl.learner.teacher_weights import Weights
from agentrl.teacher.contexts import num_practised
from agentrl.text.content import message_text
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
NUMBER: Final = re.compile(r"(?<![\w.,:/@#-])[0-9]+(?:[.,][0-9]+)?(?![\w:/@-]|[.,][0-9])", re.ASCII)
"""One that is a quantity: no part of a name, an address, a date or a time."""

Beginnings = Callable[[Sequence[str]], Mapping[str, Turn]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Practised:
    """What a step is given."""

    samples: tuple[TrainingSample, ...] = ()
    begun: tuple[str, ...] = ()
    """Ids of the turns whose requests were varied, each once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    prompt: Ids
    made_for: str
    begun: str
    hints: Sequence[Block]


class Practice:
    """What steps are given.

    Args:
        trainer: with a teacher that has weights.
        reader: of the policy's model.
        beginnings: by turn id the turn that its conversation began with, where that was corrected and is among those
            that are asked for or was trained (`LearningLog.corrected_beginnings`).
    """

    def __init__(self, trainer: Trainer, reader: Reader, beginnings: Beginnings) -> None:
        self._trainer = trainer
        self._reader = reader
        self._beginnings = beginnings

    @classmethod
    def of(cls, trainer: Trainer, reader: Reader, beginnings: Beginnings) -> Practice | None:
        """None where the recipe practises nothing."""
        return cls(trainer, reader, beginnings) if num_practised(trainer.recipe.context) else None

    def samples(self, taught: Sequence[tuple[Turn, Sequence[Block]]]) -> Practised:
        """Those of the next step; none where no request of its conversations may be varied, or where the weights give
        numbers that are not finite: the step itself refuses these.

        Args:
            taught: its turns, each once, with the hints that its teacher is shown and that stand whatever was asked.
        """
        draw = random.Random(f"practice/{self._trainer.seed}/{self._trainer.num_steps}")
        asked = self._asked(taught, draw)
        try:
            answers = generate(
                Weights(self._trainer.policy, None),
                [one.prompt for one in asked],
                [draw.getrandbits(32) for _ in asked],
                sampling=Sampling(max_tokens=MAX_ANSWER),
                stop_ids=frozenset(self._reader.stop_ids),
                max_tokens=self._trainer.recipe.batch.micro_tokens,
                max_len=self._trainer.max_len,
            )
        except LearnerError:
            return Practised()
        samples, begun = [], []
        for one, answer in zip(asked, answers, strict=True):
            sample = self._sample(one, answer)
            if sample is not None:
                samples.append(sample)
                begun.append(one.begun)
        return Practised(samples=tuple(samples), begun=tuple(dict.fromkeys(begun)))

    def _asked(self, taught: Sequence[tuple[Turn, Sequence[Block]]], draw: random.Random) -> list[_Asked]:
        """What the policy is to answer: requests of turns drawn anew each time, a scope at most its part of them."""
        most = num_practised(self._trainer.recipe.context)
        first = self._beginnings([turn.id for turn, hints in taught if hints])
        begun = [
            (turn, first[turn.id], hints)
            for turn, hints in taught
            if turn.id in first and self._may_vary(first[turn.id])
        ]
        scopes = Counter(turn.scope for turn, _ in taught)
        room = {scope: math.ceil(most * number / len(taught)) for scope, number in scopes.items()}
        asked = []
        for _ in range(most):
            left = [one for one in begun if room[one[0].scope]]
            if not left:
                break
            turn, beginning, hints = draw.choice(left)
            room[turn.scope] -= 1
            prompt = self._prompt(beginning, draw)
            if prompt:
                asked.append(_Asked(prompt=prompt, made_for=turn.id, begun=beginning.id, hints=hints))
        return asked

    def _may_vary(self, beginning: Turn) -> bool:
        """Whether a turn answers the first request of a conversation, freely, and that is short and has numbers."""
        if not begins(beginning) or len(beginning.prompt_ids) > self._max_prompt:
            return False
        return NUMBER.search(message_text(beginning.messages[-1])) is not None

    @property
    def _max_prompt(self) -> int:
        return min(MAX_PROMPT, self._trainer.max_len - 1)

    def _prompt(self, turn: Turn, draw: random.Random) -> Ids:
        """[P] the ids of a variation; none where it is too long or cannot be written."""
        messages = [*turn.messages[:-1], varied(turn.messages[-1], draw)]
        try:
            ids = self._reader.prompt(messages, turn.tools, None).ids
        except UserError:
            return ()
        return ids if len(ids) <= self._max_prompt else ()

    def _sample(self, asked: _Asked, answer: Completion) -> TrainingSample | None:
        """None where the hints have no place, or change the ids around them."""
        ids, before = asked.prompt + answer.token_ids, len(asked.prompt)
        try:
            view = self._reader.insert(ids, before, asked.hints)
            teacher_positions(view, ids, ())
        except (UserError, ValueError):
            return None
        if len(view.token_ids) > self._trainer.max_len:
            return None
        assert answer.raw_logprobs is not None
        assert answer.num_allowed is not None
        sample = answer_sample(
            asked.prompt,
            answer.token_ids,
            behavior_logprobs=(0.0,) * before + answer.raw_logprobs,
            num_allowed=(0,) * before + answer.num_allowed,
            teacher=view,
            source="practice",
        )
        return replace(sample, made_for=asked.made_for)


def begins(turn: Turn) -> bool:
    """Whether a turn answers the first request of a conversation, and freely."""
    *operators, user = [message.get("role") for message in turn.messages] or [None]
    return user == "user" and set(operators) <= OPERATORS and turn.sampling.grammar is None


def varied(message: JSON, draw: random.Random) -> JSON:
    """A message with other numbers of as many digits in its text; the same where it has none."""

    def other(found: re.Match[str]) -> str:
        digits = iter([draw.choice("123456789"), *draw.choices("0123456789", k=len(found[0]))])
        return "".join(next(digits) if char.isdigit() else char for char in found[0])

    def changed(text: str) -> str:
        return NUMBER.sub(other, text)

    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": changed(content)}
    if not isinstance(content, list):
        return message
    parts = [
        {**part, "text": changed(part["text"])}
        if isinstance(part, dict) and isinstance(part.get("text"), str)
        else part
        for part in content
    ]
    return {**message, "content": parts}
