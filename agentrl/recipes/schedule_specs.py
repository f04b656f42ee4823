"""What a preset may say of a setting that changes from step to step; `agentrl.recipes.schedules` has the objects."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ConstantSpec(_Spec):
    """The same value at every step."""

    name: Literal["constant"] = "constant"
    value: Any


class LinearSpec(_Spec):
    """From `start` at step 0 to `end` at step `steps`, then `end`."""

    name: Literal["linear"] = "linear"
    start: float
    end: float
    steps: int = Field(ge=1)


class SwitchSpec(_Spec):
    """`before` up to step `at`, `after` from that step on. Values may be numbers, names or whole options."""

    name: Literal["switch"] = "switch"
    before: Any
    after: Any
    at: int = Field(ge=1)


class ExpDecaySpec(_Spec):
    """From `start` towards `end`: the distance is multiplied by `decay` at every step."""

    name: Literal["exp_decay"] = "exp_decay"
    start: float
    end: float = 0.0
    decay: float = Field(gt=0, lt=1)


class _FollowSpec(_Spec):
    metric: str
    """A metric of the steps (`StepResult.metrics`), by name: "loss/kd", "policy_entropy", "reward_mean"."""


class MomentumSpec(_FollowSpec):
    """t ← t + rate·σ(m)·(end − t), m ← decay·m + (1−decay)·(relative fall of the metric). TAID, arXiv 2501.16937."""

    name: Literal["momentum"] = "momentum"
    start: float = 0.4
    end: float = 1.0
    rate: float = Field(default=5e-4, gt=0)
    decay: float = Field(default=0.99, ge=0, lt=1)


class _BoundedSpec(_FollowSpec):
    target: float
    """Of the metric."""
    start: float
    low: float
    high: float

    @model_validator(mode="after")
    def _within(self) -> Self:
        if not self.low <= self.start <= self.high:
            raise ValueError(f"start {self.start} must lie between low {self.low} and high {self.high}")
        return self


class DualSpec(_BoundedSpec):
    """v ← v + rate·(metric − target): a multiplier that rises while its bound is broken. R2VPO, arXiv 2601.03320."""

    name: Literal["dual"] = "dual"
    rate: float = Field(gt=0)


class PidSpec(_BoundedSpec):
    """start + p·e + i·Σe + d·Δe, e = metric − target; at `low` while a gate's metric is not below its bound. SAFE."""

    name: Literal["pid"] = "pid"
    p: float = 0.0
    i: float = 0.0
    d: float = 0.0
    gate: str | None = None
    """Another metric; None = no gate."""
    gate_below: float = 0.0


class TargetSpec(_BoundedSpec):
    """v ± step, up while the metric is below its target, or, with `falls`, while it is above."""

    name: Literal["target"] = "target"
    step: float = Field(gt=0)
    falls: bool = False
    """Whether a larger value makes the metric smaller."""


class ConditionedSpec(_FollowSpec):
    """low + (high − low)·(3x² − 2x³), x the last metric within [0, 1]: loose where the metric is low. FG-ExPO."""

    name: Literal["conditioned"] = "conditioned"
    low: float
    high: float
    first: float = Field(default=0.0, ge=0, le=1)
    """The metric's place before the first step."""


Spec = (
    ConstantSpec
    | LinearSpec
    | SwitchSpec
    | ExpDecaySpec
    | MomentumSpec
    | DualSpec
    | PidSpec
    | TargetSpec
    | ConditionedSpec
)
ScheduleSpec = Annotated[Spec, Field(discriminator="name")]
