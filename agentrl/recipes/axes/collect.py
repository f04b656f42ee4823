"""How samples are collected and edited: rollout and transform."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agentrl.recipes.axes.base import BY_NAME, NAMED, Option

# 1 rollout


class Stream(Option):
    """Every turn of live traffic is a sample of its own."""

    name: Literal["stream"] = "stream"


class Student(Option):
    """Groups of `group_size` turns sampled by the policy for one task key."""

    name: Literal["student"] = "student"
    group_size: int = Field(default=8, ge=1)
    group_timeout_s: float = Field(default=600.0, gt=0)
    """How long an incomplete group waits for its other turns before it is rejected."""


Rollout = Annotated[Annotated[Stream | Student, BY_NAME], NAMED]


# 2 transform


class NoTransform(Option):
    """Records are trained as sampled."""

    name: Literal["none"] = "none"


Transform = Annotated[NoTransform, NAMED]
