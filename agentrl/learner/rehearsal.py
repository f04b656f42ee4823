"""The teacher's own answers to everyday requests, some of which each step holds beside what it learns.

    system message and tools of a claimed turn ─┐
    an everyday request ────────────────────────┴─teacher─> answer, once ─held─> KL(teacher || policy) on its ids

A client that teaches one rule in one phrasing gives steps whose samples are nearly alike: all that they do not mention
is free to move, and an adaptive optimiser moves it far. Held is what the teacher, by default version 0, itself says to
other requests of the same client, so nobody's data is needed. Pseudo-rehearsal, Robins 1995.

Which requests a step gets follows from the seed and its number, and so does what the teacher says (law 11): only one
that stands still is asked (`Recipe.num_rehearsed`), as what a moving one says follows from when it was asked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from agentrl.errors import UserError
from agentrl.learner.generate import generate
from agentrl.learner.pairs import answer_sample
from agentrl.learner.teacher_weights import Weights
from agentrl.types import JSON, Sampling, TrainingSample, Turn

if TYPE_CHECKING:
    from agentrl.learner.situations import Reader
    from agentrl.learner.trainer import Trainer

REQUESTS: Final = (
    "Count the lines of notes4.txt.",
    "Copy plan.md to plan_old.md.",
    "Rename draft.txt to final.txt.",
    "Delete old.log.",
    "Make the folder backup.",
    "Show the first lines of data.csv.",
    "Show the last lines of server.log.",
    "Sort the lines of names.txt.",
    "Search report.txt for the word error.",
    "Compress the file scores.txt.",
    "Which files are in the folder docs?",
    "Which folder are we in?",
    "Show the file readme.txt.",
    "How large is photo.dat?",
    "Find the differences between a.txt and b.txt.",
    "Run the script setup.sh.",
    "Install git.",
    "Fetch the page index.html.",
    "Thank you.",
    "What can you do for me?",
    "What is two plus two?",
    "Write a short note about the weather.",
    "Name three colours.",
    "Say hello to Anna.",
)
"""Of every kind that assistants are asked; what a request says does not matter, only that others than the taught ones
are among them."""
MAX_PROMPT: Final = 1024
"""Ids: behind a longer system message the request stands alone."""
MAX_ANSWER: Final = 32
"""Ids of an answer: where it begins it is decided."""
MAX_KEPT: Final = 256
"""Answers; then the oldest is forgotten."""

Ids = tuple[int, ...]


class Rehearsal:
    """What steps are given.

    Args:
        trainer: with a teacher.
        renderer: of the policy's model.
    """

    def __init__(self, trainer: Trainer, renderer: Reader) -> None:
        self._trainer = trainer
        self._renderer = renderer
        self._answers: dict[Ids, Ids] = {}

    @classmethod
    def of(cls, trainer: Trainer, renderer: Reader) -> Rehearsal | None:
        """None where the recipe rehearses nothing, or its teacher moves or gave its scores beforehand."""
        if trainer.recipe.teacher.name == "joint":  # moves, whatever its sync
            return None
        return cls(trainer, renderer) if trainer.recipe.num_rehearsed and trainer.teacher else None

    def samples(self, turns: Sequence[Turn]) -> list[TrainingSample]:
        """Those of the next step.

        Args:
            turns: the step's; requests stand behind the system message and the tools of one of them.
        """
        draw = random.Random(f"rehearsal/{self._trainer.seed}/{self._trainer.num_steps}")
        turn = draw.choice(turns)
        asked = draw.sample(REQUESTS, min(self._trainer.recipe.num_rehearsed, len(REQUESTS)))
        prompts = [prompt for prompt in (self._prompt(turn, text) for text in asked) if prompt]
        self._answer([prompt for prompt in prompts if prompt not in self._answers])
        samples = [_held(prompt, self._answers[prompt]) for prompt in prompts]
        while len(self._answers) > MAX_KEPT:  # last: the oldest may be among those of this step
            del self._answers[next(iter(self._answers))]
        return samples

    def _prompt(self, turn: Turn, text: str) -> Ids:
        """The ids of a request; none where the model's format does not allow it."""
        request: list[JSON] = [{"role": "user", "content": text}]
        system = [message for message in turn.messages if message.get("role") == "system"][:1]
        for messages, tools in (([*system, *request], turn.tools), (request, ())):
            try:
                ids = self._renderer.prompt(messages, tools, None).ids
            except UserError:
                continue
            if len(ids) <= min(MAX_PROMPT, self._trainer.max_len - 1):
                return ids
        return ()

    def _answer(self, prompts: Sequence[Ids]) -> None:
        teacher = self._trainer.teacher
        assert isinstance(teacher, Weights), "without a teacher nothing is rehearsed"
        if not prompts:
            return
        found = generate(
            teacher,
            prompts,
            [self._trainer.seed] * len(prompts),
            sampling=Sampling(max_tokens=MAX_ANSWER),
            stop_ids=frozenset(self._renderer.stop_ids),
            max_tokens=self._trainer.recipe.batch.micro_tokens,
            max_len=self._trainer.max_len,
        )
        self._answers |= {prompt: done.token_ids for prompt, done in zip(prompts, found, strict=True)}


def _held(prompt: Ids, answer: Ids) -> TrainingSample:
    """No turn stands behind it, so it is in nobody's count (law 3)."""
    return answer_sample(prompt, answer, version=0, source="held")
