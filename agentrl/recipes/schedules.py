"""Settings that change from step to step: the objects that a trainer advances and saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agentrl.recipes.schedule_specs import (
    ConditionedSpec,
    ConstantSpec,
    DualSpec,
    ExpDecaySpec,
    LinearSpec,
    MomentumSpec,
    PidSpec,
    Spec,
    SwitchSpec,
    TargetSpec,
)

if TYPE_CHECKING:
    from agentrl.recipes.recipe import Recipe


class Schedule:
    """One changing value. Those that follow the metrics override `observe` and keep their state in `state_dict`."""

    def value(self, step: int) -> Any:
        """The value for optimiser step `step`, counted from 0."""
        raise NotImplementedError

    def extremes(self) -> tuple[Any, ...]:
        """Values between which every other lies; a recipe is checked with each of them when it is loaded."""
        raise NotImplementedError

    @property
    def follows(self) -> tuple[str, ...]:
        """The metrics that it looks at."""
        return ()

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Called once after each step that has all metrics that it follows."""

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


class ExpDecay(Schedule):
    """end + (start − end)·decay^step."""

    def __init__(self, spec: ExpDecaySpec) -> None:
        self.spec = spec

    def value(self, step: int) -> float:
        return self.spec.end + (self.spec.start - self.spec.end) * self.spec.decay**step

    def extremes(self) -> tuple[float, float]:
        return (self.spec.start, self.spec.end)


class Following(Schedule):
    """A value that the metrics of the steps move. Its state is a handful of numbers by name."""

    spec: MomentumSpec | DualSpec | PidSpec | TargetSpec | ConditionedSpec

    def __init__(self, **state: float | None) -> None:
        self._state = state

    @property
    def follows(self) -> tuple[str, ...]:
        return (self.spec.metric,)

    def value(self, step: int) -> float:
        value = self._state["value"]
        assert value is not None
        return value

    def state_dict(self) -> dict[str, Any]:
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.keys() != self._state.keys():
            raise ValueError(
                f"{type(self).__name__} keeps {sorted(self._state)}, but was given {sorted(state)}"
            )
        self._state = dict(state)


class Momentum(Following):
    """t ← t + a·σ(m)·(end − t); m ← β·m + (1−β)·(J_last − J)/J_last. The first step has no fall to look at."""

    spec: MomentumSpec

    def __init__(self, spec: MomentumSpec) -> None:
        self.spec = spec
        super().__init__(value=spec.start, momentum=0.0, last=None)

    def extremes(self) -> tuple[float, float]:
        return (self.spec.start, self.spec.end)

    def observe(self, metrics: Mapping[str, float]) -> None:
        now, last = metrics[self.spec.metric], self._state["last"]
        if last:  # neither unknown nor 0
            fall = (last - now) / abs(last)
            momentum = self.spec.decay * (self._state["momentum"] or 0.0) + (1.0 - self.spec.decay) * fall
            value = self.value(0)
            value += self.spec.rate * 0.5 * (1.0 + math.tanh(0.5 * momentum)) * (self.spec.end - value)
            self._state |= {"value": value, "momentum": momentum}
        self._state["last"] = now


class _Bounded(Following):
    spec: DualSpec | PidSpec | TargetSpec

    def extremes(self) -> tuple[float, float]:
        return (self.spec.low, self.spec.high)

    def error(self, metrics: Mapping[str, float]) -> float:
        return metrics[self.spec.metric] - self.spec.target

    def move(self, value: float) -> None:
        self._state["value"] = min(max(value, self.spec.low), self.spec.high)


class Dual(_Bounded):
    """v ← v + rate·(metric − target), within [low, high]: gradient ascent on a Lagrange multiplier."""

    spec: DualSpec

    def __init__(self, spec: DualSpec) -> None:
        self.spec = spec
        super().__init__(value=spec.start)

    def observe(self, metrics: Mapping[str, float]) -> None:
        self.move(self.value(0) + self.spec.rate * self.error(metrics))


class Pid(_Bounded):
    """start + p·e + i·Σe + d·(e − e_last), within [low, high]. The sum stands still while the value is at a bound that
    it pushes against, so that it comes back at once when the error turns."""

    spec: PidSpec

    def __init__(self, spec: PidSpec) -> None:
        self.spec = spec
        super().__init__(value=spec.start, total=0.0, last=None)

    @property
    def follows(self) -> tuple[str, ...]:
        return (self.spec.metric,) if self.spec.gate is None else (self.spec.metric, self.spec.gate)

    def observe(self, metrics: Mapping[str, float]) -> None:
        spec, error = self.spec, self.error(metrics)
        last = error if self._state["last"] is None else self._state["last"]
        total = (self._state["total"] or 0.0) + error
        wanted = spec.start + spec.p * error + spec.i * total + spec.d * (error - last)
        pushed = (wanted > spec.high and spec.i * error > 0) or (wanted < spec.low and spec.i * error < 0)
        self._state |= {"last": error} if pushed else {"last": error, "total": total}
        shut = spec.gate is not None and metrics[spec.gate] >= spec.gate_below
        self.move(spec.low if shut else wanted)


class Target(_Bounded):
    """v + step while the metric is below its target, v − step above it; the other way round with `falls`."""

    spec: TargetSpec

    def __init__(self, spec: TargetSpec) -> None:
        self.spec = spec
        super().__init__(value=spec.start)

    def observe(self, metrics: Mapping[str, float]) -> None:
        error = self.error(metrics)
        up = (error > 0) if self.spec.falls else (error < 0)
        down = (error < 0) if self.spec.falls else (error > 0)
        self.move(self.value(0) + self.spec.step * (up - down))


class Conditioned(Following):
    """low + (high − low)·s(x), s(x) = 3x² − 2x³, x the last metric within [0, 1]."""

    spec: ConditionedSpec

    def __init__(self, spec: ConditionedSpec) -> None:
        self.spec = spec
        super().__init__(value=self._at(spec.first))

    def _at(self, x: float) -> float:
        share = x * x * (3.0 - 2.0 * x)
        return (1.0 - share) * self.spec.low + share * self.spec.high

    def extremes(self) -> tuple[float, float]:
        return (self.spec.low, self.spec.high)

    def observe(self, metrics: Mapping[str, float]) -> None:
        self._state["value"] = self._at(min(max(metrics[self.spec.metric], 0.0), 1.0))


SCHEDULES: dict[str, Callable[[Any], Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "switch": Switch,
    "exp_decay": ExpDecay,
    "momentum": Momentum,
    "dual": Dual,
    "pid": Pid,
    "target": Target,
    "conditioned": Conditioned,
}


def schedule(spec: Spec) -> Schedule:
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

    def advance(self, metrics: Mapping[str, float]) -> int:
        """Called once after each optimiser step. The weights have moved by then, and its samples decide which metrics a
        step has: where one is missing there is nothing to observe.

        Returns:
            How many schedules had nothing to observe.
        """
        blind = 0
        for item in self._schedules.values():
            if metrics.keys() >= set(item.follows):
                item.observe(metrics)
            else:
                blind += 1
        self.step += 1
        return blind

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
