"""A user with habits: one to four preferences for the style of short notes, told to nobody until a note is wrong.

    user       Describe the lamp: weight 3 kg or 7 lb, height 2 m or 7 ft.
    assistant  (a note in some style)
    user       Please use metric units.                          a correction: one unmet preference a turn
    assistant  (a note)
    user       Tell me about the door: ...                       or thanks, once all preferences are met
    ...        at most `max_turns` replies

The user speaks in words alone and gives no reward (unless `rewarded`). What a note lacks the user finds by an own
reading of it; `envs.personal_grader` grades independently of that. Training and held-out tasks are about different
things.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from agentrl.errors import ConfigError
from agentrl.nano import habits
from agentrl.nano.habits import Topic
from agentrl.types import JSON, Reply
from envs.protocol import Observation, Split, StepResult, Task

Wordings = Literal["known", "withheld"]
WORDINGS: dict[str, tuple[str, ...]] = {
    "known": habits.KNOWN_WISHES,
    "withheld": habits.WITHHELD_WISHES,
}
MAX_TURNS = 8
MAX_REQUESTS = 3
"""Notes that are asked for in one conversation, at most; how many is drawn."""
THINGS: dict[Split, tuple[str, ...]] = {"train": habits.THINGS[::2], "held_out": habits.THINGS[1::2]}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who asks for notes."""

    preferences: dict[str, str]
    """The wanted value of one to four axes, in the order of `habits.AXES`."""
    wordings: tuple[str, ...]
    """How this user puts a wish; see `habits.WISHES`."""

    @classmethod
    def draw(cls, seed: int, *, wordings: Wordings = "known", preferences: int | None = None) -> User:
        """The user of a seed.

        Args:
            wordings: "known" to nano's training, or "withheld" from it.
            preferences: how many; None draws one to four.

        Raises:
            ConfigError: there are not so many axes, or no such wordings.
        """
        if wordings not in WORDINGS:
            raise ConfigError(f"there are no wordings {wordings!r}; use {' or '.join(WORDINGS)}")
        rng = random.Random(f"user {wordings} {seed}")
        number = rng.randint(1, len(habits.AXES)) if preferences is None else preferences
        if not 1 <= number <= len(habits.AXES):
            raise ConfigError(f"preferences is {number}; a user has 1 to {len(habits.AXES)}")
        wanted = rng.sample(tuple(habits.AXES), number)
        values = {axis: rng.choice(habits.AXES[axis]) for axis in habits.AXES if axis in wanted}
        return cls(preferences=values, wordings=WORDINGS[wordings])

    def unmet(self, text: str, topic: Topic) -> dict[str, str | None]:
        """The preferences that a note does not meet, by axis the value that it has instead; None = none of them."""
        found = style_of(text, topic)
        return {axis: found[axis] for axis, value in self.preferences.items() if found[axis] != value}

    def correction(self, rng: random.Random, axis: str, instead: str | None) -> str:
        """One wish, in one of the user's wordings."""
        value = self.preferences[axis]
        other = instead or next(each for each in habits.AXES[axis] if each != value)
        return habits.wish(rng, rng.choice(self.wordings), value, other)

    def told(self) -> tuple[str, ...]:
        """All preferences as wishes, for the control in which nothing needs to be learned."""
        rng = random.Random("told")
        return tuple(self.correction(rng, axis, None) for axis in self.preferences)


def style_of(text: str, topic: Topic) -> dict[str, str | None]:
    """How this user reads a note: the value of each axis, None where it shows none of them."""
    lines = [line.strip() for line in text.strip().splitlines()]
    shown = {(_stands(fact.metric, text), _stands(fact.imperial, text)) for fact in topic.measures}
    units = {(True, True): "both", (True, False): "metric", (False, True): "imperial"}
    form: str | None = None
    if any(line.startswith("|") for line in lines):
        form = "table"
    elif any(line.startswith("- ") for line in lines):
        form = "list"
    elif any(line.startswith(f"The {topic.thing} has ") for line in lines):
        form = "sentence"
    return {
        "form": form,
        "tone": _edge(lines[:1], habits.OPENINGS, without="dry"),
        "units": units.get(next(iter(shown))) if len(shown) == 1 else None,
        "ending": _edge(lines[-1:], habits.ENDINGS, without="none"),
    }


