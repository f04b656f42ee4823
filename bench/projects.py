"""Many rules: a machine with several projects, each of which has house rules of its own.

    agentrl rollout --env bench/projects.py:Projects --env-set num_projects=10 ...

Every project is a house of 20 rules; the request says in one sentence which project it is about, and that alone tells
which of the rules for an operation holds. Ten projects are 200 rules.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

from agentrl.errors import ConfigError
from agentrl.nano.vocabulary import AGENT_SYSTEM, WORDS
from agentrl.types import Reply
from envs.house_rules import HouseRules
from envs.protocol import Observation, Split, StepResult, Task
from envs.terminal import Terminal

RULES_EACH = 20
SENTENCE = " The project is {project}."
NUM_RETRIEVED = 12
Told = Literal["nothing", "all", "retrieved"]


class Projects:
    """The environment.

    Args:
        seed: draws the projects, their houses and tasks.
        num_projects: how many.
        told: what stands in the system message: nothing, the rules of all projects, or those that a retrieval without a
            fault would bring, `NUM_RETRIEVED` rules of the task's project with the one that it needs among them.
        num_told: with "all", this many of them, drawn from the seed; None = every one.
        max_steps: replies of one episode.
        shell: as in `Terminal`.

    Raises:
        ConfigError: a setting cannot work.
    """

    name = "projects"

    def __init__(
        self,
        *,
        seed: int = 0,
        num_projects: int = 10,
        told: Told = "nothing",
        num_told: int | None = None,
        max_steps: int = 4,
        shell: str = "auto",
    ) -> None:
        if not 1 <= num_projects <= len(WORDS):
            raise ConfigError(f"num_projects is {num_projects}; there are names for 1 to {len(WORDS)}")
        if told not in ("nothing", "all", "retrieved"):
            raise ConfigError(f"told is {told!r}; use nothing, all or retrieved")
        rng = random.Random(f"projects {seed}")
        self.projects = tuple(rng.sample(WORDS, num_projects))
        self.houses = tuple(
            Terminal(
                seed=1000 * seed + place,
                rules=HouseRules.draw(1000 * seed + place, RULES_EACH // 2, RULES_EACH // 2),
                max_steps=max_steps,
                shell=shell,
            )
            for place in range(num_projects)
        )
        lines = [
            f"Hint: project {project}: {hint.removeprefix('Hint: ')}"
            for project, house in zip(self.projects, self.houses, strict=True)
            for hint in house.rules.told()
        ]
        # Shuffled: what a shorter list leaves out is to be any rule, not the last projects.
        rng.shuffle(lines)
        self._told = tuple(lines[:num_told]) if told == "all" else ()
        self._retrieves = told == "retrieved"
        self._place = 0

    def task(self, split: Split, index: int) -> Task:
        """The projects take turns."""
        number, place = divmod(index, len(self.houses))
        task = self.houses[place].task(split, number)
        text = task.data.text + SENTENCE.format(project=self.projects[place])
        return replace(task, data=(place, replace(task.data, text=text)))

    async def reset(self, task: Task) -> Observation:
        self._place, data = task.data
        seen = await self.houses[self._place].reset(replace(task, data=data))
        lines = self._retrieved(task.key, data.operation.key) if self._retrieves else self._told
        system = "\n".join((AGENT_SYSTEM, *lines))
        return replace(seen, messages=({"role": "system", "content": system}, *seen.messages[1:]))

    def _retrieved(self, task_key: str, operation: str) -> tuple[str, ...]:
        """Lines of the project alone need not name it."""
        rules = self.houses[self._place].rules
        by_key = dict(zip((rule.key for rule in rules.rules), rules.told(), strict=True))
        rng = random.Random(f"retrieved {task_key}")
        keys = [operation, *rng.sample([key for key in by_key if key != operation], NUM_RETRIEVED - 1)]
        rng.shuffle(keys)
        return tuple(by_key[key] for key in keys)

    async def step(self, reply: Reply) -> StepResult:
        return await self.houses[self._place].step(reply)

    async def aclose(self) -> None:
        for house in self.houses:
            await house.aclose()
