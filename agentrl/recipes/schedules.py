"""Settings that change from step to step: what a preset may say, and the objects that a trainer advances and saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from agentrl.recipes.recipe import Recipe


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


ScheduleSpec = Annotated[ConstantSpec | LinearSpec | SwitchSpec, Field(discriminator="name")]


class Schedule:
    """One changing value. Those that follow the metrics override `observe` and keep their state in `state_dict`."""

    def value(self, step: int) -> Any:
        """The value for optimiser step `step`, counted from 0."""
        raise NotImplementedError

    def extremes(self) -> tuple[Any, ...]:
        """Values between which every other lies; a recipe is checked with each of them when it is loaded."""
        raise NotImplementedError

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Called once after each step with its metrics."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart; plain JSON data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but was given {sorted(state)}")


class Constant(Schedule):
    """v."""

    def __init__(self, spec: ConstantSpec) -> None:
        self.spec = spec

    def value(self, step: int) -> Any:
        return self.spec.value

    def extremes(self) -> tuple[Any, ...]:
        return (self.spec.value,)


class Linear(Schedule):
    """start + (end − start)·min(step / steps, 1)."""

    def __init__(self, spec: LinearSpec) -> None:
        self.spec = spec

    def value(self, step: int) -> float:
        share = min(step / self.spec.steps, 1.0)
        # The weighted form, because start + (end - start)·1 need not be `end` in floating point.
        return (1.0 - share) * self.spec.start + share * self.spec.end

    def extremes(self) -> tuple[float, float]:
        return (self.spec.start, self.spec.end)


class Switch(Schedule):
    """before while step < at, else after."""

    def __init__(self, spec: SwitchSpec) -> None:
        self.spec = spec

    def value(self, step: int) -> Any:
        return self.spec.before if step < self.spec.at else self.spec.after

    def extremes(self) -> tuple[Any, ...]:
        return (self.spec.before, self.spec.after)


SCHEDULES: dict[str, Callable[[Any], Schedule]] = {"constant": Constant, "linear": Linear, "switch": Switch}


def schedule(spec: ConstantSpec | LinearSpec | SwitchSpec) -> Schedule:
    """The object for what a preset says."""
    return SCHEDULES[spec.name](spec)


class Schedules:
    """A recipe's changing settings and the step they stand at; saved with the trainer's state.

    `current` is the recipe with this step's values; `advance` goes to the next step.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.step = 0
        self._schedules = {name: schedule(spec) for name, spec in recipe.schedules.items()}

    def current(self) -> Recipe:
        """The recipe as it is at this step."""
        if not self._schedules:
            return self.recipe
        return self.recipe.replaced({name: item.value(self.step) for name, item in self._schedules.items()})

    def advance(self, metrics: Mapping[str, float]) -> None:
        """Called once after each optimiser step."""
        for item in self._schedules.values():
            item.observe(metrics)
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "schedules": {name: item.state_dict() for name, item in self._schedules.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError when the state belongs to other schedules."""
        if set(state["schedules"]) != set(self._schedules):
            raise ValueError(
                f"the saved state has schedules for {sorted(state['schedules'])}, the recipe for "
                f"{sorted(self._schedules)}"
            )
        self.step = int(state["step"])
        for name, item in self._schedules.items():
            item.load_state_dict(state["schedules"][name])
