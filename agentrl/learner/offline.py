"""Answers from a file: samples that nobody of ours sampled.

    {"messages": [...], "tools": [...], "reply": "...", "reward": 1.0}         one answer
    {"messages": [...], "tools": [...], "chosen": "...", "rejected": "..."}    two answers to compare

One JSON object a line; `tools` and `reward` may be absent, an answer is a text or an assistant message. Prompts and
answers are written with the model's own renderer. They have no log-probs of a sampler (law 1), so a recipe that would
divide by those refuses such a rollout when it is loaded.

Which records a step takes follows from the number of the step alone: the order is drawn anew for each epoch from the
seed. A learner that is restarted or rolled back goes on at the right line, and the same run reads the same lines
(law 11).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agentrl.config import explain
from agentrl.errors import ConfigError, RequestError
from agentrl.learner.pairs import Writer, answer_sample
from agentrl.recipes import axes, routes
from agentrl.recipes.files import path_of
from agentrl.recipes.recipe import Recipe
from agentrl.text.renderer import Parent, Prompt
from agentrl.types import JSON, TrainingSample


class PromptWriter(Writer, Protocol):
    """`agentrl.text.renderer.Renderer`, as far as records are written with it."""

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def encode_plain(self, text: str) -> list[int]: ...

    def prompt(self, messages: Sequence[JSON], tools: Sequence[JSON], parent: Parent | None) -> Prompt: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a step gets beside the claimed turns."""

    samples: tuple[TrainingSample, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where they come from, to be recorded with the step (law 8)."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """What could not be used -> why."""


class Record(BaseModel):
    """One line. Unknown fields are refused: a misspelt `reward` must not look like none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] = []
    reply: str | dict[str, Any] | None = None
    reward: float | None = Field(default=None, allow_inf_nan=False)
    chosen: str | dict[str, Any] | None = None
    rejected: str | dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_answer_or_two(self) -> Self:
        pair = (self.chosen is not None, self.rejected is not None)
        if (self.reply is not None) == any(pair) or len(set(pair)) > 1:
            raise ValueError("a record has a reply, or chosen and rejected")
        if self.reward is not None and self.reply is None:
            raise ValueError("a reward belongs to a reply; of chosen and rejected the first is better")
        return self

    @property
    def compares(self) -> bool:
        return self.reply is None


