"""Penalties weigh at most so much beside praise."""

from dataclasses import replace
from pathlib import Path

import pytest
from guarded_run import guarded
from learner_run import Run, write_base

from agentrl.config import Config, GuardsConfig
from agentrl.errors import ConfigError
from agentrl.learner.guard_rules import most_penalty, refuse
from agentrl.learner.penalties import bounded, without_praise
from agentrl.recipes.recipe import load_recipe
from agentrl.types import TrainingSample


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def sample(advantage: float | None, *, weight: float = 1.0, name: str = "t") -> TrainingSample:
    """Two ids of a prompt and two that were sampled."""
    return TrainingSample(
        turn_ids=(name,),
        token_ids=(1, 2, 3, 4),
        loss_mask=(False, False, True, True),
        behavior_logprobs=None,
        num_allowed=None,
        teacher=None,
        advantages=None if advantage is None else (0.0, 0.0, advantage, advantage),
        weights={"rl": (weight,) * 4},
    )


@pytest.mark.parametrize(
    ("advantages", "most", "factor"),
    [
        ((1.0, -1.0), 1.0, 1.0),
        ((1.0, -1.0, -1.0, -2.0), 1.0, 0.25),
        ((1.0, -1.0, -1.0, -2.0), 2.0, 0.5),
        ((-1.0, -1.0), 1.0, 0.0),
        ((1.0, 1.0), 1.0, 1.0),
        ((None, -1.0, 0.5), 1.0, 0.5),
        ((), 1.0, 1.0),
    ],
)
def test_penalties_are_scaled_to_so_many_times_the_praise(
    advantages: tuple[float | None, ...], most: float, factor: float
) -> None:
    given = [sample(one) for one in advantages]
    found, scaled = bounded(given, most, lambda _: 1.0)

    assert scaled == pytest.approx(factor)
    for one, advantage in zip(found, advantages, strict=True):
        expected = advantage if advantage is None or advantage >= 0 else factor * advantage
        assert one == sample(expected), "praise, weights and what nobody judged stay as they are"


def test_what_a_sample_weighs_counts() -> None:
    quarter = [sample(1.0, weight=0.25), sample(-1.0)]
    assert bounded(quarter, 1.0, lambda _: 1.0)[1] == 0.25
    longer = [sample(1.0), sample(-1.0, name="long")]
    assert bounded(longer, 1.0, lambda one: 4.0 if one.turn_ids == ("long",) else 1.0)[1] == 0.25


def test_where_nothing_is_praised_what_only_a_reward_spoke_of_is_left_out() -> None:
    blamed, nothing, unjudged = (
        sample(-1.0, name="blamed"),
        sample(0.0, name="nothing"),
        sample(None, name="unjudged"),
    )
    undistilled = replace(blamed, weights=blamed.weights | {"kd": (0.0,) * 4})
    given = [blamed, nothing, unjudged, undistilled]

    assert without_praise(given, uses_kd=False) == ([unjudged], [blamed, nothing, undistilled])
    assert without_praise(given, uses_kd=True) == ([blamed, nothing, unjudged], [undistilled])
    assert without_praise([*given, sample(0.5)], uses_kd=False) == ([*given, sample(0.5)], [])
    unheard = sample(1.0, weight=0.0)
    assert without_praise([blamed, unheard], uses_kd=False) == ([], [blamed, unheard])


def test_a_learner_bounds_the_penalties_of_an_update_and_says_by_how_much(tmp_path: Path, base: Path) -> None:
    factors, advantages = {}, {}
    for most in (0.0, 1.0):
        run = guarded(Run(tmp_path / f"run{most}", base, recipe="openclaw_rl_binary"), max_penalty=most)
        turns = run.record(*(run.turn(f"task {i}", "abc") for i in range(3)), reward=-1.0)
        turns += run.record(run.turn("task 3", "abc"), reward=1.0)
        with run.learner() as learner:
            learner.loop.start()
            claims = learner.log.claim(limit=4, needs="any", max_age_s=1e9)
            given = [sample(1.0 if turn is turns[-1] else -1.0, name=turn.id) for turn in turns]
            weighed = learner.guards.weigh(given, claims)
        factors[most] = weighed.metrics.get("penalty_factor")
        advantages[most] = [one.advantages[-1] for one in weighed.samples if one.advantages]
    assert factors == {0.0: None, 1.0: pytest.approx(1 / 3)}
    assert advantages == {
        0.0: [-1.0, -1.0, -1.0, 1.0], 1.0: pytest.approx([-1 / 3, -1 / 3, -1 / 3, 1.0]),
    }  # fmt: skip


def test_recipes_that_take_rewards_as_they_are_are_bounded_and_others_refuse_it() -> None:
    for name in ("openclaw_rl", "openclaw_rl_binary"):
        for most, bound in ((None, 1.0), (0.0, 0.0), (2.5, 2.5)):
            settings = GuardsConfig(max_penalty=most)
            refuse(Config(guards=settings), load_recipe(name))
            assert most_penalty(settings, load_recipe(name)) == bound
    for name in ("hint_opsd", "openclaw_rl_hint", "grpo", "dpo"):
        assert most_penalty(GuardsConfig(), load_recipe(name)) == 0.0
        refuse(Config(guards=GuardsConfig(max_penalty=0.0)), load_recipe(name))
        with pytest.raises(ConfigError, match=r"guards\.max_penalty bounds rewards .* leave it out"):
            refuse(Config(guards=GuardsConfig(max_penalty=1.0)), load_recipe(name))
