"""Schedules that follow the steps' metrics: literal sequences, bounds, and restarts bit for bit (law 11)."""

import json
from math import exp
from typing import Any

import pytest
from pydantic import ValidationError

from agentrl.errors import ConfigError
from agentrl.recipes.recipe import load_recipe
from agentrl.recipes.schedule_specs import (
    ConditionedSpec,
    DualSpec,
    ExpDecaySpec,
    MomentumSpec,
    PidSpec,
    TargetSpec,
)
from agentrl.recipes.schedules import Schedules, schedule

BOUNDS = {"metric": "m", "target": 0.5, "start": 1.0, "low": 0.0, "high": 2.0}
FOLLOWING: dict[str, Any] = {
    "momentum": MomentumSpec(metric="m", start=0.4, rate=0.05, decay=0.9),
    "dual": DualSpec(**BOUNDS, rate=0.3),
    "pid": PidSpec(**BOUNDS, p=0.7, i=0.11, d=0.3),
    "target": TargetSpec(**BOUNDS, step=0.07),
    "conditioned": ConditionedSpec(metric="m", low=0.1, high=0.9),
}


def followed(spec: Any, metrics: list[float]) -> list[float]:
    """Values before the first step and after each."""
    item = schedule(spec)
    values = [item.value(0)]
    for step, metric in enumerate(metrics):
        item.observe({"m": metric, "other": 9.0})
        values.append(item.value(step + 1))
    return values


def test_an_exponential_decay_multiplies_its_distance() -> None:
    item = schedule(ExpDecaySpec(start=1.0, end=0.2, decay=0.5))
    assert [item.value(step) for step in range(4)] == pytest.approx([1.0, 0.6, 0.4, 0.3])
    assert item.extremes() == (1.0, 0.2)


def test_momentum_goes_on_faster_while_the_loss_falls() -> None:
    """TAID: m = .9·0 + .1·(2−1)/2 = .05 after the second loss; Δt = .05·σ(m)·(1 − .4)."""
    first = 0.4 + 0.05 / (1 + exp(-0.05)) * 0.6
    momentum = 0.9 * 0.05 + 0.1 * (1 - 4) / 1
    second = first + 0.05 / (1 + exp(-momentum)) * (1 - first)
    assert followed(FOLLOWING["momentum"], [2.0, 1.0, 4.0]) == pytest.approx(
        [0.4, 0.4, first, second], abs=1e-15
    )
    falling = followed(MomentumSpec(metric="m", rate=0.5, decay=0.0), [8, 4, 2, 1, 0.5])
    rising = followed(MomentumSpec(metric="m", rate=0.5, decay=0.0), [0.5, 1, 2, 4, 8])
    assert all(one > other for one, other in zip(falling[2:], rising[2:], strict=True))
    assert falling == sorted(falling)
    assert falling[-1] < 1.0


def test_dual_ascent_rises_while_the_bound_is_broken_and_stays_within_its_own() -> None:
    """1 + .3·(1.5 − .5) = 1.3; then −.3·.5, twice; then the bounds 0 and 2."""
    assert followed(FOLLOWING["dual"], [1.5, 0.0, 0.0, 9.0, -9.0]) == pytest.approx(
        [1.0, 1.3, 1.15, 1.0, 2.0, 0.0]
    )


def test_a_pid_controller_adds_error_sum_and_change() -> None:
    """e = .5, −.2: 1 + .35 + .055 + 0, then 1 − .14 + .033 − .21."""
    assert followed(FOLLOWING["pid"], [1.0, 0.3]) == pytest.approx([1.0, 1.405, 0.683])


def test_a_pid_controller_at_its_bound_forgets_what_pushes_it_there() -> None:
    spec = PidSpec(**BOUNDS, i=0.5)
    values = followed(spec, [8.5] * 50 + [-0.5])
    assert values[1:51] == [2.0] * 50
    assert values[51] == pytest.approx(0.5)  # 1 − .5, as if nothing had been summed


def test_a_gate_holds_the_value_low_until_its_metric_is_below_the_bound() -> None:
    item = schedule(PidSpec(**BOUNDS, p=1.0, gate="entropy", gate_below=0.3))
    item.observe({"m": 1.0, "entropy": 0.4})
    assert item.value(1) == 0.0
    item.observe({"m": 1.0, "entropy": 0.2})
    assert item.value(2) == pytest.approx(1.5)


def test_a_target_is_sought_by_steps_of_one_size() -> None:
    assert followed(FOLLOWING["target"], [0.4, 0.6, 0.5, 0.1]) == pytest.approx([1.0, 1.07, 1.0, 1.0, 1.07])
    falling = TargetSpec(**BOUNDS, step=0.07, falls=True)
    assert followed(falling, [0.4, 0.6]) == pytest.approx([1.0, 0.93, 1.0])


def test_a_conditioned_value_is_loose_where_the_metric_is_low() -> None:
    """3x² − 2x³ at 0, ½, ¼ and 1; beyond 1 it stays."""
    assert followed(FOLLOWING["conditioned"], [0.5, 0.25, 1.0, 7.0]) == pytest.approx(
        [0.1, 0.5, 0.225, 0.9, 0.9]
    )