class OfflineFile:
    """The records of a file, step by step.

    Args:
        recipe: with the rollout `offline` or `mixed`.
        writer: the model's renderer.
        max_len: most ids of a sequence; longer answers are left out and named.
        seed: of the order.

    Raises:
        ConfigError: no path, a file that cannot be read, or a line that is no record that the recipe can learn from.
    """

    def __init__(self, recipe: Recipe, writer: PromptWriter, *, max_len: int, seed: int) -> None:
        rollout = recipe.rollout
        assert isinstance(rollout, axes.Offline | axes.Mixed)
        self._path = path_of(recipe, "rollout.path")
        self._recipe = recipe
        self._writer = writer
        self._max_len = max_len
        self._seed = seed
        self._epochs = rollout.epochs if isinstance(rollout, axes.Offline) else 0
        self._lines = list(_read(self._path, recipe))
        if not any(routes.weights(recipe, _case(record)).trains for _, record in self._lines):
            raise ConfigError(
                f"{self._path}: route {recipe.route.name!r} lets no line of it be learned from: give the replies the "
                "rewards that it asks for, or set route = 'all'"
            )
        compares = any(record.compares for _, record in self._lines)
        self._per_step = max(1, recipe.num_beside // (2 if compares else 1))
        self._skipped = 0

    def __len__(self) -> int:
        return len(self._lines)

    def has_more(self, step: int) -> bool:
        """Whether records are left for the step behind `step` others."""
        return not self._epochs or self._first(step) < self._epochs * len(self._lines)

    def skip(self) -> None:
        """The records drawn last gave no step: the next draw takes those behind them."""
        self._skipped += 1

    def draw(self, step: int, newest_version: int) -> Drawn:
        """The samples of the step behind `step` others.

        Args:
            newest_version: not used: the answers are of no version.
        """
        del newest_version
        samples: list[TrainingSample] = []
        dropped: dict[str, str] = {}
        numbers = []
        for place in range(self._first(step), self._first(step) + self._per_step):
            epoch, at = divmod(place, len(self._lines))
            if self._epochs and epoch >= self._epochs:
                break
            number, record = self._lines[self._order(epoch)[at]]
            try:
                samples += self._samples(f"{epoch}:{number}", record)
                numbers.append(number)
            except (RequestError, _Unusable) as error:
                dropped[f"{self._path.name}:{number}"] = str(error)
        origin = {"file": str(self._path), "lines": numbers}
        return Drawn(samples=tuple(samples), origin=origin, dropped=dropped)

    def _first(self, step: int) -> int:
        return (step + self._skipped) * self._per_step

    def _order(self, epoch: int) -> list[int]:
        order = list(range(len(self._lines)))
        random.Random(f"{self._seed}/{epoch}").shuffle(order)
        return order

    def _samples(self, name: str, record: Record) -> list[TrainingSample]:
        prompt = self._writer.prompt(record.messages, record.tools, None).ids
        if record.reply is not None:
            good = record.reward is None or record.reward > 0
            case = _case(record)
            if not routes.weights(self._recipe, case).trains:
                raise _Unusable(routes.why_not(self._recipe, case))
            # A bad answer is the rejected side of a pair that has no other.
            fields = {"preferred": good, "pair": None if good else f"line {name}", "reward": record.reward}
            return [self._sample(record, prompt, record.reply, fields)]
        answers = ((record.chosen, True), (record.rejected, False))
        return [
            self._sample(record, prompt, answer, {"preferred": good, "pair": f"line {name}"})
            for answer, good in answers
            if answer is not None
        ]

    def _sample(
        self, record: Record, prompt: tuple[int, ...], answer: str | JSON, fields: dict[str, Any]
    ) -> TrainingSample:
        reply = self._reply(record, prompt, answer)
        if len(prompt) + len(reply) > self._max_len:
            raise _Unusable(f"longer than the model: {len(prompt) + len(reply)} ids of {self._max_len}")
        return answer_sample(prompt, reply, source="offline", **fields)

    def _reply(self, record: Record, prompt: tuple[int, ...], answer: str | JSON) -> tuple[int, ...]:
        """The ids of an answer, with the id that ends it."""
        message = {"content": answer} if isinstance(answer, str) else answer
        content = message.get("content") or ""
        if not message.get("tool_calls"):
            if not isinstance(content, str) or not content:
                raise _Unusable("an answer without text or tool calls")
            return (*self._writer.encode_plain(content), self._writer.stop_ids[0])
        # Only the model's template knows how it writes a call; it stands between this prompt and the next message.
        following: list[JSON] = [{"role": "assistant", **message}, {"role": "user", "content": "."}]
        ids = self._writer.prompt([*record.messages, *following], record.tools, None).ids
        rest = ids[len(prompt) :]
        ends = [at for at, token in enumerate(rest) if token in self._writer.stop_ids]
        if ids[: len(prompt)] != prompt or not ends:
            raise _Unusable("the model's template writes this history differently once it is answered")
        return rest[: ends[0] + 1]


def _case(record: Record) -> routes.Case:
    """What a route may look at: a line has no context and stands in no group. The routes that weigh by a group are
    refused when the recipe is loaded; of the others a weight is 0 or 1."""
    return routes.Case(reward=record.reward)


class _Unusable(Exception):
    """A record that no sample can be made of."""


def _read(path: Path, recipe: Recipe) -> Iterator[tuple[int, Record]]:
    """Line numbers, from 1, and records."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"rollout.path: {path} cannot be read: {error}") from error
    found = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = True
        try:
            record = Record.model_validate(json.loads(line))
        except ValidationError as error:
            raise ConfigError(f"{path}, line {number}: {explain(error)}") from error
        except ValueError as error:
            raise ConfigError(f"{path}, line {number} is no JSON: {error}") from error
        _suits(path, number, record, recipe)
        yield number, record
    if not found:
        raise ConfigError(f"rollout.path: {path} holds no record")


def _suits(path: Path, number: int, record: Record, recipe: Recipe) -> None:
    """Raises ConfigError for a record that the recipe's loss could make nothing of."""
    if isinstance(recipe.mix, axes.PairLoss) and recipe.mix.compares and not record.compares:
        raise ConfigError(
            f"{path}, line {number} has one answer, but mix {recipe.mix.name!r} compares two: give chosen and "
            "rejected, or set mix = 'redi'"
        )
    if not recipe.uses_pairs and record.compares:
        raise ConfigError(
            f"{path}, line {number} has chosen and rejected, but mix {recipe.mix.name!r} learns from single answers: "
            "give reply, or use a recipe of pairs such as dpo"
        )
