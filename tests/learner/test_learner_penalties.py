"""Penalties weigh at most so much beside praise."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from guarded_run import guarded
from learner_run import Run, write_base

from agentrl.config import Config, GuardsConfig
from agentrl.errors import ConfigError
from agentrl.learner.guard_rules import most_penalty, refuse
from agentrl.learner.penalties import bounded
from agentrl.recipes.recipe import load_recipe
from agentrl.types import Signal, SignalSource, TeacherView, TrainingSample, Turn

TEACHER = TeacherView(token_ids=(1, 9, 2, 3, 4), inserted_spans=((1, 2),))


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
        ((1.0, 1.0), 1.0, 1.0),
        ((None, -1.0, 0.5), 1.0, 0.5),
        ((), 1.0, 1.0),
    ],
)
def test_penalties_are_scaled_to_so_many_times_the_praise(
    advantages: tuple[float | None, ...], most: float, factor: float
) -> None:
    given = [sample(one) for one in advantages]
    found, left_out, scaled = bounded(given, most, lambda _: 1.0)

    assert (scaled, left_out) == (pytest.approx(factor), [])
    for one, advantage in zip(found, advantages, strict=True):
        expected = advantage if advantage is None or advantage >= 0 else factor * advantage
        assert one == sample(expected), "praise, weights and what nobody judged stay as they are"


def test_what_a_sample_weighs_counts() -> None:
    quarter = [sample(1.0, weight=0.25), sample(-1.0)]
    assert bounded(quarter, 1.0, lambda _: 1.0)[2] == 0.25
    longer = [sample(1.0), sample(-1.0, name="long")]
    assert bounded(longer, 1.0, lambda one: 4.0 if one.turn_ids == ("long",) else 1.0)[2] == 0.25


def test_where_nothing_is_praised_only_what_a_teacher_or_nobody_judged_is_left() -> None:
    hinted = replace(sample(-1.0, name="hinted"), teacher=TEACHER)
    blamed, unjudged = sample(-1.0, name="blamed"), sample(None, name="unjudged")
    found, left_out, factor = bounded([blamed, hinted, unjudged], 1.0, lambda _: 1.0)

    assert (left_out, factor) == ([blamed], 0.0)
    assert found == [replace(hinted, advantages=(0.0, 0.0, 0.0, 0.0)), unjudged]


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


def test_an_update_of_penalties_alone_makes_no_step_and_its_turns_wait_for_another_word(
    tmp_path: Path, base: Path
) -> None:
    """A step would move the weights by momentum alone."""
    limits = {"limits__max_logprob_gap": 1e9, "batch__turns_per_step": 4}
    run = guarded(Run(tmp_path / "run", base, recipe="openclaw_rl_binary", **limits))

    def played(first: int, end: int, reward: float) -> list[Turn]:
        turns = (run.turn(f"task {i}", "abc", logprobs=(-5.0,) * 4) for i in range(first, end))
        return run.record(*turns, reward=reward)

    with run.learner() as learner:
        learner.loop.start()
        blamed = played(0, 4, -1.0)
        before = learner.bits()[0]
        learner.work()
        assert run.account() == (4, 0, {"only penalties": 4}, {})
        assert all(torch.equal(tensor, learner.bits()[0][name]) for name, tensor in before.items())

        played(4, 7, 1.0)
        word = Signal(turn_id=blamed[0].id, source=SignalSource.USER, reward=-1.0, created_at=time.time())
        asyncio.run(run._log([], [word]))
        learner.work()
        assert run.account() == (7, 4, {"only penalties": 3}, {})
        [step] = [one for one in learner.journal.of("step") if one["step"]]
        assert step["metrics"]["penalty_factor"] == 1.0


def test_recipes_that_take_rewards_as_they_are_are_bounded_and_others_refuse_it() -> None:
    for name in ("openclaw_rl", "openclaw_rl_binary"):
        for most, bound in ((None, 1.0), (0.0, 0.0), (2.5, 2.5)):
            settings = GuardsConfig(max_penalty=most)
            refuse(Config(guards=settings), load_recipe(name))
            assert most_penalty(settings, load_recipe(name)) == bound
    for name in ("hint_opsd", "openclaw_rl_hint", "grpo", "dpo"):
        assert most_penalty(GuardsConfig(), load_recipe(name)) == 0.0
        for most in (0.0, 1.0):
            with pytest.raises(ConfigError, match=r"guards\.max_penalty bounds rewards .* leave it out"):
                refuse(Config(guards=GuardsConfig(max_penalty=most)), load_recipe(name))