@pytest.mark.parametrize("name", sorted(FOLLOWING))
def test_every_value_lies_between_the_extremes_that_a_recipe_is_checked_with(name: str) -> None:
    low, high = sorted(schedule(FOLLOWING[name]).extremes())
    values = followed(FOLLOWING[name], [0.1, 90.0, 1e-9, 3.3, -70.0, 0.5, 0.7])
    assert all(low <= value <= high for value in values)


SETTINGS = {
    "optim.lr": {"name": "exp_decay", "start": 1e-3, "end": 1e-5, "decay": 0.9},
    "offpolicy.eps_high": {
        "name": "target",
        "metric": "policy_entropy",
        "target": 0.7,
        "start": 0.3,
        "low": 0.2,
    }
    | {"high": 0.6, "step": 0.013},
    "regularisers.0.coef": {"name": "pid", "metric": "loss/kl_ref", "target": 0.05, "start": 0.01, "low": 0.0}
    | {"high": 0.2, "p": 0.1, "i": 0.03, "d": 0.07, "gate": "policy_entropy", "gate_below": 5.0},
    "regularisers.1.coef": {"name": "conditioned", "metric": "reward_mean", "low": 0.001, "high": 0.1},
    "limits.max_logprob_gap": {
        "name": "dual",
        "metric": "logprob_gap",
        "target": 0.1,
        "start": 0.5,
        "low": 0.1,
    }
    | {"high": 1.0, "rate": 0.37},
    "optim.max_grad_norm": {"name": "momentum", "metric": "loss", "start": 0.4, "end": 1.0, "rate": 0.1},
}
TWO = [{"name": "kl_ref", "coef": 0.01}, {"name": "entropy", "coef": 0.01}]


def metrics(step: int) -> dict[str, float]:
    names = ("policy_entropy", "loss/kl_ref", "reward_mean", "logprob_gap", "loss")
    return {name: ((step + 1) * (7 + index) % 11) / 13 for index, name in enumerate(names)}


def test_schedules_of_all_kinds_go_on_bit_for_bit_after_a_restart_through_json() -> None:
    recipe = load_recipe("grpo", {"regularisers": TWO, "schedules": SETTINGS})
    whole, first = Schedules(recipe), Schedules(recipe)
    for step in range(5):
        whole.advance(metrics(step))
        first.advance(metrics(step))
    saved = json.loads(json.dumps(first.state_dict()))
    second = Schedules(recipe)
    second.load_state_dict(saved)

    for step in range(5, 9):
        assert second.current() == whole.current()
        assert second.state_dict() == whole.state_dict()
        whole.advance(metrics(step))
        second.advance(metrics(step))
    assert whole.current() != recipe
    forgetful = Schedules(recipe)  # one that loses its state is found out
    forgetful.step = second.step
    assert forgetful.current() != second.current()


def test_a_number_within_a_list_of_regularisers_may_change() -> None:
    recipe = load_recipe(
        "grpo", {"regularisers": TWO, "schedules": {"regularisers.1.coef": SETTINGS["optim.lr"]}}
    )
    schedules = Schedules(recipe)
    schedules.advance({})
    assert [item.coef for item in schedules.current().regularisers] == pytest.approx(
        [0.01, 1e-5 + 9.9e-4 * 0.9]
    )
    with pytest.raises(ConfigError, match=r"regularisers.2.coef cannot be set.*a list of 2"):
        load_recipe("grpo", {"regularisers": TWO, "regularisers.2.coef": 0.1})


@pytest.mark.parametrize("name", sorted(FOLLOWING))
def test_a_step_without_the_metric_that_is_followed_is_no_observation(name: str) -> None:
    recipe = load_recipe("grpo", {"regularisers": TWO, "schedules": {"regularisers.0.coef": FOLLOWING[name]}})
    schedules = Schedules(recipe)
    before = schedules.state_dict()

    assert schedules.advance({"policy_entropy": 1.0, "loss": 2.0}) == 1

    assert schedules.state_dict() == before | {"step": 1}
    assert schedules.advance({"m": 2.0}) == 0
    assert schedules.state_dict()["schedules"] != before["schedules"]


def test_a_state_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Pid keeps \['last', 'total', 'value'\]"):
        schedule(FOLLOWING["pid"]).load_state_dict(schedule(FOLLOWING["dual"]).state_dict())


def test_a_start_outside_its_bounds_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"start 1.0 must lie between low 2.0 and high 3.0"):
        DualSpec(metric="m", target=0.0, start=1.0, low=2.0, high=3.0, rate=1.0)


def test_what_the_advantage_does_with_the_whole_batch_may_change_and_what_it_begins_with_may_not() -> None:
    """Its base is read where samples are built."""
    linear = {"name": "linear", "start": 0.1, "end": 1.0, "steps": 9}
    top = {"name": "top_tokens"}
    recipe = load_recipe("grpo", {"advantage": top, "schedules": {"advantage.frac": linear}})
    assert recipe.advantage.params["frac"] == 0.1
    with pytest.raises(ConfigError, match=r"advantage.base.eps is read once"):
        load_recipe("grpo", {"advantage": top, "schedules": {"advantage.base.eps": linear}})
