"""What an environment is: messages and tools in, the agent's reply out, a reward at the end.

    from envs.protocol import Observation, StepResult, Task

    class Sums:
        name = "sums"

        def task(self, split, index):
            return Task(key=f"{split}-{index}", split=split, data=(index, index + 1))

        async def reset(self, task):
            self.right = str(sum(task.data))
            return Observation(messages=({"role": "user", "content": f"{task.data[0]} + {task.data[1]} = ?"},))

        async def step(self, reply):
            return StepResult(reward=float(reply.text.strip() == self.right), done=True)

        async def aclose(self):
            pass

An environment knows nothing of tokens, servers or learning; `envs.runner` plays it against any OpenAI-compatible
endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agentrl.types import JSON, Reply

Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    key: str
    """Names the task: equal keys are equal tasks."""
    split: Split
    data: Any = None
    """What the environment needs to set it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """How an episode begins."""

    messages: tuple[JSON, ...]
    """System and user messages in OpenAI's chat form."""
    tools: tuple[JSON, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What followed one reply of the agent."""

    messages: tuple[JSON, ...] = ()
    """Tool messages (one for every call of the reply, in order) or user messages."""
    reward: float | None = None
    """The episode's reward, given once, with `done`; None = not judged."""
    done: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    """Figures for reports; those of the last step describe the episode."""


class Environment(Protocol):
    """One place to act in. It plays one episode at a time; a runner makes one for each agent."""

    @property
    def name(self) -> str: ...

    def task(self, split: Split, index: int) -> Task:
        """The task of a number: any number from 0 on, always the same task, no task in both splits."""
        ...

    async def reset(self, task: Task) -> Observation:
        """Begins an episode, whatever the last one left behind."""
        ...

    async def step(self, reply: Reply) -> StepResult:
        """Acts on one reply. What the agent does wrong is an observation, never an exception."""
        ...

    async def aclose(self) -> None:
        """Lets go of what it holds; may be called twice."""
        ...
