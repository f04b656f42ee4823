"""A house that changes its mind: from some moment on half of its rules ask for another command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agentrl.types import Reply
from envs.house_rules import HouseRules
from envs.protocol import Observation, Split, StepResult, Task
from envs.terminal import Terminal


class Changing:
    """The environment.

    Args:
        seed: draws the house, what it changes, and the tasks.
        has_changed: whether it has; asked for each task.
        share: of each family's rules, those that change.
        options: as of `Terminal`.

    Figures: those of `Terminal`, and "changed", whether the task's rule is one of those that change.
    """

    name = "changing"

    def __init__(
        self, *, seed: int = 0, has_changed: Callable[[], bool], share: float = 0.5, **options: Any
    ) -> None:
        before = HouseRules.draw(seed)
        after = before.changed(share)
        self.houses = tuple(Terminal(seed=seed, rules=rules, **options) for rules in (before, after))
        self.changed = frozenset(
            old.key for old, new in zip(before.rules, after.rules, strict=True) if old.new != new.new
        )
        self._has_changed = has_changed
        self._place = 0

    def task(self, split: Split, index: int) -> Task:
        """The same request before and after; what does it is that of the moment."""
        place = int(self._has_changed())
        task = self.houses[place].task(split, index)
        return replace(task, data=(place, task.data))

    async def reset(self, task: Task) -> Observation:
        self._place, data = task.data
        return await self.houses[self._place].reset(replace(task, data=data))

    async def step(self, reply: Reply) -> StepResult:
        result = await self.houses[self._place].step(reply)
        return replace(result, info={**result.info, "changed": result.info["rule"] in self.changed})

    async def aclose(self) -> None:
        for house in self.houses:
            await house.aclose()