def _stands(value: str, text: str) -> bool:
    """Whether "3 m" stands in a text; in "13 m" or "3 mm" it does not."""
    return re.search(rf"(?<!\d){re.escape(value)}\b", text) is not None


def _edge(line: list[str], known: dict[str, tuple[str, ...]], *, without: str) -> str:
    """The value whose text a first or last line is, `without` where it is no such text."""
    return next((value for value, texts in known.items() if line and line[0] in texts), without)


class Personal:
    """The environment.

    Args:
        seed: draws the user (unless `user` is given) and the tasks.
        user: one drawn beforehand.
        wordings: "known" or "withheld": the user's ways to put a wish.
        preferences: how many preferences the user has; None draws one to four.
        max_turns: replies of one conversation.
        told: write the wishes into the system message, so that nothing needs to be learned.
        rewarded: end with a reward, 1.0 where the first note met all preferences; else the user's words are all there
            is.

    Raises:
        ConfigError: a setting cannot work; the message says what would.
    """

    name = "personal"

    def __init__(
        self,
        *,
        seed: int = 0,
        user: User | None = None,
        wordings: Wordings = "known",
        preferences: int | None = None,
        max_turns: int = MAX_TURNS,
        told: bool = False,
        rewarded: bool = False,
    ) -> None:
        if max_turns < 1:
            raise ConfigError(f"max_turns is {max_turns}; a conversation needs at least 1")
        self.seed = seed
        self.user = user or User.draw(seed, wordings=wordings, preferences=preferences)
        self.max_turns = max_turns
        hints = "\n".join(f"Hint: {wish}" for wish in self.user.told())
        self.system = f"{habits.ASSISTANT_SYSTEM}\n\n{hints}" if told else habits.ASSISTANT_SYSTEM
        self.rewarded = rewarded
        self._rng = random.Random()
        self._topics: list[Topic] = []
        self._num_turns = 0
        self._corrections: Counter[str] = Counter()
        self._first: dict[str, bool] = {}
        self._thanked = False

    def task(self, split: Split, index: int) -> Task:
        if split not in THINGS:
            raise ConfigError(f"there is no split {split!r}; use train or held_out")
        rng = random.Random(f"personal {self.seed} {split} {index}")
        topics = [habits.topic(rng, THINGS[split]) for _ in range(rng.randint(1, MAX_REQUESTS))]
        return Task(key=f"personal-{self.seed}-{split}-{index}", split=split, data=topics)

    async def reset(self, task: Task) -> Observation:
        self._rng = random.Random(f"talk {task.key}")
        self._topics = list(task.data)
        self._num_turns = 0
        self._corrections = Counter()
        self._first = {}
        self._thanked = False
        return Observation(messages=({"role": "system", "content": self.system}, self._request()))

    async def step(self, reply: Reply) -> StepResult:
        self._num_turns += 1
        if self._thanked:
            return self._end()
        unmet = self.user.unmet(reply.text, self._topics[0])
        if not self._first:
            self._first = {axis: axis not in unmet for axis in self.user.preferences}
        if self._num_turns >= self.max_turns:
            return self._end()
        if unmet:
            axis = self._rng.choice(list(unmet))
            self._corrections[axis] += 1
            return self._go_on(_said(self.user.correction(self._rng, axis, unmet[axis])))
        if len(self._topics) > 1:
            del self._topics[0]
            return self._go_on(self._request())
        self._thanked = True
        return self._go_on(_said(self._rng.choice(habits.THANKS)))

    async def aclose(self) -> None:
        pass

    def _request(self) -> JSON:
        return _said(self._topics[0].request(self._rng))

    def _go_on(self, message: JSON) -> StepResult:
        return StepResult(messages=(message,), info=self._info())

    def _end(self) -> StepResult:
        reward = float(all(self._first.values())) if self.rewarded else None
        return StepResult(reward=reward, done=True, info=self._info())

    def _info(self) -> dict[str, Any]:
        return {
            "preferences": dict(self.user.preferences),
            "first": dict(self._first),
            "first_try": all(self._first.values()),
            "corrections": dict(self._corrections),
            "satisfied": self._thanked,
            "num_steps": self._num_turns,
        }


def _said(text: str) -> JSON:
    return {"role": "user", "content": text}
